"""What a person sees of a run. All of MMEngine's log goes into its file; the console shows what is read."""

import builtins
import contextlib
import functools
import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, ClassVar

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.console import Console as Screen
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from ..utils.silence import is_silenced
from . import summary

PACKAGE = __name__.split('.')[0]
FOR_THE_LOG = f'{PACKAGE}.reproduction'  # its tables of every 500 iterations; its warnings are shown
LOSS_WINDOW = 20  # iterations that a printed loss is the mean of
EVERY_SHARE = 0.05  # of a run: a line, where the output is not a terminal …
FIRST_SECONDS, MOST_SECONDS = 15, 600  # … or after this time, which doubles from line to line up to the latter


class Console:
    """The console of one run. Within the context it stands in the place of MMEngine's own output.

    Args:
        verbose: Leave MMEngine's output where it is, and print a line beside it instead of a bar.
    """

    current: ClassVar['Console | None'] = None

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self.screen = Screen()
        self.start = time.time()
        self.logger: logging.Logger | None = None  # of the runner, with its file
        self.early: list[logging.LogRecord] = []  # what was logged before there was that file
        self._stack = contextlib.ExitStack()
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> 'Console':
        self._stack.callback(setattr, Console, 'current', Console.current)
        Console.current = self
        if not self.verbose:
            self._stack.enter_context(_hushed_pycocotools(self))
        self.take(MMLogger.get_current_instance())
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()
        self._stack.close()

    def take(self, logger: logging.Logger) -> None:
        """Stand in the place of a logger's own way to the console, until the context ends."""
        if self.verbose:
            return
        for i, handler in enumerate(logger.handlers):
            if type(handler) is logging.StreamHandler:  # a FileHandler is one, too
                logger.handlers[i] = _Readable(self, handler.level)
                self._stack.callback(logger.handlers.__setitem__, i, handler)

    def build_runner(self, cfg: Config, weights: str = '') -> Runner:
        """The config's runner, whose log does not reach the console.

        Args:
            cfg: The config.
            weights: What is tested.
        """
        base = RUNNERS.get(cfg.runner_type) if 'runner_type' in cfg else Runner
        console = self

        class Watched(base):
            def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
                # The first thing that a runner logs is the environment and the whole config.
                console.logger = super().build_logger(*args, **kwargs)
                console.take(console.logger)
                for handler in console.logger.handlers:
                    for record in console.early if isinstance(handler, logging.FileHandler) else ():
                        handler.handle(record)
                return console.logger

        Watched.__name__ = base.__name__
        runner = Watched.from_cfg(cfg)
        if is_main_process():
            runner.register_hook(ConsoleHook(self, weights), priority='VERY_LOW')  # what others log comes first
        return runner

    def say(self, text: str) -> None:
        """One message, above the bar where there is one."""
        if self.screen.is_terminal:
            self.screen.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    @property
    def has_bar(self) -> bool:
        return self.screen.is_terminal and not self.verbose

    def advance(self, name: str, done: int, total: int, text: str) -> None:
        """Move a bar of the terminal, of which the first call makes one."""
        if self._bar is None:
            self._bar = Progress(
                TextColumn('{task.description}'),
                BarColumn(bar_width=20, table_column=Column(min_width=20)),
                TextColumn('{task.completed}/{task.total}'),
                TextColumn('{task.fields[text]}', table_column=Column(no_wrap=True, overflow='ellipsis')),
                console=self.screen,
                transient=True,
                refresh_per_second=4,
            )
            self._bar.start()
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, text=text)
        self._bar.update(self._tasks[name], completed=done, total=total, text=text)

    def drop(self, name: str) -> None:
        if self._bar is not None and name in self._tasks:
            self._bar.remove_task(self._tasks.pop(name))
            if not self._tasks:
                self.stop()

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._tasks = None, {}


