"""The schedule of a run at another length: milestones, warm-up, evaluations and checkpoints, rescaled as a whole."""

import math

from mmengine.config import Config
from mmengine.logging import print_log

from .loaders import dicts_in, type_name

WARM_UP = 0.1  # of a run: at most a recipe's own, and at least that of one's own data
WARM_UPS = ('LinearLR', 'ConstantLR', 'OneCycleLR')  # schedulers that begin with a low rate


def is_by_epoch(cfg: Config) -> bool:
    return cfg.train_cfg.get('max_epochs') is not None


def rescale_schedule(cfg: Config, length: int, iterations: int | None) -> None:
    """Give a run another length: schedulers with milestones and warm-up, evaluations, checkpoints.

    Args:
        cfg: The config.
        length: Epochs or iterations, as the config counts.
        iterations: The same in iterations, which limits the warm-up to a tenth of the run; None if not known.
    """
    by_epoch = is_by_epoch(cfg)
    old = cfg.train_cfg['max_epochs' if by_epoch else 'max_iters']
    ratio = length / old
    cfg.train_cfg['max_epochs' if by_epoch else 'max_iters'] = length
    limit = max(2, math.floor(WARM_UP * iterations)) if iterations else None
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]:
        own = scheduler.get('by_epoch', True)
        if own == by_epoch:
            _rescale(scheduler, lambda value: _scaled(value, old, length))
        else:  # a warm-up counted in iterations of a run of epochs
            _rescale(scheduler, lambda value: min(max(2, round(value * ratio)), limit or value * length))
    for scheduler in dicts_in(schedulers):
        if 'warmup_epochs' in scheduler:
            scheduler['warmup_epochs'] = min(scheduler['warmup_epochs'], max(0, scheduler.get('epochs', length) - 1))
    intervals = [(cfg.train_cfg, 'val_interval')]
    checkpoint = cfg.get('default_hooks', {}).get('checkpoint') or {}
    if not by_epoch and not checkpoint.get('by_epoch', True):
        intervals.append((checkpoint, 'interval'))
    for found, key in intervals:
        value = found.get(key, 1)
        if value > 1:
            found[key] = max(1, min(round(value * ratio), length))


def warm_up(cfg: Config, iterations: int) -> None:
    """Begin a short run with a low rate for a tenth of it, where its schedule has a shorter warm-up or none.

    Of 80,000 iterations Semantic FPN's has none, and UperNet's is rescaled to a few. The first steps of Adam's kin are
    as long as the rate, whatever the gradient is. New heads send back noise then, and in a short run a pretrained
    backbone does not recover from that.
    """
    schedulers = cfg.get('param_scheduler') or []
    schedulers = list(schedulers) if isinstance(schedulers, (list, tuple)) else [schedulers]
    end = max(2, math.floor(WARM_UP * iterations))
    first = next((one for one in schedulers if type_name(one) in WARM_UPS or 'warmup_epochs' in one), None)
    if first is None:
        linear = dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=end)
        cfg.param_scheduler = [linear, *schedulers]
    elif type_name(first) == 'LinearLR' and not first.get('by_epoch', True) and first.get('end', end) < end:
        for other in schedulers:
            if other is not first and not other.get('by_epoch', True) and other.get('begin') == first.end:
                other.begin = end
        first.end = end
    else:
        return
    print_log(f'warm-up: {end:,} iterations', 'current')


def _scaled(value: int, old: int, new: int) -> int:
    if value in (old, old + 1):  # the end of the run, which some schedulers take one later
        return new + value - old
    return max(1, min(math.floor(value * new / old + 1e-9), new))


def _rescale(scheduler: dict, scaled) -> None:
    for key in ('begin', 'end', 'T_max', 'epochs', 'warmup_epochs', 'step_size', 'total_iters'):
        if isinstance(scheduler.get(key), int) and scheduler[key] > 0:
            scheduler[key] = scaled(scheduler[key])
    if 'milestones' in scheduler:
        # Several at one place would multiply the rate at once; each keeps a place of its own where there is room.
        places = sorted({scaled(value) for value in scheduler['milestones']})
        scheduler['milestones'] = [p for p in places if p < scheduler.get('end', p + 1)]
    if type_name(scheduler) == 'LinearLR' and scheduler.get('end', 3) - scheduler.get('begin', 0) < 2:
        scheduler['end'] = scheduler.get('begin', 0) + 2
