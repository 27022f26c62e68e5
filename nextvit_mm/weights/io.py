"""Reading weights: from a file or by name, tensors only, with one clear error for what does not work."""

import contextlib
import hashlib
import http.client
import os
import pickle
import re
import shutil
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from filelock import FileLock
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, checkpoint as mmengine_checkpoint
from mmengine.utils import digit_version

from ..errors import WeightsError
from .tensors import read_safetensors
from .zoo import HUB_FILE, ZOO

MIRROR_VARIABLE = 'NEXTVIT_MM_WEIGHTS'
HUB_FILES = [HUB_FILE, 'pytorch_model.bin']
TIMEOUT = 60  # seconds without a byte
SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin')
# torch can be told which objects are harmless, under whatever name they were stored, from 2.6 on. What MMEngine stores
# in its checkpoints cannot be read tensors-only by older versions, which are left to read as they always have.
TENSORS_ONLY = digit_version(torch.__version__) >= digit_version('2.6')


def allow_mmengine_checkpoints() -> None:
    """Let torch's weights-only unpickler read what MMEngine itself puts into a checkpoint, and nothing else.

    A training checkpoint holds, beside tensors, the log history: ``HistoryBuffer`` objects made of NumPy arrays,
    numbers, and references to the buffer's own statistics. Does nothing before torch 2.6 (:data:`TENSORS_ONLY`).
    """
    if not TENSORS_ONLY:
        return
    dtypes = {type(np.dtype(kind)) for kind in ('float16', 'float32', 'float64', 'int32', 'int64', 'bool')}
    allowed: list = [HistoryBuffer, np.ndarray, np.dtype, *dtypes]
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

    A zip's own checksums are verified; the other formats have none for the tensors' bytes, so an altered file of
    theirs is noticed only where its structure suffers or its digest is known (:func:`locate_weights`,
    :func:`load_from_url`).

    Args:
        path: The file.
        map_location: As ``torch.load`` takes it.
        tensors_only: False reads what ``torch.save`` wrote without restriction, as MMEngine itself does. Default:
            True from torch 2.6 on; older versions could not read MMEngine's own checkpoints so. What comes from the
            web or the hub is read with True by every version.

    Raises:
        WeightsError: No such file, a file that is no checkpoint, is cut short or altered, or one that holds
            anything but tensors, plain containers and MMEngine's records; nothing in it is ever run.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f'checkpoint not found: {path}')
    if path.suffix == '.safetensors':
        return read_safetensors(path, map_location)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken:
                raise WeightsError(f'{path} is damaged: the checksum of {broken} in it is wrong, or was not written')
        return torch.load(path, map_location=map_location, weights_only=tensors_only)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)|allowlisted global (\S+)|`?(\S+\.\S+)`? was not an allowed', str(error))
        if found is None:  # torch's own message would advise to read without restriction
            raise WeightsError(f'{path} is {_what_it_is(path)}') from None
        name = next(group for group in found.groups() if group)
        raise WeightsError(
            f'{path} holds an object of {name}, which is refused: besides tensors only what MMEngine itself stores '
            'is read, because any other object could run code when it is loaded. Save the tensors alone: '
            "torch.save(dict(state_dict=model.state_dict()), 'weights.pth')"
        ) from None
    except Exception as error:  # damaged bytes make the unpickler fail in any way there is
        raise WeightsError(f'{path} is {_what_it_is(path)} ({type(error).__name__}: {_first_line(error)})') from None


