"""How long, with how many pictures, at which rate and size a run trains: a recipe rescaled as a whole."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError
from ..utils.command import option
from .loaders import dicts_in, pipelines_of, steps_of, type_name
from .schedule import is_by_epoch, rescale_schedule, warm_up

SIZES = ('scale', 'scales', 'crop_size', 'size', 'img_scale')  # of pipeline steps, in pixels
LEAST_ITERATIONS, MOST_EPOCHS, LEAST_EPOCHS = 2000, 100, 12  # of one's own data, unless told
CLASSIFIERS_BATCH = 32  # at most
SEGMENTORS_BATCH = 8  # at least, over all processes: their batch norms learn, and two pictures are too few for that
HEADING = 'length, rate and size; the schedule is rescaled'
# A backbone from random weights must move further than a pretrained one. The demo's configs, which were tuned on runs,
# have about ten times the rates of the recipes at the same batch.
FROM_SCRATCH = 10


@dataclass
class Length:
    """The flags of the command line; None leaves the recipe's value. ``batch_size`` is of one process."""

    epochs: int | None = option(None, help='train for N epochs', metavar='N', group=HEADING)
    iters: int | None = option(None, help='train for N iterations', metavar='N', group=HEADING)
    batch_size: int | None = option(
        None, help='pictures of a GPU in an iteration; scales the rate, and says so', metavar='N', group=HEADING
    )
    lr: float | None = option(None, help='the rate, as it is', metavar='X', group=HEADING)
    image_size: Sequence[int] | None = option(
        None,
        help="shorter side of a detector's pictures; side, or height and width, of the others' crop",
        metavar='N',
        group=HEADING,
    )

    def __post_init__(self) -> None:
        for name in ('epochs', 'iters', 'batch_size', 'lr'):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f'--{name.replace("_", "-")} must be more than 0, and is {value}')
        if self.epochs and self.iters:
            raise UserError('--epochs and --iters both say how long to train: give one of them')
        if self.image_size is not None:
            sides = [self.image_size] if isinstance(self.image_size, int) else list(self.image_size)
            if len(sides) not in (1, 2) or min(sides) < 32:
                raise UserError(f'--image-size takes one or two numbers of at least 32 pixels, not {sides}')
            self.image_size = sides * (3 - len(sides))

    def apply(self, cfg: Config, pictures: int | None, own_data: bool = False) -> None:
        """Change a config in place, and say what was changed.

        Args:
            cfg: The config.
            pictures: How many there are to train with; None if that is not known.
            own_data: Choose what no flag says to fit few pictures.

        Raises:
            UserError: The config has nothing that a flag could change.
        """
        if self.image_size is not None:
            set_image_size(cfg, *self.image_size)
        if self.batch_size or own_data:
            self._set_batch(cfg, pictures, own_data)
        if self.lr is not None:
            cfg.optim_wrapper.optimizer.lr = self.lr
            print_log(f'rate: {self.lr:g}', 'current')
        if self.epochs or self.iters or own_data:
            self._set_length(cfg, pictures, own_data)

    def _set_batch(self, cfg: Config, pictures: int | None, own_data: bool) -> None:
        loader = cfg.train_dataloader
        if 'batch_size' not in loader:
            raise UserError(f'--batch-size: train_dataloader of {cfg.filename} has a batch_sampler of its own')
        old = loader.batch_size
        least = math.ceil(SEGMENTORS_BATCH / processes()) if cfg.get('default_scope') == 'mmseg' else 1
        batch = self.batch_size or max(least, min(old, CLASSIFIERS_BATCH))
        if own_data and pictures:
            if pictures < batch and self.batch_size:
                raise UserError(f'--batch-size {batch} is more than the {pictures} pictures there are to train with')
            batch = min(batch, pictures)
            loader.drop_last = pictures % batch == 1  # a last batch of one picture is too little for a batch norm
        loader.batch_size = batch
        if self.lr is None and not cfg.get('auto_scale_lr', {}).get('enable'):
            _scale_rate(cfg, batch, old)

    def _set_length(self, cfg: Config, pictures: int | None, own_data: bool) -> None:
        by_epoch = is_by_epoch(cfg)
        old = cfg.train_cfg['max_epochs' if by_epoch else 'max_iters']
        each = iterations_of_epoch(cfg, pictures) if pictures else None
        wanted = self.epochs if by_epoch else self.iters
        other = self.iters if by_epoch else self.epochs
        if other and not each:
            flag, unit = ('--iters', 'epochs') if by_epoch else ('--epochs', 'iterations')
            raise UserError(f'{flag}: {cfg.filename} counts {unit}, and its pictures could not be counted')
        if other and each:
            wanted = max(1, math.ceil(other / each)) if by_epoch else other * each
        if not wanted:
            assert each is not None
            epochs = min(max(math.ceil(LEAST_ITERATIONS / each), LEAST_EPOCHS), MOST_EPOCHS)
            wanted = min(epochs, max(old, MOST_EPOCHS)) if by_epoch else min(old, max(epochs * each, LEAST_ITERATIONS))
        total = wanted * each if by_epoch and each else wanted
        rescale_schedule(cfg, wanted, total if own_data or not by_epoch or each else None)
        if own_data:
            warm_up(cfg, total)
            _fit_reports(cfg, wanted, each or 1, by_epoch)
        unit = ('epoch' if by_epoch else 'iteration') + 's' * (wanted != 1)
        detail = f' of {each:,} iterations' if by_epoch and each else ''
        print_log(f'length: {wanted:,} {unit}{detail} (the recipe: {old:,})', 'current')


