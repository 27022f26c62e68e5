"""Errors of too little memory, of a GPU, of the machine, or between processes, as one line."""

import contextlib
import re
from collections.abc import Iterator

from ..errors import UserError

# What torch says on a CPU or another device, where it has no class of its own for it.
FULL = re.compile(r"can't allocate memory|out of memory|not enough memory", re.IGNORECASE)
LOADERS = re.compile(
    r'DataLoader worker .*(killed by signal|exited unexpectedly)|insufficient shared memory|'
    r'unable to (open|write|mmap) .*torch_'
)
LESS = (
    'Take fewer or smaller pictures: in training --batch-size, --image-size, --amp or '
    '--cfg-options model.backbone.with_cp=True; elsewhere smaller pictures, or --device cpu where a tool has it'
)


@contextlib.contextmanager
def clear_memory_errors() -> Iterator[None]:
    """Have an error of too little memory say what takes less of it.

    Raises:
        UserError: There was not enough memory, or a process that loads pictures was killed.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = describe_memory_error(error)
        if told is None:
            raise
        raise UserError(told) from error


def describe_memory_error(error: RuntimeError | MemoryError) -> str | None:
    """What to do about an error of too little memory; None for another one."""
    text = str(error)
    if LOADERS.search(text):
        return (
            f'the processes that load pictures lack memory, or one was killed: {_first_line(text)} Take fewer of them, '
            'as with --cfg-options train_dataloader.num_workers=1; in Docker, docker run --shm-size=8g'
        )
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError' or FULL.search(text):
        return f'out of memory: {_first_line(text) or "the machine has no more."} {LESS}'
    return None


def _first_line(text: str) -> str:
    """The first sentences of torch's message, without its advice on allocators."""
    line = text.strip().splitlines()[0] if text.strip() else ''
    line = re.split(r' If reserved but unallocated| Of the allocated memory| Including non-PyTorch', line)[0]
    return line if not line or line.endswith('.') else line + '.'