def locate_weights(name: str) -> Path:
    """The local file of a published classifier, from the mirror or else the Hugging Face hub (cached there).

    The mirror is the folder that the environment variable ``NEXTVIT_MM_WEIGHTS`` names; it holds files such as
    ``nextvit-small_in1k.safetensors``.

    Raises:
        WeightsError: An unknown name, a mirror without the file, or a hub that cannot be reached.
    """
    if name not in ZOO:
        raise WeightsError(f'{name!r} is neither a file nor published weights; published are: {", ".join(ZOO)}')
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return fetch_from_hub(ZOO[name].hub_repo, file=HUB_FILE)
    for suffix in SUFFIXES:
        if (Path(mirror) / (name + suffix)).is_file():
            return Path(mirror) / (name + suffix)
    raise WeightsError(f'{MIRROR_VARIABLE}={mirror} holds no {name} ({" or ".join(SUFFIXES)})')


def fetch_from_hub(repo: str, revision: str | None = None, file: str | None = None) -> Path:
    """A file of a repository of the Hugging Face hub, from its client's cache, or fetched into it.

    The client resumes what was interrupted and knows ``HF_HUB_OFFLINE``, ``HF_HOME``, ``HF_ENDPOINT`` and ``HF_TOKEN``.
    Where the hub tells a file's SHA-256, the file is held against it.

    Args:
        repo: ``owner/name``.
        revision: Branch, tag or commit. Default: the main branch.
        file: Default: ``model.safetensors``, or if there is none ``pytorch_model.bin``.

    Raises:
        WeightsError: It cannot be fetched, or was altered on its way or in the cache, from which it is then removed.
    """
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise WeightsError(f'{repo} lies on the Hugging Face hub: pip install huggingface_hub safetensors') from None
    candidates = [file] if file else HUB_FILES
    for candidate in candidates:
        try:
            path = Path(hf_hub_download(repo, candidate, revision=revision))
            break
        except EntryNotFoundError as error:
            unreachable = isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE
            if candidate == candidates[-1] or unreachable:
                raise WeightsError(_not_fetched(repo, error)) from None
        except Exception as error:  # whatever the client or the network raises, the remedy is the same
            raise WeightsError(_not_fetched(repo, error)) from None
    blob = path.resolve()
    if re.fullmatch('[0-9a-f]{64}', blob.name) and sha256(blob) != blob.name:  # the cache names it by its digest
        blob.unlink(missing_ok=True)  # another process may have been faster
        raise WeightsError(
            f'{path.name} of {repo} has another SHA-256 than the hub tells, {blob.name}; it was removed '
            'from the cache. Try again'
        )
    return path


def parse_hub_name(name: str) -> tuple[str, str | None, str | None]:
    """``hf-hub:owner/name[@revision][:file]`` as repository, revision, file.

    Raises:
        WeightsError: It is not of this form.
    """
    match = re.fullmatch(r'hf-hub:([\w.-]+/[\w.-]+)(?:@([^:@]+))?(?::([^:]+))?', name)
    if match is None:
        raise WeightsError(f'{name!r} is not of the form hf-hub:owner/name[@revision][:file]')
    return match[1], match[2], match[3]


def unwrap(checkpoint: Any, source: str) -> Mapping[str, torch.Tensor]:
    """The state dict inside a checkpoint: under ``state_dict`` (MMEngine), ``model`` (the authors), or itself.

    Raises:
        WeightsError: There is none.
    """
    if isinstance(checkpoint, Mapping):
        for key in ('state_dict', 'model'):
            if isinstance(checkpoint.get(key), Mapping):
                checkpoint = checkpoint[key]
                break
        if checkpoint and all(isinstance(v, torch.Tensor) for v in checkpoint.values()):
            wrapped = all(name.startswith('module.') for name in checkpoint)  # saved from DistributedDataParallel
            return {name[len('module.') :]: v for name, v in checkpoint.items()} if wrapped else checkpoint
    raise WeightsError(f"{source} holds no state dict, neither under 'state_dict' or 'model' nor by itself")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# MMEngine asks these for every checkpoint: `load_from`, `--resume`, `init_cfg`, `init_detector(...)`.
@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> Any:
    return read_weights(filename, map_location)


