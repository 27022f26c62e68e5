"""Going on from a checkpoint: with its weights, flags, data and random numbers, or not at all."""

import functools
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.checkpoint import load_state_dict

from ..errors import UserError, WeightsError
from ..utils.logs import read_scalars
from ..weights.checkpoint import load_checkpoint
from ..weights.models import unwrap_model
from .changes import SAID_ONLY, SCHEDULE, Change, find_changes, read_config_text
from .distributed import same_for_all
from .rates import follow_new_schedule, own_settings
from .saving import POINTER

NOT_REPEATED = ('load_from', 'resume')  # of --cfg-options: how the run began


@dataclass
class Point:
    """Where a run stood: what a checkpoint says beside its weights.

    Attributes:
        path: The file.
        epoch, iteration: How many were done.
        config: The variables of the run's config; empty if the file has none.
        seed: Of the run.
        classes: Of its data.
        pictures, processes: How many it had; None if the file does not tell.
        seen: Pictures of the pass, or of a run that counts iterations, which it had taken; None if not told.
        is_evaluated: Whether the file was written after its evaluation.
        content: What the file holds, until the run has taken it: a large file is read once.
    """

    path: str
    epoch: int
    iteration: int
    config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    classes: Sequence[str] = ()
    pictures: int | None = None
    processes: int | None = None
    seen: int | None = None
    is_evaluated: bool = False
    content: dict | None = field(default=None, repr=False)

    @property
    def flags(self) -> dict[str, Any]:
        """The flags that the run was started with."""
        return self.config.get('started_with') or {}

    def take(self) -> dict:
        """The content, which is not kept any longer."""
        content, self.content = self.content, None
        return load_checkpoint(self.path) if content is None else content


def find_checkpoint(work_dir: str) -> str | None:
    """The checkpoint that a run in ``work_dir`` goes on from; None where there is none.

    It is the one that ``last_checkpoint`` names, in this folder before any other, because the folder may have been
    moved; or, where that is gone or not whole, the newest whole one of the folder, which is said.

    Raises:
        UserError: ``last_checkpoint`` names a file, and neither it nor another one is there.
    """
    pointer = Path(work_dir, POINTER)
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if '://' in named:
        return named
    for path in (Path(work_dir, os.path.basename(named)), Path(named)) if named else ():
        if zipfile.is_zipfile(path):
            return str(path)
    others = [path for form in ('epoch_*.pth', 'iter_*.pth') for path in Path(work_dir).glob(form)]
    whole = [path for path in others if zipfile.is_zipfile(path)]
    if whole:
        newest = max(whole, key=lambda path: path.stat().st_mtime_ns)
        why = f'{named}, which {POINTER} names, is not there or not whole' if named else f'there is no {POINTER}'
        print_log(f'{why}: going on from {newest.name}', 'current')
        return str(newest)
    if named or others:
        raise UserError(
            f'{named or others[0]} is not there or not whole, and {work_dir} holds no other checkpoint to go on from. '
            'Remove that folder to start anew'
        )
    return None


def read_point(path: str) -> Point:
    """Read what a checkpoint says of its run.

    Raises:
        UserError: It cannot be read, or cannot be gone on from.
    """
    checkpoint = load_checkpoint(path)
    missing = {'meta', 'optimizer', 'state_dict'} - set(checkpoint if isinstance(checkpoint, dict) else ())
    if missing:
        raise UserError(
            f'{path} cannot be resumed from: it holds no {" and no ".join(sorted(missing))}. To start '
            f'a new run from its weights: --cfg-options load_from={path}'
        )
    meta = checkpoint['meta']
    return Point(
        path,
        meta.get('epoch', 0),
        meta.get('iter', 0),
        read_config_text(meta.get('cfg') or ''),
        meta.get('seed'),
        tuple((meta.get('dataset_meta') or {}).get('classes') or ()),
        meta.get('pictures'),
        meta.get('processes'),
        meta.get('seen'),
        meta.get('is_evaluated', False),
        checkpoint,
    )


def repeat_flags(given: dict[str, Any], point: Point) -> dict[str, Any]:
    """The flags of a run that goes on: those that are given, and for the others those of its start."""
    flags, again = dict(given), []
    for name, value in point.flags.items():
        if name == 'cfg_options':
            options = {key: item for key, item in value.items() if key.split('.')[0] not in NOT_REPEATED}
            again += [f'{key}={item}' for key, item in options.items() if key not in (given.get(name) or {})]
            flags[name] = {**options, **(given.get(name) or {})} or None
        elif name in given and not given[name]:
            flags[name] = value
            again.append('--' + name.replace('_', '-') + ('' if value is True else f' {value}'))
    if again:
        print_log(f'as when the run was started: {", ".join(again)}', 'current')
    return flags


