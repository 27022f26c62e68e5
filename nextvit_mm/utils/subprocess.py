"""A function in a process of its own: for libraries that change or crash the process they work in."""

import importlib
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


def run_apart(function: Callable, failure: str, show_progress: bool = False, **arguments: Any) -> Any:
    """``function(**arguments)``, in a new process.

    It has succeeded when its result is there, whatever the process does afterwards: some libraries crash at exit.

    Args:
        function: A function of a module, by whose name the process finds it.
        failure: What is said if there is no result, before the end of what the process printed.
        show_progress: Let its stderr through where that is a terminal.
        arguments: What JSON can hold; so must be what the function returns.

    Raises:
        UserError: No result.
    """
    with tempfile.TemporaryDirectory() as folder:
        task, result = Path(folder, 'task.json'), Path(folder, 'result.json')
        task.write_text(json.dumps(dict(module=function.__module__, name=function.__name__, arguments=arguments)))
        # The package may be that of a source tree, which only the first process was started in.
        paths = [PACKAGE_PARENT, *filter(None, [os.environ.get('PYTHONPATH')])]
        done = subprocess.run(
            [sys.executable, '-c', f'from {__name__} import main; main()', str(task), str(result)],
            stdout=subprocess.PIPE,
            text=True,
            errors='replace',
            stderr=None if show_progress and sys.stderr.isatty() else subprocess.STDOUT,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths)),
        )
        if not result.is_file():
            raise UserError(f'{failure}:\n{done.stdout[-2000:].strip()}')
        return json.loads(result.read_text())


def main() -> None:
    task_file, result_file = map(Path, sys.argv[1:])
    task = json.loads(task_file.read_text())
    result = getattr(importlib.import_module(task['module']), task['name'])(**task['arguments'])
    write_text(result_file, json.dumps(result))
