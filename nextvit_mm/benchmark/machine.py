"""The machine that a benchmark runs on: what it is, and what it can do at most."""

import datetime
import importlib.metadata
import os
import platform
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

PACKAGES = ('torch', 'timm', 'onnxruntime', 'openvino', 'nncf', 'tensorrt')
# Large enough to keep all cores busy, small enough for 0.1 s on two of them.
GEMM = 2048  # side of both matrices
CONV = dict(batch=8, channels=256, side=56)  # 3×3, as many channels out


def describe_machine(device: str = 'cpu') -> dict[str, object]:
    """Processor, cores, threads, versions and date, of this process on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return dict(
        date=datetime.date.today().isoformat(),
        cpu=_cpu_model(),
        cores=cores,
        torch_threads=torch.get_num_threads(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, 'getloadavg') else None,  # of the minute before the run
        gpu=torch.cuda.get_device_name() if device == 'cuda' else None,
        system=f'{platform.system()} {platform.machine()}, Python {platform.python_version()}',
        instructions=_instructions(),
        versions={name: version for name in PACKAGES for version in [_version(name)] if version},
    )


def prepare_torch(threads: int | None) -> None:
    """Threads of the CPU, and float32 in full: on GPUs torch's convolutions would round their inputs to TF32."""
    torch.set_num_threads(threads or torch.get_num_threads())
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def limit_kernels(precisions: list[str], device: str = 'cpu') -> dict[str, dict[str, Callable[[], None]]]:
    """Per precision, the kernels whose faster one is taken for the machine's limit, each ready to be called.

    A product of two square matrices and a 3×3 convolution, in PyTorch; int8 through its integer product and its
    quantised convolution, on CPUs that have them. A kernel that cannot run is left out.

    Args:
        precisions: Among ``'fp32'``, ``'bf16'``, ``'fp16'`` and ``'int8'``.
        device: ``'cpu'`` or ``'cuda'``.
    """
    makers = dict(gemm=_make_gemm, conv=_make_conv)
    kernels: dict[str, dict[str, Callable[[], None]]] = {}
    for precision in precisions:
        kernels[precision] = {}
        for name, make in makers.items():
            if (name, precision) == ('conv', 'int8') and device != 'cpu':
                continue  # PyTorch has quantised convolutions on CPUs only
            try:
                kernel = make(precision, device)
                kernel()
            except (RuntimeError, AttributeError):  # this torch or processor has it not
                continue
            kernels[precision][name] = kernel
    return kernels


def kernel_flops(name: str) -> int:
    """FLOPs (two a multiply-add) of one call of a kernel of :func:`limit_kernels`."""
    if name == 'gemm':
        return 2 * GEMM**3
    return 2 * CONV['batch'] * CONV['side'] ** 2 * CONV['channels'] ** 2 * 9


def _make_gemm(precision: str, device: str) -> Callable[[], None]:
    if precision == 'int8':
        left, right = (torch.randint(-128, 128, (GEMM, GEMM), dtype=torch.int8, device=device) for _ in range(2))
        return lambda: torch._int_mm(left, right)
    left, right = (torch.randn(GEMM, GEMM, device=device).to(_dtype(precision)) for _ in range(2))
    return lambda: left @ right


def _make_conv(precision: str, device: str) -> Callable[[], None]:
    channels, side = CONV['channels'], CONV['side']
    x = torch.randn(CONV['batch'], channels, side, side, device=device).to(memory_format=torch.channels_last)
    if precision == 'int8':
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that quantisation will move to another package
            conv = torch.ao.nn.quantized.Conv2d(channels, channels, 3, padding=1)
            x = torch.quantize_per_tensor(x, 0.1, 128, torch.quint8)
        return lambda: conv(x)
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).requires_grad_(False)
    conv = conv.to(device, _dtype(precision), memory_format=torch.channels_last)
    x = x.to(_dtype(precision))
    return lambda: conv(x)


def missing_units(precision: str, cpuinfo: Path = Path('/proc/cpuinfo')) -> str:
    """What this CPU lacks for a precision, ``''`` if nothing, or if the system does not tell."""
    wanted = dict(bf16=('avx512_bf16', 'amx_bf16', 'bf16'), int8=('avx512_vnni', 'avx_vnni', 'amx_int8', 'asimddp'))
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return ''
    units = wanted.get(precision, ())
    return '' if not units or flags & set(units) else f'neither of {", ".join(units)} is among its instructions'


def _dtype(precision: str) -> torch.dtype:
    return dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)[precision]


def _cpu_model() -> str:
    try:
        with open('/proc/cpuinfo') as file:
            info = dict(line.split(':', 1) for line in file.read().split('\n\n')[0].splitlines() if ':' in line)
        info = {key.strip(): value.strip() for key, value in info.items()}
        return (
            f'{info["model name"]} (family {info["cpu family"]}, model {info["model"]})'
            if 'cpu family' in info
            else info['model name']
        )
    except (OSError, KeyError, ValueError):  # not Linux, or not x86
        return platform.processor() or platform.machine()


def _instructions() -> str:
    return torch.backends.cpu.get_cpu_capability()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ''
