"""The operators for every process of a Python environment, also where it never imports this package."""

import sysconfig
from pathlib import Path

from ..errors import UserError

NAME = '_nextvit_mm_operators'
# Python runs the line of a .pth file at every start, so the module does nothing until mmcv asks.
HOOK = '''"""mmcv's operators from nextvit_mm where mmcv has none: written by python -m nextvit_mm.ops --install."""

import sys


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != 'mmcv._ext':
            return None
        try:
            from nextvit_mm.ops.finder import OperatorFinder
        except ImportError:
            return None
        return OperatorFinder().find_spec(name, path, target)


sys.meta_path.append(Finder)
'''


def install_everywhere(folder: str | Path | None = None) -> Path:
    """Let every process of this environment find the operators; returns the file that Python reads at its start.

    Args:
        folder: Where the environment's packages lie. Default: those of this Python.

    Raises:
        UserError: The folder cannot be written.
    """
    module, line = _files(folder)
    try:
        module.write_text(HOOK)
        line.write_text(f'import {NAME}\n')
    except OSError as error:
        raise UserError(f'{error.filename or module.parent} cannot be written: {error.strerror}') from None
    return line


def remove_everywhere(folder: str | Path | None = None) -> None:
    """Undo :func:`install_everywhere`.

    Raises:
        UserError: The folder cannot be written.
    """
    module, line = _files(folder)
    try:
        for file in (line, module):  # a line without its module would print an error at every start
            file.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f'{error.filename} cannot be removed: {error.strerror}') from None


def _files(folder: str | Path | None) -> tuple[Path, Path]:
    place = Path(folder or sysconfig.get_path('purelib'))
    return place / f'{NAME}.py', place / f'{NAME}.pth'
