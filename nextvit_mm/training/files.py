"""Writing files so that a kill or a full disk leaves the old one or the new one."""

import errno
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, get_file_backend

PART = '.part'  # how a file ends that is still being written
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_local(path: str, backend_args: dict | None = None) -> bool:
    """Whether MMEngine writes a path to a disk of this machine."""
    return isinstance(get_file_backend(path, backend_args=backend_args), LocalBackend)


def is_full(error: BaseException) -> bool:
    """Whether an error of writing is that of a full disk, from the system or as torch words it."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ('PytorchStreamWriter failed writing', 'No space left', 'unexpected pos')
    )


def count_bytes(value: Any) -> int:
    """Bytes of all tensors in nested containers; a storage that several share is counted once."""
    storages: dict[int, int] = {}

    def visit(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            for inner in item.values():
                visit(inner)
        elif isinstance(item, (list, tuple)):
            for inner in item:
                visit(inner)

    visit(value)
    return sum(storages.values())


def write_whole(path: Path, text: str) -> None:
    """Replace a small file in one step."""
    part = path.with_name(f'.{path.name}{PART}')
    part.write_text(text)
    flush(part)
    os.replace(part, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some file systems have none for folders
            raise
    finally:
        os.close(handle)


class RemovesLater:
    """A file backend that notes what is to be removed."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.names.append(os.path.basename(path))

    rmtree = remove
