"""Checkpoints that are whole or not there at all."""

import functools
import inspect
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..errors import UserError
from ..weights.models import unwrap_model
from .files import PART, RemovesLater, count_bytes, flush, is_full, is_local, write_whole
from .gradients import gather_gradients, is_between_steps, restore_gradients
from .randomness import gather_states, own_state, restore_states, set_own_state

POINTER = 'last_checkpoint'  # MMEngine's name


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, so that no kill and no full disk costs more than the work since the last checkpoint.

    A file is written beside its place, flushed to the disk and renamed; ``last_checkpoint`` names it after that, and
    files that are not kept any longer (``max_keep_ckpts``, ``save_best``) are removed last. It therefore takes room for
    one file more than it keeps. Other places than local disks are written as MMEngine does.

    Beside what MMEngine stores, a checkpoint holds the states of the random numbers of every process
    (``random_states``), gradients that wait for more batches (``gradients``), what EarlyStoppingHook has found
    (``early_stopping``), the number of pictures, and that of processes. Validation leaves training's random numbers as
    they were. The arguments are those of CheckpointHook.

    Raises:
        UserError: The disk is full; or the weights are not finite, and saving them would replace good ones.
    """

    file_backend: Any
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        unknown = self.args.keys() - inspect.signature(Runner.save_checkpoint).parameters.keys()
        if unknown:  # MMEngine hands them on, and learns of a misspelt one after the first epoch
            raise UserError(f'CheckpointHook has no {" and no ".join(unknown)}: correct default_hooks.checkpoint')
        _check_interval(self, runner)
        self._kept_random: dict | None = None  # while a validation runs
        self._random: list[dict] = []
        self._gradients: dict[str, Any] = {}
        self._go_on_with_gradients(runner)
        self._bytes = 0
        self._replaced: list[str] = []  # best checkpoints that a better one follows
        if isinstance(runner, Runner) and not isinstance(runner.save_checkpoint, functools.partial):
            runner.save_checkpoint = functools.partial(self._save_whole, runner, runner.save_checkpoint)
        info = runner.message_hub.runtime_info
        if self.save_best is not None:
            self._find_best_here(runner)
        if not is_main_process() or not is_local(self.out_dir, self.backend_args):
            return
        for part in Path(self.out_dir).glob(f'.*{PART}'):
            runner.logger.info(f'removed {part}, which was not complete')
            part.unlink()
        # A kill between the new file and the removal of the old one left the old one.
        self._remove(runner, self._without_kept(info.get('outdated_checkpoints') or []))

    def before_val(self, runner: Runner) -> None:
        if runner._train_loop is not None:  # an evaluation alone has nothing to keep
            self._kept_random = own_state()

    def after_val(self, runner: Runner) -> None:
        if getattr(self, '_kept_random', None) is not None:
            set_own_state(self._kept_random)
            self._kept_random = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self._loaded_random = checkpoint.get('random_states')
            self._loaded_gradients = checkpoint.get('gradients') or {}
            for hook, state in zip(_early_stopping(runner), checkpoint.get('early_stopping') or []):
                vars(hook).update(state)
            lost = [] if checkpoint.get('random_states') else ['random numbers']
            lost += ['patience of EarlyStoppingHook'] * (
                'early_stopping' not in checkpoint and any(_early_stopping(runner))
            )
            if lost:
                runner.logger.info(f'the checkpoint does not hold the {" and the ".join(lost)}: they begin anew')

    def before_train_epoch(self, runner: Runner) -> None:
        states, self._loaded_random = getattr(self, '_loaded_random', None), None
        if states and not restore_states(states):
            runner.logger.info(
                f'the checkpoint has the random numbers of {len(states)} processes: these start with new ones'
            )

    def _go_on_with_gradients(self, runner: Runner) -> None:
        loaded = self.__dict__.pop('_loaded_gradients', None)
        if loaded:
            restore_gradients(runner, loaded)
        elif loaded is not None and is_between_steps(runner):
            runner.logger.warning(
                'the checkpoint was written between two steps of the optimizer, without the gradients: the next step '
                'adds up fewer batches'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._random:
            checkpoint['random_states'] = self._random
        if self._gradients:
            checkpoint['gradients'] = self._gradients
        checkpoint['early_stopping'] = [
            dict(best_score=float(hook.best_score), wait_count=hook.wait_count) for hook in _early_stopping(runner)
        ]
        checkpoint['meta'].update(pictures=len(runner.train_dataloader.dataset), processes=runner.world_size)
        self._bytes = count_bytes(checkpoint)

    def save_to_stop(self, runner: Runner, epoch: int, iteration: int) -> str:
        """Save where the run stands, in the middle of whatever; the next regular checkpoint replaces it.

        Args:
            runner: Of the run.
            epoch: Epochs that were done.
            iteration: Iterations that were done.

        Returns:
            str: The file.
        """
        name = f'iter_{iteration}.pth'
        if self.last_ckpt and os.path.basename(self.last_ckpt) == name:
            return self.last_ckpt
        runner.message_hub.update_info('stop_checkpoint', name)
        self._write(runner, name, dict(epoch=epoch, iter=iteration), [], optimizer=True)
        return self.last_ckpt

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """As MMEngine's, in the order that loses nothing."""
        outdated = list(self._replaced)
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        stopped = runner.message_hub.runtime_info.get('stop_checkpoint')
        if stopped:
            outdated.append(stopped)
            runner.message_hub.update_info('stop_checkpoint', '')
        name = self.filename_tmpl.format(step)
        self._write(runner, name, meta, [old for old in outdated if old != name])

    def _write(self, runner: Runner, name: str, meta: dict, outdated: list[str], optimizer: bool = False) -> None:
        check_weights(runner, self._last_whole(runner))
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        outdated = self._without_kept(outdated)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.message_hub.update_info('outdated_checkpoints', outdated)
        self._random, self._gradients = gather_states(self._kept_random), gather_gradients(runner)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer or optimizer,
            save_param_scheduler=self.save_param_scheduler or optimizer,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_whole(Path(runner.work_dir, POINTER), self.last_ckpt)
            self._remove(runner, outdated)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """As MMEngine's, but the best so far is removed when the better one is there.

        Raises:
            UserError: The evaluation has no such metric.
        """
        for name in self.key_indicators if self.save_best else ():
            if name != 'auto' and name not in metrics:
                raise UserError(f'CheckpointHook has save_best={name!r}, and the evaluation has {", ".join(metrics)}')
        backend, later = self.file_backend, RemovesLater(self.file_backend)
        self.file_backend, self._replaced, self._random, self._gradients = later, later.names, [], {}
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend, self._replaced = backend, []
        if is_main_process():
            self._remove(runner, self._without_kept(later.names))

    def _save_whole(
        self, runner: Runner, save: Any, out_dir: str, filename: str, file_client_args: dict | None = None, **kwargs
    ) -> None:
        """``Runner.save_checkpoint`` by way of a file beside the one that is wanted."""
        if file_client_args is not None or not is_local(out_dir, kwargs.get('backend_args')):
            save(out_dir, filename, file_client_args, **kwargs)
            return
        part = Path(out_dir, f'.{filename}{PART}')
        try:
            save(out_dir, part.name, file_client_args, **kwargs)
            if is_main_process():
                flush(part)
                os.replace(part, Path(out_dir, filename))
                flush(Path(out_dir))
        except BaseException as error:
            if is_main_process():
                part.unlink(missing_ok=True)
            if not is_full(error):
                raise
            free = shutil.disk_usage(out_dir).free
            raise UserError(
                f'no room for {Path(out_dir, filename)}: it takes {self._bytes / 1e6:,.1f} MB, and {free / 1e6:,.1f} '
                f'MB are free. {self._last_whole(runner)}. Make room, and go on with --resume'
            ) from None

    def _last_whole(self, runner: Runner) -> str:
        pointer = Path(runner.work_dir, POINTER)
        last = pointer.read_text().strip() if pointer.is_file() else ''
        return f'The last whole checkpoint is {os.path.basename(last)}' if last else 'There is no checkpoint yet'

    def _without_kept(self, names: Iterable[str]) -> list[str]:
        """Of files that may go, those that nothing else keeps."""
        best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        kept = {os.path.basename(path) for path in [*best, self.last_ckpt] if path}
        if self.max_keep_ckpts > 0:
            kept |= {self.filename_tmpl.format(step) for step in self.keep_ckpt_ids}
        return [name for name in dict.fromkeys(names) if name not in kept]

    def _remove(self, runner: Runner, names: Iterable[str]) -> None:
        for name in names:
            path = self.file_backend.join_path(self.out_dir, name)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
                runner.logger.info(f'{name} is not kept any longer')

    def _find_best_here(self, runner: Runner) -> None:
        """The best checkpoints where this run's folder is now: it may have been moved, or be a copy."""

        def here(path: str | None) -> str | None:
            own = path and self.file_backend.join_path(self.out_dir, os.path.basename(path))
            return own if own and self.file_backend.isfile(own) else None

        if len(self.key_indicators) == 1:
            self.best_ckpt_path = here(self.best_ckpt_path)
        else:
            self.best_ckpt_path_dict = {name: here(path) for name, path in self.best_ckpt_path_dict.items()}


