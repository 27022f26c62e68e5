"""Errors of too little memory are one line with what takes less of it."""

import pytest
import torch

from nextvit_mm.errors import UserError
from nextvit_mm.utils.memory import clear_memory_errors

GPU = (
    'CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.10 GiB is free. '
    'Including non-PyTorch memory, this process has 6.60 GiB memory in use. Of the allocated memory 6.00 GiB is '
    'allocated by PyTorch. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF'
)


@pytest.mark.parametrize(
    'error, told',
    [
        (torch.cuda.OutOfMemoryError(GPU), r'^out of memory: CUDA .* 1\.10 GiB is free\. Take fewer .*--batch-size'),
        (MemoryError(), r'^out of memory: the machine has no more\. Take fewer'),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
            'out of memory: .*you tried. Take fewer',
        ),
        (
            RuntimeError('DataLoader worker (pid 77) is killed by signal: Killed. '),
            'signal: Killed. Take fewer of them',
        ),
        (RuntimeError('DataLoader worker (pid(s) 7, 8) exited unexpectedly'), r'unexpectedly\. Take .*num_workers=1'),
        (RuntimeError('unable to write to file </torch_77_1>: No space left on device (28)'), '--shm-size'),
    ],
)
def test_what_takes_less_memory_is_said(error, told):
    with pytest.raises(UserError, match=told) as caught, clear_memory_errors():
        raise error
    assert '\n' not in str(caught.value) and caught.value.__cause__ is error


def test_torch_itself_says_so():
    """The words of the torch that is installed."""
    with pytest.raises(UserError, match='^out of memory: '), clear_memory_errors():
        torch.empty(2**60)


def test_other_errors_go_on():
    with pytest.raises(RuntimeError, match='shapes'), clear_memory_errors():
        raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')
