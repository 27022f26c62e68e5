"""Post-training quantization to 8-bit integers, by the runtimes' own libraries."""

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..utils.subprocess import run_apart

NEEDS = {'.onnx': ('onnxruntime',), '.xml': ('openvino', 'nncf')}
# What makes up nearly all the arithmetic. The rest stays in floating point; of a detector's test path that keeps the
# coordinates of boxes exact.
OPERATORS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def quantize(source: Path, target: Path, inputs: Sequence[np.ndarray]) -> None:
    """Quantise a float32 file: ``.onnx`` with ONNX Runtime, ``.xml`` with NNCF.

    In a process of its own: NNCF changes torch where it is imported.

    Args:
        source: The file to read.
        target: The file to write, of the same kind.
        inputs: What to calibrate with, arrays (1, 3, H, W).

    Raises:
        UserError: A package is missing, or its quantization fails.
    """
    for module in NEEDS[source.suffix]:
        if not importlib.util.find_spec(module):
            raise UserError(f'int8 of {source.suffix} needs {module}: pip install {module}')
    with tempfile.TemporaryDirectory() as folder:
        for i, array in enumerate(inputs):
            np.save(Path(folder, f'{i:06d}.npy'), array)
        run_apart(quantize_here, 'the quantization failed', source=str(source), target=str(target), folder=folder)


def quantize_here(source: str, target: str, folder: str) -> None:
    """What :func:`quantize` runs; ``folder`` holds the inputs as ``.npy`` files."""
    inputs = [np.load(path) for path in sorted(Path(folder).glob('*.npy'))]
    (_quantize_onnx if source.endswith('.onnx') else _quantize_openvino)(Path(source), Path(target), inputs)


def _quantize_onnx(source: Path, target: Path, inputs: Sequence[np.ndarray]) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.with_name('prepared.onnx')
    # Shapes that the input decides are beyond the symbolic inference; a detector has them.
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(target),
        _Reader(inputs),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=list(OPERATORS),
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    prepared.unlink()


class _Reader:
    """What ONNX Runtime's calibration calls a reader: one input after the other, then None."""

    def __init__(self, inputs: Sequence[np.ndarray]) -> None:
        self.inputs: Iterator[np.ndarray] = iter(inputs)

    def get_next(self) -> dict | None:
        array = next(self.inputs, None)
        return None if array is None else dict(image=array)


def _quantize_openvino(source: Path, target: Path, inputs: Sequence[np.ndarray]) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(str(source))
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(inputs)),
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=_outside_the_network(model)),
        preset=nncf.QuantizationPreset.MIXED,
    )
    openvino.save_model(quantized, str(target), compress_to_fp16=False)


def _outside_the_network(model) -> list[str]:
    """Operations of a detector that belong to no layer, by their names in ONNX, such as ``/Add_3``: boxes and scores.

    Other models come straight from PyTorch, where no name begins with a slash.
    """
    return [
        op.get_friendly_name()
        for op in model.get_ordered_ops()
        if op.get_friendly_name().startswith('/') and op.get_friendly_name().count('/') == 1
    ]
