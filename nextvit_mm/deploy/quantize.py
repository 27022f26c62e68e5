"""Post-training quantization to 8-bit integers, by the runtimes' own libraries."""

import importlib.util
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..predict.predictor import Predictor
from ..utils.subprocess import run_apart
from .pictures import place

NEEDS = {'.onnx': ('onnxruntime',), '.xml': ('openvino', 'nncf')}
# What makes up nearly all the arithmetic. The rest stays in floating point; of a detector's test path that keeps the
# coordinates of boxes exact.
OPERATORS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


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


def quantize_here(source: str, target: str, pictures: Sequence[str], reduce_range: bool) -> None:
    """What :func:`quantize` runs; the ``.json`` beside the source says how pictures are read."""
    predictor = Predictor(source, session=lambda array: [])
    quantise = _quantize_onnx if source.endswith('.onnx') else _quantize_openvino
    quantise(Path(source), Path(target), predictor, pictures, reduce_range)


def _quantize_onnx(
    source: Path, target: Path, predictor: Predictor, pictures: Sequence[str], reduce_range: bool
) -> None:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.with_name('prepared.onnx')
    # Shapes that the input decides are beyond the symbolic inference; a detector has them.
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(target),
        _Reader(place(predictor, picture).tensor for picture in pictures),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduce_range,
        op_types_to_quantize=list(OPERATORS),
        nodes_to_exclude=list(filter(_is_outside, (node.name for node in onnx.load(str(prepared)).graph.node))),
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    prepared.unlink()


class _Reader:
    """What ONNX Runtime's calibration calls a reader: one input after the other, then None."""

    def __init__(self, inputs: Iterator[np.ndarray]) -> None:
        self.inputs = inputs

    def get_next(self) -> dict | None:
        array = next(self.inputs, None)
        return None if array is None else dict(image=array)


def _quantize_openvino(
    source: Path, target: Path, predictor: Predictor, pictures: Sequence[str], reduce_range: bool
) -> None:
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    model = openvino.Core().read_model(str(source))
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(pictures), lambda picture: place(predictor, picture).tensor),
        subset_size=len(pictures),
        ignored_scope=nncf.IgnoredScope(names=_outside_the_network(model)),
        preset=nncf.QuantizationPreset.MIXED,
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.ENABLE if reduce_range else OverflowFix.DISABLE
        ),
    )
    openvino.save_model(quantized, str(target), compress_to_fp16=False)


def _outside_the_network(model) -> list[str]:
    """Operations of an OpenVINO model that :func:`_is_outside` means."""
    return list(filter(_is_outside, (op.get_friendly_name() for op in model.get_ordered_ops())))


def _is_outside(name: str) -> bool:
    """Whether an operation of a detector belongs to no layer, by its name in ONNX, such as ``/Add_3``.

    It is of boxes, scores or the masks' last step. In files straight from PyTorch no name begins with a slash.
    """
    return name.startswith('/') and name.count('/') == 1
