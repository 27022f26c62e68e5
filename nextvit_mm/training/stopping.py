"""What ends a run before its time, and leaves it so that it can go on."""

import atexit
import contextlib
import errno
import functools
import math
import multiprocessing.util
import os
import signal
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..errors import INTERRUPTED, UserError
from .saving import WholeCheckpointHook

SIGNALS = ('SIGTERM', 'SIGUSR1', 'SIGINT')  # of schedulers that take a machine away, and Ctrl-C of a terminal
STOPPED = 75  # exit status: try again later (EX_TEMPFAIL of sysexits.h)
SAME = 2.0  # seconds in which torchrun passes a Ctrl-C on, which the terminal has sent to all processes itself
CTRL_C = b'\nCtrl-C: the run saves and ends after this iteration. Ctrl-C again ends it at once, without saving\n'
WORKERS_GRACE = 60  # seconds that a loading process outlives a signal to the whole group
LOCK = '.run.lock'


class StoppedError(UserError):
    """A run that ended because a signal asked it to; it is saved.

    The tools end with status 75, which asks a scheduler to try again, and after Ctrl-C with 130, as shells do.
    """

    status = STOPPED
    is_shared = True

    def __init__(self, signal_name: str, message: str) -> None:
        super().__init__(f'{signal_name} {message}')
        if signal_name == 'SIGINT':
            self.status = INTERRUPTED


