"""Files of weights from the web, from the Hugging Face hub and from a mirror, whole or not at all."""

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
from filelock import FileLock

from ..errors import WeightsError
from .io import SUFFIXES, first_line, read_weights
from .zoo import HUB_FILE, ZOO

MIRROR_VARIABLE = 'NEXTVIT_MM_WEIGHTS'
HUB_FILES = [HUB_FILE, 'pytorch_model.bin']
TIMEOUT = 60  # seconds without a byte


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


def fetch_from_url(url: str, folder: str | Path | None = None) -> Path:
    """Fetch a file, whole or not at all, into a folder of its address.

    Args:
        url: The address.
        folder: Where that folder is made. Default: the one in which torch keeps what it fetches.

    It is kept only if it has the length that the server told, the digest that its name tells (torch's convention,
    ``name-<first digits of its SHA-256>.pth``), and can be read.

    Raises:
        WeightsError: It cannot be fetched, kept or read.
    """
    # A folder for each address: many files of the web have the same name, model.safetensors above all.
    folder = Path(folder or os.path.join(torch.hub.get_dir(), 'checkpoints'))
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
    return path


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
            raise WeightsError(f'{url} could not be fetched ({first_line(error)})') from None
        if length and part.stat().st_size != length:
            raise WeightsError(f'{url} was cut short: {part.stat().st_size:,} of {length:,} bytes came. Try again')
        if not _has_told_digest(part):
            raise WeightsError(f'{url}: what came does not have the SHA-256 that its name tells')
        try:
            read_weights(part, tensors_only=True)
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(part), url)) from None
        part.replace(path)


def _not_fetched(repo: str, error: Exception) -> str:
    return (
        f'{repo} could not be fetched from the Hugging Face hub ({type(error).__name__}: {first_line(error)}). '
        f'Without a network: put the files of the published weights into a folder, named as '
        f'nextvit-small_in1k.safetensors, and set {MIRROR_VARIABLE} to it, or name a file of weights instead'
    )


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
