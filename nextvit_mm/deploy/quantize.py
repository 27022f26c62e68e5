"""Post-training quantization to 8-bit integers, by the runtimes' own libraries."""

import importlib.util
import platform
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..utils.subprocess import run_apart
from .apart import quantize_here

NEEDS = {'.onnx': ('onnxruntime',), '.xml': ('openvino', 'nncf')}


def quantize(source: Path, target: Path, pictures: Sequence[Path]) -> None:
    """Quantise a float32 file: ``.onnx`` with ONNX Runtime, ``.xml`` with NNCF.

    In a process of its own: NNCF changes torch where it is imported.

    Args:
        source: The file to read.
        target: The file to write, of the same kind.
        pictures: Files to calibrate with; they are read one by one.

    Raises:
        UserError: A package is missing, or its quantization fails.
    """
    for module in NEEDS[source.suffix]:
        if not importlib.util.find_spec(module):
            raise UserError(f'int8 of {source.suffix} needs {module}: pip install {module}')
    run_apart(
        quantize_here,
        'the quantization failed',
        bare=True,
        source=str(source),
        target=str(target),
        pictures=[str(path) for path in pictures],
        reduce_range=not has_vnni(),
    )


def has_vnni(cpuinfo: Path = Path('/proc/cpuinfo')) -> bool:
    """Whether this CPU multiplies bytes into 32 bits at once.

    Others add pairs of products in 16 bits, which overflow unless weights keep to 7 bits. Where the CPU does not tell,
    as on other systems than Linux, it is taken to have it on ARM, and not to have it elsewhere.
    """
    try:
        flags = cpuinfo.read_text()
    except OSError:
        flags = ''
    return 'vnni' in flags or platform.machine().lower() in ('arm64', 'aarch64')