def check_changes(point: Point, config: str, allowed: bool) -> list[Change]:
    """See that a config goes on with the run of a checkpoint.

    Args:
        point: Of the checkpoint.
        config: The config's text.
        allowed: Go on with every change.

    Returns:
        list[Change]: What differs, and may.

    Raises:
        UserError: Something differs, and is not allowed to.
    """
    if not point.config:
        print_log(f'{point.path} holds no config to compare with: nothing was compared', 'current')
        return []
    changes = find_changes(point.config, read_config_text(config))
    report_changes(point, changes, allowed)
    return changes


def check_data_is_same(point: Point, dataset: Any, processes: int, allowed: bool) -> None:
    """See that a run's data, classes and processes are those of the checkpoint.

    Raises:
        UserError: They are not, and are not allowed to differ.
    """
    classes = tuple((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
    found = [
        Change('classes', 'names', ', '.join(point.classes), ', '.join(classes)),
        Change('data', 'number of pictures', point.pictures, len(dataset)),
        Change('data', 'number of processes', point.processes, processes),
    ]
    report_changes(point, [change for change in found if change.old and change.old != change.new], allowed)


def report_changes(point: Point, changes: list[Change], allowed: bool) -> None:
    """Say what differs, or stop because of it."""
    wrong = [change for change in changes if change.kind not in SAID_ONLY]
    if wrong and not allowed:
        more = [f'  and {len(wrong) - 6} more'] if len(wrong) > 6 else []
        raise UserError(
            '\n'.join(
                [
                    f'{point.path} is of another run than this config and these flags describe:',
                    *(f'  {change}' for change in wrong[:6]),
                    *more,
                    'Give the config and flags of its start; or --allow-changes, to go on with the new ones',
                ]
            )
        )
    for change in changes:
        print_log(f'changed since {os.path.basename(point.path)}: {change}', 'current')


class EvaluationHook(Hook):
    """Makes the evaluation that a checkpoint was written before; an uninterrupted run would have made it.

    What is best, when to stop and rates that follow a metric depend on it. A run that is finished is not evaluated
    twice, and says that nothing is left to train.

    Args:
        point: What is gone on from.
        skipped: Iterations of the epoch, or of the run, that were left out.
    """

    priority = 'LOWEST'  # other hooks are ready before it

    def __init__(self, point: Point, skipped: int) -> None:
        self.point, self.skipped = point, skipped

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, end, unit = (loop.epoch, loop.max_epochs, 'epoch') if by_epoch else (loop.iter, loop.max_iters, 'iter')
        if done >= end:
            runner.logger.info(
                f'this run is finished, with {unit} {done:,} of {end:,}: nothing is left to train. To train longer: '
                f'--cfg-options train_cfg.max_{unit}s=…'
            )
        if runner.val_loop is None or self.point.is_evaluated or (by_epoch and self.skipped):
            return
        loop._decide_current_val_interval()
        if done < loop.val_begin or (done % loop.val_interval and done != end):
            return
        if not (done >= end and same_for_all(_is_logged(runner.work_dir, done))):
            name = os.path.basename(self.point.path)
            runner.logger.info(f'{name} was written before its evaluation ended: evaluating now')
            runner.val_loop.run()


def _is_logged(work_dir: str, step: int) -> bool:
    """Whether a work dir's log has the evaluation of a step."""
    try:
        return any(record.get('step') == step for record in read_scalars(work_dir)[1])
    except UserError:  # no log, or a damaged one
        return False


def go_on_exactly(runner: Runner, point: Point, changes: list[Change]) -> None:
    """Have ``Runner.train`` load a checkpoint with every weight, and follow a new schedule where there is one."""
    runner._resume, runner._load_from = True, point.path
    runner.load_checkpoint = functools.partial(_load_strictly, runner, point)
    runner.resume = functools.partial(_resume, runner, runner.resume, changes)


def _load_strictly(runner: Runner, point: Point, filename: str, **_: Any) -> dict:
    """``Runner.load_checkpoint`` of a content that has been read, with every weight of the model."""
    content = point.take()
    runner.call_hook('after_load_checkpoint', checkpoint=content)
    try:
        load_state_dict(unwrap_model(runner.model), content['state_dict'], strict=True, logger=runner.logger)
    except RuntimeError as error:
        lines = [line.strip()[:300] for line in str(error).splitlines() if line.strip()]
        raise WeightsError('\n'.join([f'{filename} does not fit the model:', *lines[:6]])) from None
    runner._has_loaded = True
    return content


def _resume(runner: Runner, resume: Any, changes: list[Change], filename: str, **kwargs: Any) -> None:
    new = [change for change in changes if change.kind in (SCHEDULE, 'optimizer')]
    fresh = own_settings(runner) if new else None
    try:
        resume(filename, **{**kwargs, **({'resume_param_scheduler': False} if new else {})})
    except ValueError as error:  # torch's, of an optimizer with other groups
        raise UserError(f'the optimizer in {filename} does not fit: {error}') from None
    if fresh is not None:
        follow_new_schedule(runner, fresh, any(change.kind == 'optimizer' for change in changes))