@CheckpointLoader.register_scheme(prefixes='|'.join(f'{re.escape(name)}$' for name in ZOO))
def load_from_zoo(filename: str, map_location: Any = None) -> Any:
    return read_weights(locate_weights(filename), map_location, tensors_only=True)


@CheckpointLoader.register_scheme(prefixes='hf-hub:')
def load_from_hub(filename: str, map_location: Any = None) -> Any:
    return read_weights(fetch_from_hub(*parse_hub_name(filename)), map_location, tensors_only=True)


def load_from_url(url: str, model_dir: str | None = None, map_location: Any = None, **_) -> Any:
    """Fetch a file into torch's cache, whole or not at all, and read it as any local one.

    It is kept only if it has the length that the server told, the digest that its name tells (torch's convention,
    ``name-<first digits of its SHA-256>.pth``), and can be read.

    Raises:
        WeightsError: It cannot be fetched, or read.
    """
    # A folder for each address: many files of the web have the same name, model.safetensors above all.
    folder = Path(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    path = folder / hashlib.sha256(url.encode()).hexdigest()[:16] / os.path.basename(urlparse(url).path)
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with _only_one(path):
                if not path.is_file():
                    _download(url, path)
        elif not _has_told_digest(path):
            path.unlink(missing_ok=True)
            raise WeightsError(f'{path}, fetched before from {url}, was altered; it was removed. Try again')
    except OSError as error:
        raise WeightsError(f'{url} cannot be kept in {folder}: {error.strerror or error}') from None
    return read_weights(path, map_location, tensors_only=True)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Of the processes of a machine one fetches a file, and the others wait."""
    lock = Path(f'{path}.lock')
    try:
        with FileLock(lock):
            yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps it where another process waits for it
            lock.unlink(missing_ok=True)


def _download(url: str, path: Path) -> None:
    from rich.progress import wrap_file

    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.download-') as folder:
        part = Path(folder) / path.name
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, headers={'User-Agent': 'nextvit_mm'}), timeout=TIMEOUT
            ) as response:
                length = int(response.headers.get('Content-Length') or 0)
                with (
                    wrap_file(
                        response, length, description=path.name, disable=not sys.stderr.isatty(), transient=True
                    ) as source,
                    open(part, 'wb') as target,
                ):
                    shutil.copyfileobj(source, target)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise WeightsError(f'{url} could not be fetched ({_first_line(error)})') from None
        if length and part.stat().st_size != length:
            raise WeightsError(f'{url} was cut short: {part.stat().st_size:,} of {length:,} bytes came. Try again')
        if not _has_told_digest(part):
            raise WeightsError(f'{url}: what came does not have the SHA-256 that its name tells')
        try:
            read_weights(part, tensors_only=True)
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(part), url)) from None
        part.replace(path)


# MMEngine's loaders of every other scheme that names a web address (http, torchvision, open-mmlab, …) end in this
# function, whose own version, unlike torch.load, does not read tensors only.
mmengine_checkpoint.load_url = load_from_url


def _not_fetched(repo: str, error: Exception) -> str:
    return (
        f'{repo} could not be fetched from the Hugging Face hub ({type(error).__name__}: {_first_line(error)}). '
        f'Without a network: put the files of the published weights into a folder, named as '
        f'nextvit-small_in1k.safetensors, and set {MIRROR_VARIABLE} to it, or name a file of weights instead'
    )


def _what_it_is(path: Path) -> str:
    with open(path, 'rb') as file:
        start = file.read(64).lstrip()
    return 'a web page, not a checkpoint' if start.startswith(b'<') else 'not a checkpoint, or is damaged'


def _has_told_digest(path: Path) -> bool:
    """Whether a file has the SHA-256 that its name tells, as in ``name-0a1b2c3d.pth``; true where it tells none.

    Digits alone are taken for a date or a number.
    """
    told = re.search(r'-(?=\d*[a-f])([0-9a-f]{8,64})\.', path.name)
    return told is None or sha256(path).startswith(told[1])


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
