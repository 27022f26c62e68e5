"""One operator's work on all of torch's threads; torchvision's kernels of regions use one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

WORTH_IT = 2**15  # values; below it the threads take longer to start than to compute


def fill(output: Tensor, axis: int, values: int, compute: Callable[[slice], Tensor]) -> None:
    """Fill ``output`` with ``compute(part)`` for the parts of an axis, on a CPU each in a thread of its own.

    ``values`` says how much there is to compute. No part may depend on another, so the bits do not change.
    """
    length, threads = output.size(axis), torch.get_num_threads()
    small = threads == 1 or length == 1 or values < WORTH_IT
    # Only this thread's work is traced, and only a plain tensor has memory of its own.
    traced = type(output) is not Tensor or torch.jit.is_tracing() or torch.compiler.is_compiling()
    if small or traced or output.device.type != 'cpu':
        output.copy_(compute(slice(None)))
        return
    inference = torch.is_inference_mode_enabled()

    def fill_part(part: slice) -> None:
        with torch.inference_mode(inference), torch.no_grad():  # a new thread has neither
            output.narrow(axis, part.start, part.stop - part.start).copy_(compute(part))

    step = -(-length // (4 * threads))  # small ones: a large region takes longer
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill_part, [slice(at, min(at + step, length)) for at in range(0, length, step)]))