def on_console(function: Callable) -> Callable:
    """Have a run's function, whose keyword ``verbose`` says how much, keep to the console."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with Console(kwargs.get('verbose', False)):
            return function(*args, **kwargs)

    return run


class ConsoleHook(Hook):
    """Shows a run on a console: what it is, how far it is, what its evaluations say and what it wrote."""

    def __init__(self, console: Console, weights: str = '') -> None:
        self.console = console
        self.weights = weights
        self._pace = _Pace()
        self._evaluation = _Pace(share=0)

    def before_train(self, runner: Runner) -> None:
        self.console.say(summary.as_lines(summary.describe_training(runner)))
        self._pace = _Pace(done=runner.iter)

    def before_test(self, runner: Runner) -> None:
        self.console.say(summary.as_lines(summary.describe_test(runner, self.weights)))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        done, total = runner.iter + 1, runner.max_iters
        if self.console.has_bar:
            self.console.advance('training', done, total, f'{_left(runner)}  {_losses(runner)}')
        elif self._pace.is_due(done, total):
            epoch = ''
            if isinstance(runner.train_loop, EpochBasedTrainLoop):
                epoch = f' (epoch {runner.epoch + 1}/{runner.max_epochs})'
            self.console.say(f'iteration {done:,}/{total:,}{epoch}  {_left(runner)}  {_losses(runner)}')

    def before_val_epoch(self, runner: Runner) -> None:
        self._evaluation = _Pace(share=0)

    before_test_epoch = before_val_epoch

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._count(batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._count(batch_idx + 1, len(runner.test_dataloader))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.console.drop('evaluation')
        when = ''
        if isinstance(runner._train_loop, EpochBasedTrainLoop):
            when = f' after epoch {runner.epoch}, iteration {runner.iter:,}'
        elif not isinstance(runner._train_loop, (dict, type(None))):
            when = f' after iteration {runner.iter:,}'
        self.console.say(f'evaluation{when}\n{summary.as_table(metrics or {})}')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.console.drop('evaluation')
        self.console.say(f'evaluation\n{summary.as_table(metrics or {})}')

    def after_run(self, runner: Runner) -> None:
        self.console.stop()
        took = timedelta(seconds=round(time.time() - self.console.start))
        files = summary.written_since(runner.work_dir, self.console.start)
        self.console.say(f'written in {took}:\n' + '\n'.join(f'  {line}' for line in files))

    def _count(self, done: int, total: int) -> None:
        if self.console.has_bar:
            self.console.advance('evaluation', done, total, '')
        elif self._evaluation.is_due(done, total):
            self.console.say(f'evaluation {done:,}/{total:,}')


class _Pace:
    """Whether a line is due: after a share of the whole, or after a time.

    Args:
        share: Of the whole; 0: after a time alone, and not at the end.
        done: Where it begins.
    """

    def __init__(self, share: float = EVERY_SHARE, done: int = 0) -> None:
        self.share, self.done = share, done
        self.time, self.wait = time.monotonic(), FIRST_SECONDS

    def is_due(self, done: int, total: int) -> bool:
        by_time = time.monotonic() - self.time >= self.wait
        by_share = self.share > 0 and (done - self.done >= self.share * total or done >= total)
        if by_time:
            self.wait = min(2 * self.wait, MOST_SECONDS)
        if by_time or by_share:
            self.done, self.time = done, time.monotonic()
        return by_time or by_share


class _Readable(logging.Handler):
    """Warnings, errors and what this package says; nothing else, and no warning that is silenced by name."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self.console = console
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if self.console.logger is None:
            self.console.early.append(record)
        if record.levelno >= logging.WARNING:
            if is_silenced(message) or message in self.seen:
                return
            self.seen.add(message)
            self.console.say(f'{record.levelname.lower()}: {message}')
        elif record.levelno >= logging.INFO:
            speaker = _speaker()
            if speaker.startswith(f'{PACKAGE}.') and not speaker.startswith(FOR_THE_LOG):
                self.console.say(message)


def _speaker() -> str:
    """The module that logs: the first one up the stack that is neither a logger's nor this one."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        # MMEngine's print_log stands between a logger and whoever has something to say.
        if name != __name__ and not name.startswith(('logging', 'mmengine.logging')):
            return name
        frame = frame.f_back
    return ''


@contextlib.contextmanager
def _hushed_pycocotools(console: Console) -> Iterator[None]:
    """Send what pycocotools prints into the log; where MMDetection collects it, it is left to do so."""
    modules = []
    for name in ('pycocotools.coco', 'pycocotools.cocoeval'):
        with contextlib.suppress(ImportError):
            modules.append(importlib.import_module(name))
    usual = sys.stdout

    def to_log(*words: Any, **kwargs: Any) -> None:
        if sys.stdout is not usual and not isinstance(sys.stdout, FileProxy):  # the latter is a bar's
            builtins.print(*words, **kwargs)
        elif console.logger is not None and any(words):
            console.logger.info(' '.join(map(str, words)).strip())

    for module in modules:
        module.print = to_log
    try:
        yield
    finally:
        for module in modules:
            vars(module).pop('print', None)


def _left(runner: Runner) -> str:
    seconds = runner.message_hub.get_info('eta')
    return f'{timedelta(seconds=round(seconds))} left' if seconds is not None else ''


def _losses(runner: Runner) -> str:
    """The mean losses of the last iterations, their sum first, and the rate."""
    scalars = runner.message_hub.log_scalars
    names = [name for name in scalars if name.startswith('train/') and 'published' not in name and 'loss' in name]
    means = {name[len('train/') :]: f'{scalars[name].mean(LOSS_WINDOW):.3f}' for name in names}
    texts = [f'loss {means.pop("loss")}'] if 'loss' in means else []
    if len(means) > 1:  # else it is the same one
        texts.append(', '.join(f'{name.removeprefix("loss_")} {mean}' for name, mean in means.items()))
    if 'train/lr' in scalars:
        texts.append(f'lr {scalars["train/lr"].current():.2e}')
    return '  '.join(texts)
