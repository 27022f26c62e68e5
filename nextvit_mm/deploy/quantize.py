"""Post-training quantization to 8-bit integers, by the runtimes' own libraries."""
import contextlib
import logging
from pathlib import Path
from typing import Iterator, List, Optional, Sequence

import numpy as np

from ..errors import UserError
from .backends import need, quiet

# What makes up nearly all the arithmetic. The rest stays in floating point; of a detector's test path that keeps the
# coordinates of boxes exact.
OPERATORS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def quantize(source: Path, target: Path, inputs: Sequence[np.ndarray], task: str) -> None:
    """Quantise a float32 file: ``.onnx`` with ONNX Runtime, ``.xml`` with NNCF.

    Args:
        source: The file to read.
        target: The file to write, of the same kind.
        inputs: What to calibrate with, arrays (1, 3, H, W).
        task: One of :data:`nextvit_mm.deploy.graphs.TASKS`.
    """
    if not inputs:
        raise UserError('there are no pictures to calibrate with')
    (_quantize_onnx if source.suffix == '.onnx' else _quantize_openvino)(source, target, inputs, task)


def _quantize_onnx(source: Path, target: Path, inputs: Sequence[np.ndarray], task: str) -> None:
    need('onnxruntime', 'ONNX quantization')
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process
    prepared = source.with_name('prepared.onnx')
    with _quietly():
        # Shapes that the input decides are beyond the symbolic inference; a detector has them.
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared), str(target), _Reader(inputs), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=list(OPERATORS), activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8)
    prepared.unlink()


class _Reader:
    """What ONNX Runtime's calibration calls a reader: one input after the other, then None."""

    def __init__(self, inputs: Sequence[np.ndarray]) -> None:
        self.inputs: Iterator[np.ndarray] = iter(inputs)

    def get_next(self) -> Optional[dict]:
        array = next(self.inputs, None)
        return None if array is None else dict(image=array)


def _quantize_openvino(source: Path, target: Path, inputs: Sequence[np.ndarray], task: str) -> None:
    openvino = need('openvino', 'OpenVINO quantization')
    with _quietly():
        nncf = need('nncf', 'OpenVINO quantization')
        model = openvino.Core().read_model(str(source))
        ignored = nncf.IgnoredScope(names=_outside_the_network(model)) if task == 'detection' else None
        quantized = nncf.quantize(model, nncf.Dataset(list(inputs)), subset_size=len(inputs), ignored_scope=ignored,
                                  preset=nncf.QuantizationPreset.MIXED)
    openvino.save_model(quantized, str(target), compress_to_fp16=False)


def _outside_the_network(model) -> List[str]:
    """Operations of a detector that belong to no layer, by their names in ONNX, such as ``/Add_3``: boxes and scores."""
    return [op.get_friendly_name() for op in model.get_ordered_ops()
            if op.get_friendly_name().startswith('/') and op.get_friendly_name().count('/') == 1]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the libraries' log lines of level info."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quiet():
            yield
    finally:
        logging.disable(level)
