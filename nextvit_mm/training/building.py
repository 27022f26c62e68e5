"""What the libraries say of a config that they cannot build: one line with the key and the value."""

import contextlib
import os
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mmengine.config import Config

from ..data.loaders import type_name
from ..errors import UserError

# Methods of MMEngine, and the keys that they build from.
KEYS = dict(
    setup_env='env_cfg',
    set_randomness='randomness',
    build_logger='log_level',
    build_log_processor='log_processor',
    build_visualizer='visualizer',
    build_model='model',
    wrap_model='model_wrapper_cfg',
    build_optim_wrapper='optim_wrapper',
    build_param_scheduler='param_scheduler',
    build_train_loop='train_cfg',
    build_val_loop='val_cfg',
    build_test_loop='test_cfg',
    register_default_hooks='default_hooks',
    register_custom_hooks='custom_hooks',
    add_config='visualizer',
    _clip_grad='optim_wrapper.clip_grad',
)
OF_SPLITS = dict(build_dataloader='dataloader', build_evaluator='evaluator')
MISSPELT = 'Please check whether the value'  # MMEngine's advice on a name that is not in its registry


@contextlib.contextmanager
def clear_config_errors(cfg: Config) -> Iterator[None]:
    """Have an error of building a part of a config name the file, the key and the type of that part.

    A wrong key or name is an error of whatever the config builds, which can fail in any way there is.

    Raises:
        UserError: A part could not be built. What happens outside of building goes on as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        place = _place(error)
        if place is None:
            raise
        raise UserError(f'{cfg.filename}: {place}{_cause(error)}') from error


def _place(error: Exception) -> str | None:
    """The key, and the type of the innermost part; None where nothing was being built."""
    key, kind, split = '', '', 'train'
    is_building = False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in frames:
        name, module = frame.f_code.co_name, frame.f_globals.get('__name__', '')
        if module.startswith('mmengine.') and name in (*KEYS, *OF_SPLITS):
            if name.endswith('_loop'):
                split = name.split('_')[1]
            is_building, key, kind = True, KEYS.get(name) or f'{split}_{OF_SPLITS[name]}', ''
        elif name == 'build_from_cfg' and module.startswith('mmengine.registry'):
            is_building, kind = True, _type_of(frame) or kind
    if frames and frames[-1].f_code.co_name == '__init__' and _is_runner(frames[-1]):
        return ''  # of keys that belong together; MMEngine names them
    return ''.join(f'{part}: ' for part in (key, kind) if part) if is_building else None


def _type_of(frame: FrameType) -> str:
    part: Any = frame.f_locals.get('cfg')
    return type_name(part) if isinstance(part, dict) and part.get('type') else ''


def _is_runner(frame: FrameType) -> bool:
    return frame.f_globals.get('__name__', '').startswith('mmengine.runner')


def _cause(error: Exception) -> str:
    """The text of an error, and the place in the user's own code where it comes from there."""
    text = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if MISSPELT in text:
        scope = ' or set default_scope,' if ' the mmengine::' in text else ''
        return f'{text.partition(MISSPELT)[0].strip()} Correct the name,{scope} or import it with custom_imports'
    file, line = '', 0
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_locals.get('optimizer_cls', frame) is None:  # MMEngine calls what it has not found
            return f'{type_name(frame.f_locals["optimizer_cfg"])} is no optimizer that is known. Correct the name'
        file, line = frame.f_code.co_filename, number
    return f'{type(error).__name__}: {text[:400]}' + (f' ({file}, line {line})' if _is_of_user(file) else '')


def _is_of_user(file: str) -> bool:
    others = (os.path.dirname(os.path.dirname(__file__)), os.path.dirname(traceback.__file__))  # this package, Python's
    return os.path.isfile(file) and 'site-packages' not in file and not file.startswith(others)
