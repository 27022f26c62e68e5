"""Reading a file of weights: tensors only, with one clear error for what does not work."""

import argparse
import contextlib
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

from ..errors import WeightsError
from .archive import CheckedFile
from .tensors import read_safetensors

SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin')
# torch can be told which objects are harmless, under whatever name they were stored, from 2.6 on. What MMEngine stores
# in its checkpoints cannot be read tensors-only by older versions, which are left to read as they always have.
TENSORS_ONLY = digit_version(torch.__version__) >= digit_version('2.6')
# Of NumPy's arrays in checkpoints: numbers and texts. Those of objects are left out.
KINDS = ('bool', *(f'{kind}{bits}' for kind in ('int', 'uint') for bits in (8, 16, 32, 64)))
KINDS += ('float16', 'float32', 'float64', 'complex64', 'complex128', 'str', 'bytes')
# What trainings of timm and of the authors put beside their weights: attributes, and nothing that is run.
HARMLESS = [argparse.Namespace]


def allow_mmengine_checkpoints() -> None:
    """Let torch's weights-only unpickler read what MMEngine itself puts into a checkpoint, and nothing else.

    A training checkpoint holds, beside tensors, the log history: ``HistoryBuffer`` objects made of NumPy arrays,
    numbers, and references to the buffer's own statistics. What a data set tells of itself may be arrays, too. Does
    nothing before torch 2.6 (:data:`TENSORS_ONLY`).
    """
    if not TENSORS_ONLY:
        return
    allowed: list = [HistoryBuffer, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in KINDS}]
    functions: list[Any] = [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]]  # _reconstruct, scalar
    for function in functions:
        # NumPy 1 and 2 write the same functions under different module names; either may read the other's file.
        allowed += [
            (function, f'{module}.{function.__name__}')
            for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
        ]
    allowed += [(_history_statistic, f'{module}.getattr') for module in ('builtins', '__builtin__')]
    torch.serialization.add_safe_globals(allowed)


def _history_statistic(cls: type, name: str) -> Callable:
    """What stands in for ``getattr`` in a checkpoint: pickle writes ``HistoryBuffer.mean`` as a call of it.

    The real one would let a file reach any attribute of any object.
    """
    if cls is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL builtins.getattr({cls}, {name!r})')
    return getattr(cls, name)


def read_weights(path: str | Path, map_location: Any = 'cpu', tensors_only: bool = TENSORS_ONLY) -> Any:
    """Read one file: ``.safetensors``, or what ``torch.save`` wrote (zip or legacy), tensors only.

    A zip's own checksums are verified while it is read; the other formats have none for the tensors' bytes, so an
    altered file of theirs is noticed only where its structure suffers or its digest is known (:mod:`.fetch`).

    Args:
        path: The file.
        map_location: As ``torch.load`` takes it.
        tensors_only: False reads what ``torch.save`` wrote without restriction. Default: True from torch 2.6 on; older
            versions could not read MMEngine's own checkpoints so. What comes from the web or the hub is read with True
            by every version.

    Raises:
        WeightsError: No such file, a file that is no checkpoint, is cut short or altered, or one that holds
            anything but tensors, plain containers, MMEngine's records and an ``argparse.Namespace``; nothing in it is
            ever run.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f'checkpoint not found: {path}')
    if path.suffix == '.safetensors':
        return read_safetensors(path, map_location)
    try:
        if not zipfile.is_zipfile(path):
            return _load(path, map_location, tensors_only)
        with CheckedFile(path) as file:
            try:
                content = _load(file, map_location, tensors_only)
            except Exception:  # goes on below, unless a wrong checksum is the cause
                _refuse_broken(path, file)
                raise
            _refuse_broken(path, file)
        return content
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from None
    except Exception as error:  # damaged bytes make the unpickler fail in any way there is
        raise WeightsError(f'{path} is {_what_it_is(path)} ({type(error).__name__}: {first_line(error)})') from None


def _load(file: Any, map_location: Any, tensors_only: bool) -> Any:
    # Only while we read: other people's files are read by the process as before.
    harmless = torch.serialization.safe_globals(HARMLESS) if TENSORS_ONLY else contextlib.nullcontext()
    with harmless:
        return torch.load(file, map_location=map_location, weights_only=tensors_only)


def _refuse_broken(path: Path, file: CheckedFile) -> None:
    broken = file.find_broken()
    if broken:
        raise WeightsError(f'{path} is damaged: the checksum of {broken} in it is wrong')


def _refused(path: Path, error: pickle.UnpicklingError) -> WeightsError:
    found = re.search(r'GLOBAL (\S+)|allowlisted global (\S+)|`?(\S+\.\S+)`? was not an allowed', str(error))
    if found is None:  # torch's own message would advise to read without restriction
        return WeightsError(f'{path} is {_what_it_is(path)}')
    name = next(group for group in found.groups() if group)
    return WeightsError(
        f'{path} holds an object of {name}, which is refused: besides tensors only what MMEngine itself stores '
        'is read, because any other object could run code when it is loaded. Save the tensors alone: '
        "torch.save(dict(state_dict=model.state_dict()), 'weights.pth')"
    )


def _what_it_is(path: Path) -> str:
    with open(path, 'rb') as file:
        start = file.read(64).lstrip()
    if start.startswith(b'version https://git-lfs'):
        return 'a pointer of Git LFS, not a checkpoint: fetch the file with git lfs pull'
    return 'a web page, not a checkpoint' if start.startswith(b'<') else 'not a checkpoint, or is damaged'


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
