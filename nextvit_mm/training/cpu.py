"""What makes a training on a CPU faster: bfloat16 where the CPU has units for it, and AdamW in one kernel."""

import contextlib
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.device import is_cuda_available, is_mlu_available, is_musa_available, is_npu_available
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

FUSED = ('Adam', 'AdamW', 'SGD')  # what torch computes in one pass over the memory where `fused=True`


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Automatic mixed precision in bfloat16 on a CPU, where MMEngine's ``AmpOptimWrapper`` refuses to start.

    Losses are not scaled: bfloat16 has float32's range.
    """

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def use_the_cpu_well(cfg: Config) -> None:
    """Change a config for a training without a GPU; with one, leave it as it is.

    - ``AmpOptimWrapper`` becomes bfloat16 on a CPU with units for it, and float32 on others. Both are said.
    - Adam, AdamW and SGD update all weights in one kernel (``fused=True``), where this torch can on a CPU.
    """
    available = (is_cuda_available, is_npu_available, is_mlu_available, is_musa_available)
    wrapper = cfg.get('optim_wrapper')
    if not wrapper or any(found() for found in available):
        return
    if _name(wrapper.get('type')) == 'AmpOptimWrapper':
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        units = has_bfloat16_units()
        wrapper.type = 'CPUAmpOptimWrapper' if units else 'OptimWrapper'
        print_log(
            'no GPU: mixed precision is bfloat16 on this CPU'
            if units
            else 'no GPU, and no bfloat16 units in this CPU: training in float32 instead of mixed precision',
            'current',
        )
    optimizer = wrapper.get('optimizer') or {}
    if _name(optimizer.get('type')) in FUSED and not {'fused', 'foreach'} & set(optimizer) and fuses_on_cpu():
        optimizer['fused'] = True


def has_bfloat16_units() -> bool:
    """Whether the CPU multiplies bfloat16 (AVX512-BF16, AMX); others would only emulate it, and be slower."""
    checks = (getattr(torch.cpu, name, None) for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported'))
    return any(check() for check in checks if check)


def fuses_on_cpu() -> bool:
    """Whether this torch has fused optimizers for CPUs (2.4 and later)."""
    try:
        torch.optim.AdamW([nn.Parameter(torch.zeros(1))], fused=True)
    except (RuntimeError, TypeError):
        return False
    return True


def _name(kind: object) -> str:
    return str(getattr(kind, '__name__', kind)).split('.')[-1]