class FiniteLossHook(Hook):
    """Stops a run in the iteration whose loss is infinite or not a number, before anything is saved.

    Raises:
        UserError: Names the iteration, the losses, the rate and the pictures.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        losses = {
            name: float(torch.as_tensor(value).detach())
            for name, value in (outputs or {}).items()
            if 'loss' in name and isinstance(value, (float, int, torch.Tensor)) and torch.as_tensor(value).numel() == 1
        }
        if all(math.isfinite(value) for value in losses.values()):
            return
        told = ', '.join(f'{name} {value:.4g}' for name, value in losses.items())
        rates = runner.optim_wrapper.get_lr()
        rate = ', '.join(f'{values[0]:.3g}' for values in rates.values() if values)
        pictures = name_pictures(data_batch)
        process = f' in process {get_rank()}' if runner.world_size > 1 else ''
        raise UserError(
            f'the loss of iteration {runner.iter + 1:,}{process} is not finite: {told}; rate {rate}; pictures: '
            f'{", ".join(pictures) or "unknown"}. Nothing of it is saved. {last_whole(runner)}. Look at these pictures '
            'and their labels, lower the rate or clip gradients, and go on with --resume'
        )


class StopHook(Hook):
    """Saves at the end of the iteration in which a signal came, in all processes at once, and ends the run.

    Raises:
        StoppedError: After it was saved.
    """

    priority = 'LOWEST'

    def __init__(self, asked: dict[str, str]) -> None:
        self.asked = asked

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is not None:
            protect_workers(runner.val_loop.dataloader)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        self._stop_if_asked(runner, runner.epoch, runner.iter + 1)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any | None = None
    ) -> None:
        if runner._train_loop is not None and batch_idx + 1 < len(runner.val_dataloader):
            self._stop_if_asked(runner, runner.epoch, runner.iter, during=' during a validation')

    def _stop_if_asked(self, runner: Runner, epoch: int, iteration: int, during: str = '') -> None:
        if not self._is_asked(runner):
            return
        savers = [hook for hook in runner.hooks if isinstance(hook, WholeCheckpointHook)]
        name = self.asked.get('signal', 'a signal to another process')
        if not savers:
            raise StoppedError(name, f'stopped the run after iteration {iteration:,}; no CheckpointHook saves it')
        path = savers[0].save_to_stop(runner, epoch, iteration)
        raise StoppedError(
            name,
            f'stopped the run after iteration {iteration:,}{during}; it is saved as {os.path.basename(path)}. '
            'Go on with --resume',
        )

    def _is_asked(self, runner: Runner) -> bool:
        if runner.world_size == 1:
            return bool(self.asked)
        # A signal reaches the processes at different times, and they must stop after the same iteration.
        flag = torch.tensor(float(bool(self.asked)), device=get_device())
        all_reduce(flag, 'sum')
        return bool(flag > 0)


@contextlib.contextmanager
def catch_signals() -> Iterator[dict[str, str]]:
    """Note the signals of :data:`SIGNALS` instead of dying of them; yields where they are noted.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed a second time.
    """
    asked: dict[str, str] = {}
    before: dict[int, Any] = {}
    pressed: list[float] = []

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            if pressed and time.monotonic() - pressed[0] > SAME:
                raise KeyboardInterrupt
            if not pressed and os.environ.get('RANK', '0') == '0':
                os.write(2, CTRL_C)  # print may be in the middle of a line of its own
            pressed.append(time.monotonic())
        asked['signal'] = signal.Signals(number).name

    try:
        for name in SIGNALS:
            number = getattr(signal, name, None)
            # A shell has its background jobs ignore the Ctrl-C that is meant for another command.
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread, which alone may do this
        pass
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def protect_workers(loader: DataLoader) -> None:
    """Let the processes of a loader, which it has not started yet, outlive a signal to the whole group."""
    if loader.num_workers:
        loader.worker_init_fn = functools.partial(_outlive_signals, init=loader.worker_init_fn)
        # Python ends those that are left by such a signal, and would wait for them. These come before. A process that
        # multiprocessing has started has only the second, at 10 of which the queues close. In any other process torch
        # has marked the exit by then, and would end nothing.
        left = weakref.ref(loader)
        atexit.register(lambda: _end_workers_of(left()))
        multiprocessing.util.Finalize(None, lambda: _end_workers_of(left()), exitpriority=11)


def _end_workers_of(loader: DataLoader | None) -> None:
    loading = getattr(loader, '_iterator', None)
    if hasattr(loading, '_shutdown_workers'):
        loading._shutdown_workers()
        loader._iterator = None


def _outlive_signals(worker_id: int, init: Any = None) -> None:
    """In a loading process: the signal leaves it the time that the iteration needs."""
    if init is not None:
        init(worker_id)
    if hasattr(signal, 'alarm'):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKERS_GRACE))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes


@contextlib.contextmanager
def end_workers(runner: Runner) -> Iterator[None]:
    """Afterwards send the processes that load pictures home.

    Those that persist would get a signal at the end of this process, and outlive it for :data:`WORKERS_GRACE`.
    """
    try:
        yield
    finally:
        for loop in (getattr(runner, name, None) for name in ('_train_loop', '_val_loop', '_test_loop')):
            _end_workers_of(getattr(loop, 'dataloader', None))


@contextlib.contextmanager
def lock_run(work_dir: str) -> Iterator[None]:
    """Hold a work dir for this run as long as this process lives, however it ends.

    Raises:
        UserError: Another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    os.makedirs(work_dir, exist_ok=True)
    path = Path(work_dir, LOCK)
    # A lock of lockf belongs to this process alone: those that load pictures do not hold it when this one is killed.
    with open(path, 'a+') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read().strip() or 'unknown'
                raise UserError(
                    f'another run is at work in {work_dir} ({holder}): wait for its end, stop it, or give another '
                    '--work-dir'
                ) from None
        else:
            file.truncate(0)
            file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
            file.flush()
        yield


def lock_if_main(work_dir: str) -> contextlib.AbstractContextManager:
    """:func:`lock_run` in the first process of a run; nothing in the others."""
    rank = next(
        (os.environ[name] for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK') if name in os.environ), 0
    )
    return lock_run(work_dir) if is_main_process() and int(rank) == 0 else contextlib.nullcontext()


def name_pictures(data_batch: Any) -> list[str]:
    """The files of a batch, as far as its samples know them."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    if isinstance(data_batch, (list, tuple)) and len(data_batch) == 2:
        samples = data_batch[1]
    paths = [getattr(sample, 'img_path', None) for sample in samples or []]
    return [str(path) for path in paths if path]


def last_whole(runner: Runner) -> str:
    """A sentence about the last checkpoint of a run."""
    savers = [hook for hook in runner.hooks if isinstance(hook, WholeCheckpointHook)]
    return savers[0]._last_whole(runner) if savers else 'The run saves no checkpoints'