def _early_stopping(runner: Runner) -> list[EarlyStoppingHook]:
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]


def use_whole_checkpoints(runner: Runner) -> None:
    """Turn a built run's CheckpointHooks into ours; its config still names MMEngine's, which any MM tool has."""
    for hook in _early_stopping(runner):  # judges an evaluation before a checkpoint is written that knows of it
        runner._hooks.remove(hook)
        runner.register_hook(hook, 'LOW')
    for hook in runner.hooks:
        if type(hook) is CheckpointHook:
            hook.__class__ = WholeCheckpointHook
        elif isinstance(hook, CheckpointHook) and not isinstance(hook, WholeCheckpointHook):
            runner.logger.warning(f'{type(hook).__name__} saves by its own rules: a kill may cost its last checkpoint')
    if not any(isinstance(hook, CheckpointHook) for hook in runner.hooks):
        runner.logger.warning('there is no CheckpointHook: no weights are saved. Give default_hooks.checkpoint')


def _check_interval(hook: CheckpointHook, runner: Runner) -> None:
    """Say where nothing is saved before the end of a run.

    Raises:
        UserError: The interval is no whole number.
    """
    if not isinstance(hook.interval, int):
        raise UserError(f'default_hooks.checkpoint.interval={hook.interval!r} must be a whole number')
    counts_iterations = hasattr(runner.train_loop, 'dataloader_iterator')
    why = f'interval={hook.interval}' if hook.interval < 1 else ''
    if not why and hook.by_epoch and counts_iterations:
        why = 'by_epoch=True in a run that counts iterations'
    if why:
        saved = 'only the last checkpoint is saved' if hook.save_last else 'no checkpoint is saved'
        runner.logger.warning(
            f'default_hooks.checkpoint has {why}: {saved}, and a kill costs the whole run. Set interval to 1 or more'
            + (', and by_epoch=False' if counts_iterations else '')
        )


def check_weights(runner: Runner, last: str) -> None:
    """See that no weight is infinite or not a number.

    Raises:
        UserError: One is; ``last`` is part of the message.
    """
    state = unwrap_model(runner.model).state_dict()
    wrong = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise UserError(
            f'{len(wrong)} of {len(state)} tensors of the model are not finite, the first is {wrong[0]}. They are not '
            f'saved. {last}. Lower the rate, or clip gradients'
        )
