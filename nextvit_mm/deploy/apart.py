"""What an export has done by processes of their own: OpenVINO and NNCF crash or change the process that they work in.

Such a process has no more of the package than is imported here: torch and the MM packages would take it seconds.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..predict.predictor import Placed, Predictor, open_session

# What makes up nearly all the arithmetic. The rest stays in floating point; of a detector's test path that keeps the
# coordinates of boxes exact.
OPERATORS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def _report_nothing() -> None:
    """Let OpenVINO and NNCF tell their makers nothing, as where the package for it is missing.

    Each message has a thread, which takes more time than the work that it tells of.
    """
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]  # forbids its import


def convert_for_openvino(source: str, target: str, names: Sequence[str], shape: Sequence[int]) -> None:
    """What :func:`.backends.write_openvino` runs; ``names`` are the input's and the outputs'."""
    _report_nothing()
    import openvino

    if source.endswith('.onnx'):
        model = openvino.convert_model(source)
    else:
        import torch

        example = torch.rand([size if size > 0 else 64 for size in shape])
        model = openvino.convert_model(torch.jit.load(source), input=[list(shape)], example_input=example)
    for port, name in zip([*model.inputs, *model.outputs], names):
        port.get_tensor().set_names({name})
    openvino.save_model(model, target, compress_to_fp16=False)


def run_openvino(path: str, folder: str, count: int) -> None:
    """What :func:`.run.outputs_of` runs: each input ``<i>.npy`` of a folder gets its outputs, ``<i>.npz``."""
    _report_nothing()
    session = open_session(path)
    for i in range(count):
        np.savez(Path(folder, f'{i}.npz'), *session(np.load(Path(folder, f'{i}.npy'))))


def place(predictor: Predictor, path: str | Path) -> Placed:
    """A picture file as an exported model gets it.

    Raises:
        UserError: It cannot be read, or the model does not take its size.
    """
    try:
        return predictor.place(path)
    except (OSError, ValueError) as error:
        told = str(error)
        raise UserError(told if str(path) in told else f'{path}: {told}') from None


def quantize_here(source: str, target: str, pictures: Sequence[str], reduce_range: bool) -> None:
    """What :func:`.quantize.quantize` runs; the ``.json`` beside the source says how pictures are read."""
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
    _report_nothing()
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
