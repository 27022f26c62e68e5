"""A resumed run under another schedule: the rate goes on as if the run had had the new one from its start."""

import warnings
from typing import Any

from mmengine.optim import OptimWrapperDict, _ParamScheduler
from mmengine.runner import Runner

from ..errors import UserError


def own_settings(runner: Runner) -> list[dict[str, Any]]:
    """What a run's config gives the groups of its optimizer, before a checkpoint's settings replace it.

    Raises:
        UserError: It has several optimizers.
    """
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        raise UserError('a run with several optimizers cannot go on under another schedule: keep the one of its start')
    return [
        {key: value for key, value in group.items() if key != 'params'} for group in runner.optim_wrapper.param_groups
    ]


def follow_new_schedule(runner: Runner, fresh: list[dict[str, Any]], all_settings: bool) -> None:
    """Set the rate, and whatever else is scheduled, to what the config's schedule has at this point.

    Args:
        runner: That has loaded its checkpoint, and whose schedulers are at their start.
        fresh: Of :func:`own_settings`.
        all_settings: Take the config's other settings of the optimizer too, such as its weight decay.
    """
    groups = runner.optim_wrapper.param_groups
    before = groups[0]['lr']
    schedulers: list[_ParamScheduler] = list(runner.param_schedulers or [])
    names = {name for scheduler in schedulers for name in (scheduler.param_name, f'initial_{scheduler.param_name}')}
    for group, settings in zip(groups, fresh):
        group.update({key: value for key, value in settings.items() if all_settings or key in names or key == 'lr'})
    _step(runner, schedulers)
    runner.logger.info(
        f'the rate follows the new schedule: {groups[0]["lr"]:.4g} from here, where the old one had {before:.4g}'
    )
    _warn_of_an_early_end(runner, schedulers)


def _step(runner: Runner, schedulers: list[_ParamScheduler]) -> None:
    """Every step that an uninterrupted run would have made, because one scheduler builds on another's value."""
    by_iter = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    length = len(runner.train_dataloader) if not hasattr(runner.train_loop, 'dataloader_iterator') else 0
    epochs = 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's order of optimizer and scheduler, which is of no matter here
        for iteration in range(1, runner.iter + 1):
            for scheduler in by_iter:
                scheduler.step()
            if length and iteration % length == 0 and epochs < runner.epoch:
                epochs += 1
                for scheduler in by_epoch:
                    scheduler.step()
        for _ in range(epochs, runner.epoch if length else 0):  # epochs were shorter before the data were changed
            for scheduler in by_epoch:
                scheduler.step()


def _warn_of_an_early_end(runner: Runner, schedulers: list[_ParamScheduler]) -> None:
    for by_epoch, unit, end in ((True, 'epoch', runner.max_epochs), (False, 'iteration', runner.max_iters)):
        ends = [scheduler.end for scheduler in schedulers if scheduler.by_epoch == by_epoch]
        if ends and max(ends) < end and all(scheduler.by_epoch == by_epoch for scheduler in schedulers[-1:]):
            runner.logger.warning(
                f'the last scheduler ends at {unit} {max(ends)} of {end}: the rate stays as it is from there. '
                f'Give it a later end, as with --cfg-options param_scheduler.{len(schedulers) - 1}.end=…'
            )
