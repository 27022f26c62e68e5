"""What a person sees of a run. All of MMEngine's log goes into its file; the console shows what is read."""

import builtins
import contextlib
import functools
import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from rich.console import Console as Screen
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from ..utils.processes import is_first
from ..utils.silence import is_silenced
from .config import laid_out_once

PACKAGE = __name__.split('.')[0]
FOR_THE_LOG = f'{PACKAGE}.reproduction'  # its tables of every 500 iterations; its warnings are shown


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
        for handler in () if is_first() else logger.handlers:
            # MMEngine asks the process group which process this is, and the first logger is older than that.
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.ERROR)
        if self.verbose:
            return
        for i, handler in enumerate(logger.handlers):
            if type(handler) is logging.StreamHandler:  # a FileHandler is one, too
                logger.handlers[i] = _Readable(self, handler.level)
                self._stack.callback(logger.handlers.__setitem__, i, handler)

    def build_runner(self, cfg: Config) -> Runner:
        """The config's runner, whose log does not reach the console."""
        base = RUNNERS.get(cfg.runner_type) if 'runner_type' in cfg else Runner
        console = self

        class Watched(base):  # type: ignore[valid-type, misc]  # which class it is, the config says
            def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
                # The first thing that a runner logs is the environment and the whole config.
                console.logger = super().build_logger(*args, **kwargs)
                console.take(console.logger)
                for handler in console.logger.handlers:
                    for record in console.early if isinstance(handler, logging.FileHandler) else ():
                        handler.handle(record)
                return console.logger

        Watched.__name__ = base.__name__
        return Watched.from_cfg(cfg)

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
                TextColumn('{task.description}', table_column=Column(no_wrap=True)),
                BarColumn(bar_width=20, table_column=Column(min_width=20)),
                TextColumn('{task.completed}/{task.total}', table_column=Column(no_wrap=True)),
                TextColumn('{task.fields[text]}', table_column=Column(no_wrap=True)),
                console=self.screen,
                transient=True,
                refresh_per_second=4,
            )
            self._bar.start()
        # rich would cut the other columns first.
        room = max(0, self.screen.width - len(f'evaluation {total}/{total}') - 24)
        text = text if len(text) <= room else text[: max(0, room - 1)] + '…'
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, completed=done, text=text)
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
        with Console(kwargs.get('verbose', False)), laid_out_once():
            return function(*args, **kwargs)

    return run


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
        vars(module)['print'] = to_log
    try:
        yield
    finally:
        for module in modules:
            vars(module).pop('print', None)
