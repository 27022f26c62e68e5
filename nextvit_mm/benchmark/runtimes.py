"""A network in a runtime and a precision, ready to be called: what :mod:`.latency` times."""

import contextlib
import copy
import importlib.util
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..deploy.backends import write_onnx, write_openvino
from ..deploy.fold import fold
from ..errors import UserError
from ..predict.predictor import open_session
from ..utils.optional import need
from .candidates import Candidate, photographs
from .rounds import Run

RUNTIMES = ('eager', 'folded', 'compile', 'onnxruntime', 'openvino', 'tensorrt')
EXPORTED = ('onnxruntime', 'openvino', 'tensorrt')
PRECISIONS = ('fp32', 'bf16', 'fp16', 'int8')
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
MODULES = dict(onnxruntime='onnxruntime', openvino='openvino', tensorrt='tensorrt')
CALIBRATION_BATCHES = 4


def require(runtimes: Sequence[str], precisions: Sequence[str], device: str) -> None:
    """Look for what a benchmark needs before it builds anything.

    Raises:
        UserError: A runtime, package or device that was asked for is not here.
    """
    if device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU here')
    for runtime in runtimes:
        if runtime == 'tensorrt' and not (torch.cuda.is_available() and importlib.util.find_spec('tensorrt')):
            raise UserError(
                'the runtime tensorrt needs an NVIDIA GPU and the package tensorrt (pip install tensorrt); '
                'leave it out of --runtimes here'
            )
        if runtime in MODULES:
            need(MODULES[runtime], f'the runtime {runtime}')
    if 'int8' in precisions and 'openvino' in runtimes:
        need('nncf', 'int8 in OpenVINO')


def why_not(candidate: Candidate, runtime: str, precision: str, device: str) -> str:
    """Why a combination cannot be measured, ``''`` if it can."""
    if candidate.with_cp:
        return '@with_cp is for training'
    if runtime == 'folded' and not candidate.ours:
        return "only this project's backbone can be folded"
    if precision == 'int8' and runtime != 'openvino':
        return 'int8 is made with NNCF and run by OpenVINO'
    if precision == 'fp16' and device == 'cpu':
        return 'fp16 is for GPUs (--device cuda); on CPUs take bf16'
    if runtime == 'onnxruntime' and precision != 'fp32':
        return 'ONNX Runtime is measured in fp32: its CPU kernels have no half precision'
    if runtime == 'tensorrt' and precision == 'bf16':
        return 'TensorRT is measured in fp32 and fp16'
    if runtime == 'onnxruntime' and device != 'cpu' and 'CUDAExecutionProvider' not in _providers():
        return 'this ONNX Runtime has no CUDA (pip install onnxruntime-gpu)'
    if runtime == 'openvino' and device != 'cpu':
        return 'OpenVINO is measured on CPUs'
    return ''


def _providers() -> list[str]:
    return need('onnxruntime', 'the runtime onnxruntime').get_available_providers()


def prepare(candidate: Candidate, module: nn.Module, runtime: str, precision: str, image: Tensor, folder: Path) -> Run:
    """Bring a network into a runtime and a precision.

    Every run starts from the same image, float32 and contiguous; what a candidate makes of it (another layout, another
    precision) is part of its time. PyTorch's half precisions are the whole network in that type. Of ours, what is
    compiled or exported is the folded copy.

    Args:
        candidate: Which network.
        module: It, as :func:`.candidates.build` makes it.
        runtime, precision: One of :data:`RUNTIMES` and :data:`PRECISIONS`; see :func:`why_not`.
        image: (B, 3, H, W) on the device to run on.
        folder: For exported files; one that is there already is used again.

    Raises:
        UserError: It cannot be compiled or exported.
    """
    module = fold(module) if runtime != 'eager' and candidate.ours else copy.deepcopy(module)
    try:
        if runtime in ('eager', 'folded'):
            return _in_torch(candidate, module, precision, image)
        if runtime == 'compile':
            return _compiled(candidate, module, precision, image)
        if runtime == 'tensorrt':
            return _in_tensorrt(_export(candidate, module, image, folder, '.onnx'), precision, image)
        path = _export(candidate, module, image, folder, '.onnx' if runtime == 'onnxruntime' else '.xml')
        if precision == 'int8':
            path = quantize(path, image.shape)
        session = open_session(
            path,
            torch.get_num_threads(),
            None if runtime == 'onnxruntime' else dict(bf16='bf16').get(precision, 'f32'),
            'cpu' if image.device.type == 'cpu' else None,
        )
    except UserError:
        raise
    except Exception as error:  # of any exporter or compiler about any network: this combination cannot be measured
        first = (str(error).strip().splitlines() or [''])[0]
        raise UserError(f'{runtime} cannot take it: {type(error).__name__}: {first[:200]}') from error
    array = image.cpu().numpy()
    return lambda: session(array)


