"""Batches of one picture, which a batch norm over a map of 1×1 cannot take, and batches that never come."""

from mmengine.config import Config

from ..errors import UserError
from .length import processes
from .loaders import dicts_in, type_name

# Decode heads that pool the whole picture to one pixel, and normalise it.
POOLING = ('UPerHead', 'PSPHead', 'ASPPHead', 'DepthwiseSeparableASPPHead', 'EncHead', 'DMHead', 'APCHead')
STRIDE = 32  # of the backbone's last maps


def check_batches(cfg: Config, pictures: int) -> None:
    """See that training has batches, and none of one picture where a norm needs two.

    Raises:
        UserError: It has not; the message names the layer, and batch sizes that work.
    """
    loader = cfg.train_dataloader
    batch = loader.get('batch_size')
    if not batch:
        return
    share = -(-pictures // processes())
    if loader.get('drop_last') and share < batch and _ends(loader):
        raise UserError(
            f'{pictures} pictures make no batch of {batch} (drop_last=True): set train_dataloader.batch_size to at '
            f'most {share}, or drop_last=False'
        )
    layer = _normalises_one_pixel(cfg)
    if layer is None:
        return
    if batch == 1:
        raise UserError(
            f'train_dataloader.batch_size=1: {layer} has one value for each channel then, and training it needs two '
            'or more: take --batch-size 2 or more'
        )
    if share % batch == 1 and _ends(loader) and not loader.get('drop_last'):
        raise UserError(
            f'train_dataloader: {share} pictures in batches of {batch} leave one for the last batch; {layer} has one '
            f'value for each channel then, and training it needs two: set train_dataloader.drop_last=True, or '
            f'--batch-size {next(b for b in range(2, share + 2) if share % b != 1)}'
        )


def _ends(loader: dict) -> bool:
    """Whether an epoch of a loader has an end, and with it a last batch."""
    return type_name(loader.get('sampler') or {}) != 'InfiniteSampler'


def _normalises_one_pixel(cfg: Config) -> str | None:
    """The layer that a batch norm over one pixel follows, in words; None where there is none."""
    for key in ('decode_head', 'auxiliary_head'):
        for head in dicts_in(cfg.model.get(key) or {}):
            norm = type_name(head.get('norm_cfg') or {})
            alone = norm == 'BN' or (norm == 'SyncBN' and processes() == 1)
            if type_name(head) in POOLING and alone:
                return f'the {norm} after the pooling to 1×1 of model.{key} ({type_name(head)})'
    backbone = cfg.model.get('backbone') or {}
    size = _training_size(cfg)
    norm = type_name(backbone.get('norm_cfg') or dict(type='BN'))
    if size is not None and size <= STRIDE and norm == 'BN' and not backbone.get('norm_eval'):
        return f'the {norm} of the last stage, whose maps of pictures of {size}×{size} are 1×1,'
    return None


def _training_size(cfg: Config) -> int | None:
    """The larger side of the pictures that training sees, where its pipeline gives one size."""
    found = None
    for step in dicts_in(cfg.train_dataloader.get('dataset') or {}):
        if type_name(step) in ('Resize', 'RandomResizedCrop', 'RandomCrop', 'CenterCrop') and not step.get(
            'keep_ratio'
        ):
            value = step.get('crop_size', step.get('scale'))
            if value is not None:
                found = value if isinstance(value, int) else max(value)
    return found
