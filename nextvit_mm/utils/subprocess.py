"""A function in a process of its own: for libraries that change or crash the process they work in."""

import contextlib
import importlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import write_text

PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


def run_apart(
    function: Callable, failure: str, show_progress: bool = False, bare: bool = False, **arguments: Any
) -> Any:
    """``function(**arguments)``, in a new process.

    It has succeeded when its result is there, whatever the process does afterwards: some libraries crash at exit.

    Args:
        function: A function of a module, by whose name the process finds it.
        failure: What is said if there is no result, before the end of what the process printed.
        show_progress: Let its stderr through where that is a terminal.
        bare: Import the function's module without the packages around it, which import torch and much else.
        arguments: What JSON can hold; so must be what the function returns.

    Raises:
        UserError: No result. What the function itself raises as a :class:`UserError` is told as it is.
    """
    start = _without_packages(function.__module__) if bare else ''
    with tempfile.TemporaryDirectory() as folder:
        task, result = Path(folder, 'task.json'), Path(folder, 'result.json')
        task.write_text(json.dumps(dict(module=function.__module__, name=function.__name__, arguments=arguments)))
        done = subprocess.run(
            [sys.executable, '-c', f'{start}from {__name__} import main; main()', str(task), str(result)],
            stdout=subprocess.PIPE,
            text=True,
            errors='replace',
            stderr=None if show_progress and sys.stderr.isatty() else subprocess.STDOUT,
            env=_with_package(),
        )
        told = _error_of(result)
        if told.is_file():
            raise UserError(f'{failure}: {told.read_text(encoding="utf-8")}')
        if not result.is_file():
            raise UserError(f'{failure}:\n{done.stdout[-2000:].strip()}')
        return json.loads(result.read_text())


class Served:
    """A process that answers questions one by one, until the ``with`` block that it is used in ends.

    It runs a file, or a function by its name, that reads its arguments as JSON from ``sys.argv[1]``. It then answers
    each line of its stdin, a method's name, with one line of JSON; the first line says that it is ready.

    Args:
        target: A function of a module, or a file, which is run without the package.
        name: What errors call it.
        arguments: What JSON can hold.

    Raises:
        UserError: It ends before it is ready.
    """

    def __init__(self, target: Callable | str, name: str, arguments: dict[str, Any]) -> None:
        self.name = name
        if callable(target):
            code = f'from {target.__module__} import {target.__name__} as start; start()'
        else:
            code = f'import runpy; runpy.run_path({target!r}, run_name="__main__")'
        self.log = tempfile.TemporaryFile('w+', errors='replace')  # noqa: SIM115  (closed by close)
        self.process = subprocess.Popen(
            [sys.executable, '-c', code, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=_with_package(),
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> 'Served':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def ask(self, method: str) -> Any:
        """What a method returns.

        Raises:
            UserError: The process has ended; with the end of what it printed.
        """
        with contextlib.suppress(OSError):  # it may have ended, and what it printed says why
            print(method, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self.process.communicate()
        self.log.close()

    def _answer(self) -> Any:
        line = self.process.stdout.readline() if self.process.stdout else ''
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise UserError(f'{self.name} has failed:\n{self.log.read()[-2000:].strip()}')
        return json.loads(line)


def _without_packages(module: str) -> str:
    """Code that puts empty packages in the place of those around a module: their folders, without their imports."""
    names = itertools.accumulate(module.split('.')[:-1], '{}.{}'.format)
    folders = {name: list(sys.modules[name].__path__) for name in names}
    return f"""
import sys, types
for name, folder in {folders!r}.items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = folder
"""


def _with_package() -> dict[str, str]:
    """The environment for a process that finds this package, which may be that of a source tree."""
    paths = [PACKAGE_PARENT, *filter(None, [os.environ.get('PYTHONPATH')])]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(paths))


def _error_of(result: Path) -> Path:
    return result.with_name('error.txt')


def main() -> None:
    task_file, result_file = map(Path, sys.argv[1:])
    task = json.loads(task_file.read_text())
    try:
        result = getattr(importlib.import_module(task['module']), task['name'])(**task['arguments'])
    except UserError as error:
        write_text(_error_of(result_file), str(error))
        sys.exit(error.status)
    write_text(result_file, json.dumps(result))