def quantize(path: Path, shape: Sequence[int]) -> Path:
    """An 8-bit OpenVINO model beside one of float32, by NNCF's post-training quantisation.

    For speed only: it is calibrated on random images (:func:`.candidates.photographs`), and nothing is said of
    accuracy. Its preset ``PERFORMANCE`` quantises activations symmetrically.
    """
    quantized = path.with_name(f'{path.stem}_int8.xml')
    if quantized.exists():
        return quantized
    nncf, openvino = need('nncf', 'int8 in OpenVINO'), need('openvino', 'int8 in OpenVINO')
    images = [photographs(shape, seed).numpy() for seed in range(1, CALIBRATION_BATCHES + 1)]
    logger, level = logging.getLogger('nncf'), logging.getLogger('nncf').level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its bars of progress
            model = nncf.quantize(
                openvino.Core().read_model(path),
                nncf.Dataset(images),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=CALIBRATION_BATCHES,
            )
    finally:
        logger.setLevel(level)
    openvino.save_model(model, quantized, compress_to_fp16=False)
    return quantized


def relative_error(outputs: Sequence, expected: Sequence) -> float:
    """‖outputs − expected‖ / ‖expected‖ over all maps together; infinite where shapes or values are not comparable."""
    pairs = list(zip(map(as_array, outputs), map(as_array, expected)))
    if len(outputs) != len(expected) or any(a.shape != b.shape for a, b in pairs):
        return float('inf')
    difference = sum(float(np.square(a - b).sum()) for a, b in pairs)
    scale = sum(float(np.square(b).sum()) for _, b in pairs)
    error = (difference / scale) ** 0.5 if scale else float('inf')
    return error if np.isfinite(error) else float('inf')


def as_array(output) -> np.ndarray:
    """A tensor or array of any precision, as float64 in NumPy."""
    if isinstance(output, Tensor):
        output = output.detach().float().cpu().numpy()
    return np.asarray(output, dtype=np.float64)


def _in_torch(candidate: Candidate, module: nn.Module, precision: str, image: Tensor) -> Run:
    dtype = DTYPES[precision]
    layout = torch.channels_last if candidate.channels_last else torch.contiguous_format
    module = module.to(dtype=dtype, memory_format=layout)

    def run() -> Sequence[Tensor]:
        with torch.no_grad():
            return module(image.to(dtype, memory_format=layout))

    return run


def _compiled(candidate: Candidate, module: nn.Module, precision: str, image: Tensor) -> Run:
    """torch.compile for this one shape; freezing makes constants of the weights, so that they can be laid out anew."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    # Every candidate is another module with the same forward, which Dynamo counts as recompilations of one.
    limit = 'recompile_limit' if hasattr(dynamo, 'recompile_limit') else 'cache_size_limit'
    setattr(dynamo, limit, max(getattr(dynamo, limit), 256))
    run = _in_torch(candidate, torch.compile(module, dynamic=False), precision, image)
    with inductor.patch(freezing=True):
        run()
    return run


def _export(candidate: Candidate, module: nn.Module, image: Tensor, folder: Path, suffix: str) -> Path:
    shape = 'x'.join(map(str, image.shape))
    path = folder / f'{candidate.name.replace(":", "_").replace("@", "_")}_{shape}{suffix}'
    if not path.exists():
        example = image.cpu()
        module = module.cpu()
        with torch.no_grad():
            outputs = [f'map{i}' for i in range(len(module(example)))]
        (write_onnx if suffix == '.onnx' else write_openvino)(module, example, path, outputs)
    return path


def _in_tensorrt(path: Path, precision: str, image: Tensor) -> Run:
    """An engine from ONNX, fed and read on the GPU. Not tried yet: no machine of this project has had TensorRT."""
    tensorrt = need('tensorrt', 'the runtime tensorrt')
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise UserError(f'TensorRT cannot read {path.name}: {parser.get_error(0)}')
    config = builder.create_builder_config()
    if precision == 'fp16':
        config.set_flag(tensorrt.BuilderFlag.FP16)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    context = engine.create_execution_context()
    outputs: list[Tensor] = []
    for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
        if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.OUTPUT:
            outputs.append(torch.empty(tuple(engine.get_tensor_shape(name)), device=image.device))
            context.set_tensor_address(name, outputs[-1].data_ptr())
        else:
            context.set_tensor_address(name, image.data_ptr())

    held = engine, image  # TensorRT holds no reference to what it runs on

    def run(held: tuple = held) -> list[Tensor]:
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return outputs

    return run
