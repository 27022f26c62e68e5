"""Files that are written whole or not at all."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ..errors import UserError


def write_text(path: str | Path, text: str) -> Path:
    """Write a file of text in UTF-8, its folder with it; who reads it meanwhile finds the old one, or none.

    Raises:
        UserError: It cannot be written.
    """
    path = Path(path)
    part = path.with_name(f'.{path.name}.{os.getpid()}')  # several processes may write the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding='utf-8', newline='\n')
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # its folder may be a file
            part.unlink()
        raise UserError(f'{path} cannot be written: {error.strerror}') from None
    return path


def check_writable(path: str | Path) -> None:
    """Make the folder of a file that is to be written after long work, and see that it can be written there.

    Raises:
        UserError: It cannot.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f'{path} cannot be written: it is a folder')
    part = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        part.unlink()
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}') from None


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON as :func:`write_text` does; numbers that JSON does not have, infinities, become null.

    Raises:
        UserError: It cannot be written.
    """
    write_text(path, json.dumps(_finite(content), indent=2) + '\n')


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value in (float('inf'), float('-inf')) else value
