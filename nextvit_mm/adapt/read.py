"""Configs: by path or by ``package::path``, and what differs between two of them."""

import copy
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import import_modules_from_strings

from ..errors import UserError
from ..utils.new_style import read_file

# MMEngine takes `package::path` of the packages of this table alone.
MODULE2PACKAGE.setdefault('nextvit_mm', 'nextvit_mm')


def read_config(name: str | Path, options: dict | None = None) -> Config:
    """Read a config, and merge ``--cfg-options`` into it.

    Args:
        name: A path, or ``package::path`` of an installed package, such as
            ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``.
        options: Dotted keys and their values.

    Raises:
        UserError: There is no such config, or it cannot be read; the message names the file and the cause.
    """
    path = str(name)
    if '::' in path:
        path = _packaged(path)
    elif not os.path.isfile(path):
        raise UserError(f'config not found: {path}')
    for folder in (os.path.dirname(os.path.abspath(path)), os.getcwd()):
        # For custom_imports. Python itself would look beside the tool; what is installed comes first.
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        cfg = read_file(path)
        cfg.merge_from_dict(options or {})
        if any(key.split('.')[0] == 'custom_imports' for key in options or {}):  # the file's have been imported
            import_modules_from_strings(**cfg['custom_imports'])
    except Exception as error:  # a config is a program, which can fail in any way there is
        cause = f'{type(error).__name__}: {(str(error).strip().splitlines() or [""])[0]}'
        raise UserError(f'{name} cannot be read as a config: {_place(error, path)}{cause}') from error
    return cfg


def _packaged(name: str) -> str:
    package, _, inner = name.partition('::')
    if package not in MODULE2PACKAGE:
        raise UserError(f'config not found: {name} ({package} is not one of {", ".join(MODULE2PACKAGE)})')
    try:
        module = __import__(package)
    except ImportError as error:
        raise UserError(f'{name} needs {package}, which cannot be imported: {error}') from None
    inner = inner if inner.endswith('.py') else f'{inner}.py'
    folder = Path(str(module.__file__)).parent
    for root in (folder / '.mim' / 'configs', folder.parent / 'configs'):  # installed; a source tree
        if (root / inner).is_file():
            return str(root / inner)
    parent = (folder / '.mim' / 'configs' / inner).parent
    near = ', '.join(sorted(path.name for path in parent.glob('*.py'))[:5]) if parent.is_dir() else ''
    raise UserError(f'config not found: {name}' + (f'; in that folder: {near}, …' if near else ''))


def _place(error: Exception, path: str) -> str:
    """Where an error of a config itself was raised: the line, and the file where it is another than the config's."""
    of_configs, of_others, trace = '', '', error.__traceback__
    while trace:
        frame, file = trace.tb_frame, trace.tb_frame.f_code.co_filename
        if frame.f_code.co_name == '<module>' and os.path.isfile(file):
            other = '' if os.path.abspath(file) == os.path.abspath(path) else f'{file}, '
            place = f'{other}line {trace.tb_lineno}: '
            if '__name__' not in frame.f_globals:  # MMEngine runs configs without one
                of_configs = place
            elif 'site-packages' not in file:
                of_others = place
        trace = trace.tb_next
    return of_configs or of_others


def differences(old: Config, new: Config) -> list[str]:
    """The keys whose values differ, as ``key: old -> new``, in the order of the configs."""
    before, after = dict(_leaves(old._cfg_dict, '')), dict(_leaves(new._cfg_dict, ''))
    lines = []
    for key in dict.fromkeys([*before, *after]):
        if key not in after:
            lines.append(f'- {key} = {before[key]!r}')
        elif key not in before:
            lines.append(f'+ {key} = {after[key]!r}')
        elif before[key] != after[key]:
            lines.append(f'~ {key} = {before[key]!r} -> {after[key]!r}')
    return lines


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(one, dict) for one in value):
        items = enumerate(value)
    if not items:
        yield path, copy.copy(value)
    for key, one in items:
        yield from _leaves(one, f'{path}.{key}' if path else str(key))