def iterations_of_epoch(cfg: Config, pictures: int) -> int:
    """Of a run on as many processes as there are now."""
    share = pictures / (cfg.train_dataloader.get('batch_size', 1) * processes())
    return max(1, math.floor(share) if cfg.train_dataloader.get('drop_last') else math.ceil(share))


def processes() -> int:
    return int(os.environ.get('WORLD_SIZE') or os.environ.get('SLURM_NTASKS') or 1)


def _scale_rate(cfg: Config, batch: int, old_batch: int) -> None:
    """The rate of a recipe for another number of pictures: by its root for Adam's kin, in proportion for SGD."""
    optimizer = cfg.optim_wrapper.optimizer
    seen = batch * processes()
    base = cfg.get('auto_scale_lr', {}).get('base_batch_size') or old_batch * processes()
    power = 0.5 if 'adam' in type_name(optimizer).lower() else 1.0
    old = optimizer.lr
    optimizer.lr = old * (seen / base) ** power
    # From here on the rate is one for this batch: the config of the run, given with the same flags, keeps it.
    cfg.auto_scale_lr = dict(cfg.get('auto_scale_lr', {}), base_batch_size=seen)
    if seen != base:
        rule = 'times the root of' if power == 0.5 else 'times'
        print_log(f"rate: {optimizer.lr:.3g}, the recipe's {old:g} {rule} {seen}/{base} pictures", 'current')


def raise_rate_from_scratch(cfg: Config) -> None:
    """Where a recipe's rate is one for a pretrained backbone, make it one for random weights, and say so.

    It is to be called before the pretrained weights are taken out. The config of the run, given again, has none: its
    rate stays.
    """
    if 'Pretrained' not in str((cfg.get('model', {}).get('backbone') or {}).get('init_cfg')):
        return
    optimizer = cfg.optim_wrapper.optimizer
    optimizer.lr *= FROM_SCRATCH
    print_log(f'rate: {optimizer.lr:.3g}, {FROM_SCRATCH} times that for pretrained weights; --lr sets it', 'current')


def _fit_reports(cfg: Config, length: int, each: int, by_epoch: bool) -> None:
    """About ten evaluations and checkpoints of a run, the best one kept, and a line of the log every so often."""
    interval = max(1, length // 10)
    cfg.train_cfg.val_interval = interval
    hooks = cfg.setdefault('default_hooks', {})
    metric = dict(mmdet='coco/bbox_mAP', mmseg='mIoU').get(cfg.get('default_scope'), 'accuracy/top1')
    hooks.setdefault('checkpoint', dict(type='CheckpointHook')).update(
        interval=interval, by_epoch=by_epoch, save_best=metric, rule='greater', max_keep_ckpts=2
    )
    if 'logger' in hooks:
        hooks.logger.interval = max(1, min(hooks.logger.get('interval', 50), (each if by_epoch else length) // 4 or 1))


def set_image_size(cfg: Config, height: int, width: int) -> None:
    """Scale every size in the pipelines, so that the reference one becomes ``height`` and ``width``.

    The reference: a segmentor's crop, a classifier's crop or size, the shorter side of a detector's test pictures.

    Raises:
        UserError: The pipelines have no such size, or the pictures of a detector are not to keep their shape.
    """
    scope = cfg.get('default_scope')
    reference = _reference_size(cfg, scope)
    if reference is None:
        raise UserError(f'--image-size: the pipelines of {cfg.filename} have no size to change')
    factor = min(height, width) / min(reference)
    square = height == width
    changed: set[int] = set()
    for pipeline in pipelines_of(cfg):
        for step in dicts_in(pipeline):
            if id(step) not in changed:
                changed.add(id(step))
                _scale_step(step, factor, (height, width), square, scope == 'mmdet')
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if scope == 'mmseg' and preprocessor.get('size'):
        preprocessor['size'] = (height, width)
    if scope == 'mmdet':
        print_log(f'pictures: shorter side {min(height, width)} (the recipe: {min(reference)})', 'current')
    else:
        print_log(f'pictures: {height}×{width} (the recipe: {reference[0]}×{reference[1]})', 'current')


def _reference_size(cfg: Config, scope: str | None) -> tuple[int, int] | None:
    if scope == 'mmseg' and (cfg.model.get('data_preprocessor') or {}).get('size'):
        return tuple(cfg.model.data_preprocessor['size'])
    names = ('Resize', 'RandomChoiceResize') if scope == 'mmdet' else ('CenterCrop', 'Resize', 'RandomResizedCrop')
    for name in names:
        for step in steps_of(cfg, name):
            value = step.get('crop_size') or step.get('scale') or (step.get('scales') or [None])[-1]
            if value is not None:
                pair = (value, value) if isinstance(value, int) else tuple(value)
                return (min(pair), min(pair)) if scope == 'mmdet' else (pair[0], pair[1])
    return None


def _scale_step(step: dict, factor: float, exact: tuple[int, int], square: bool, detector: bool) -> None:
    for key in SIZES:
        if key not in step or step[key] is None:
            continue
        if not square and not detector and key == 'crop_size':
            step[key] = tuple(exact)
            continue
        step[key] = _times(step[key], factor)


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_times(item, factor) for item in value)
    return max(1, round(value * factor)) if isinstance(value, int) else value
