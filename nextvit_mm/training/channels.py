"""Pictures of other than three channels: what of a config would not go with them, said before a run."""

from collections.abc import Iterator, Sequence

from mmengine.config import Config

from ..adapt.network import is_nextvit
from ..adapt.pictures import preprocessors
from ..data.loaders import datasets_of, type_name
from ..errors import UserError

USUAL = 3
# What LoadImageFromFile makes of a file; 'unchanged' gives what the file has.
READ = dict(color=3, color_ignore_orientation=3, grayscale=1, grayscale_ignore_orientation=1)
OTHERS = ('mmseg', 'mmpretrain')  # whose preprocessors take as many values as channels, and swap three channels only


def channels_of(cfg: Config) -> int:
    """The channels that a config's Next-ViT takes; three for another backbone, which has rules of its own."""
    model = cfg.get('model') or {}
    if not isinstance(model, dict):  # said elsewhere
        return USUAL
    backbone = (model if 'backbone' in model else model.get('detector') or {}).get('backbone') or {}
    return backbone.get('in_channels', USUAL) if is_nextvit(backbone) else USUAL


def check_channels(cfg: Config, splits: Sequence[str]) -> None:
    """See that preprocessor and pipelines give what a Next-ViT of other than three channels takes.

    Args:
        cfg: The config that will run.
        splits: Of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: They do not; the message names the key.
    """
    channels = channels_of(cfg)
    if channels == USUAL:
        return
    for name, one in preprocessors(cfg):
        for problem in _of_preprocessor(cfg, one, channels):
            raise UserError(f'{cfg.filename}: {name}.{problem}, and the backbone takes in_channels={channels}')
    for split in splits:
        for dataset in datasets_of(cfg, split):
            for step in dataset.get('pipeline') or ():
                _check_reading(step, split, channels)


def only_color(cfg: Config, what: str) -> None:
    """Refuse a network for other than three channels.

    Args:
        cfg: Of the network.
        what: What reads pictures of three channels here.

    Raises:
        UserError: It takes others.
    """
    channels = channels_of(cfg)
    if channels != USUAL:
        raise UserError(
            f'{cfg.filename} has in_channels={channels}, and {what} pictures of three channels: train and test it with '
            'tools/train.py and tools/test.py'
        )


def _of_preprocessor(cfg: Config, one: dict, channels: int) -> Iterator[str]:
    name = type_name(one) if 'type' in one else ''
    detects = cfg.get('default_scope') not in OTHERS and not name.startswith(('Seg', 'Cls'))
    for key in ('mean', 'std'):
        count = len(one.get(key) or [0])
        if count not in (1, channels):
            yield f'{key} has {count} values; give one, or one for each channel'
        elif detects and count not in (1, USUAL):
            yield f"{key} has {count} values, and MMDetection's preprocessor takes three, or one for all channels"
    for key in ('bgr_to_rgb', 'rgb_to_bgr'):
        if detects and one.get(key):
            yield f'{key}=True would pick three channels; set it to False'


def _check_reading(step: dict, split: str, channels: int) -> None:
    kind = step.get('color_type', 'color')
    if type_name(step) != 'LoadImageFromFile' or READ.get(kind, channels) == channels:
        return
    wanted = "'grayscale'" if channels == 1 else "'unchanged' for files with as many, or take another loading step"
    raise UserError(
        f'{split}_dataloader: LoadImageFromFile with color_type={kind!r} gives pictures of {READ[kind]} channels, and '
        f'the backbone takes in_channels={channels}: set color_type={wanted}'
    )
