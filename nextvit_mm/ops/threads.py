"""One operator's work on all of torch's threads; torchvision's kernels of regions use one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

WORTH_IT = 2**15  # values; below it the threads take longer to start than to compute

is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)  # torch 2.1 does not tell


def fill(output: Tensor, axis: int, values: int, compute: Callable[[slice], Tensor]) -> None:
    """Fill ``output`` with ``compute(part)`` for the parts of an axis, on a CPU each in a thread of its own.

    ``values`` says how much there is to compute. No part may depend on another, so the bits do not change.
    """
    length, threads = output.size(axis), torch.get_num_threads()
    small = threads == 1 or length == 1 or values < WORTH_IT
    if small or output.device.type != 'cpu' or _is_watched(output):
        output.copy_(compute(slice(None)))
        return
    inference = torch.is_inference_mode_enabled()

    def fill_part(part: slice) -> None:
        with torch.inference_mode(inference), torch.no_grad():  # a new thread has neither
            output.narrow(axis, part.start, part.stop - part.start).copy_(compute(part))

    step = -(-length // (4 * threads))  # small ones: a large region takes longer
    parts = [slice(at, min(at + step, length)) for at in range(0, length, step)]
    try:
        # Each thread would start as many again for what its kernel fills with zeros.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(fill_part, parts))
    finally:
        torch.set_num_threads(threads)  # of the libraries whose number is that of the whole process


def _is_watched(output: Tensor) -> bool:
    """Whether something follows what this thread does: that of others is not seen."""
    if torch.jit.is_tracing() or is_compiling() or _get_current_dispatch_mode() is not None:
        return True
    return type(output) is not Tensor  # only a plain one has memory of its own
