"""From a module that takes one image tensor to a file of a runtime: ONNX, OpenVINO, Core ML, torch.export, TensorRT.

Every ``write_…`` takes a module in eval mode, an example input (B, C, H, W) and the file to write, and says what is
missing or impossible as a :class:`nextvit_mm.errors.UserError`. Nothing is verified here; :mod:`.export` does that.
"""

import contextlib
import importlib
import importlib.util
import inspect
import logging
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..utils.optional import need
from ..utils.subprocess import run_apart
from .apart import convert_for_openvino
from .guards import quiet
from .operators import TENSORRT_LIST, onnx_operators, unlisted_operators

OPSET = 17  # the first with LayerNormalization, after RoiAlign's half-pixel mode (16); TensorRT 8.6 and later read it
INPUT = 'image'
LEAST_SIZE = 33  # of a dynamic height or width in torch.export, which lets no axis become 1 at stride 32
SUFFIXES = dict(onnx='.onnx', openvino='.xml', coreml='.mlpackage', tensorrt='.engine', **{'torch-export': '.pt2'})


def need_torch_export() -> None:
    """See that this torch can export programs.

    Raises:
        UserError: It is torch 2.1, which has no ``torch.export.Dim`` and another ``run_decompositions``.
    """
    if not hasattr(torch.export, 'Dim'):
        raise UserError(
            f'this export needs torch 2.2 or later, and {torch.__version__} is installed: install a later '
            'torch, or export --to onnx or openvino'
        )


def dynamic_axes(dynamic: Iterable[str]) -> dict[int, str]:
    """Axes of the input by number: ``dynamic`` holds ``'batch'``, ``'size'``, both or nothing."""
    axes = {0: 'batch'} if 'batch' in dynamic else {}
    return {**axes, 2: 'height', 3: 'width'} if 'size' in dynamic else axes


def write_onnx(
    module: nn.Module, example: Tensor, path: Path, outputs: Sequence[str], dynamic: Iterable[str] = ()
) -> None:
    """ONNX of opset 17, checked by ``onnx.checker``.

    Through torch's tracing exporter: the newer one refuses the sizes of a detector that its input decides (proposals,
    detections), and for backbones the two give graphs of the same speed.
    """
    onnx = need('onnx', 'ONNX export')
    # Before torch 2.5 there is only one exporter, and no such argument.
    exporter = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    axes = {INPUT: dynamic_axes(dynamic), **({name: {0: 'batch'} for name in outputs} if 'batch' in dynamic else {})}
    with torch.no_grad(), quiet():
        torch.onnx.export(
            module,
            (example,),
            str(path),
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            **exporter,
        )
    own = [name for name in onnx_operators(path) if '::' in name]
    if own:
        raise UserError(
            f'this network has {", ".join(own)}, which ONNX does not have and no runtime here knows: '
            'take --what backbone, or a neck and a head without it'
        )
    onnx.checker.check_model(str(path), full_check=True)


def file_format(path: Path) -> dict[str, Any]:
    """What a runtime must know to read a file: ONNX's opset and IR version, or the version of OpenVINO's IR."""
    if path.suffix == '.onnx':
        model = need('onnx', 'ONNX export').load(str(path), load_external_data=False)
        own = [each for each in model.opset_import if each.domain not in ('', 'ai.onnx')]
        used = {node.domain for node in model.graph.node}
        return dict(
            name='ONNX',
            opset=next(each.version for each in model.opset_import if each.domain in ('', 'ai.onnx')),
            ir_version=model.ir_version,
            **(dict(other_opsets={e.domain: e.version for e in own}) if used & {e.domain for e in own} else {}),
        )
    if path.suffix == '.xml':
        with path.open('rb') as file:
            root = next(iter(ElementTree.iterparse(file, events=('start',))))[1]
            return dict(name='OpenVINO IR', ir_version=int(root.get('version', 0)))
    return dict(name=path.suffix[1:])


def write_openvino(
    module: nn.Module, example: Tensor, path: Path, outputs: Sequence[str], dynamic: Iterable[str] = ()
) -> None:
    """OpenVINO IR, ``.xml`` and ``.bin`` beside it.

    Straight from PyTorch, which keeps attention as one operation; a detector through ONNX, because OpenVINO's own
    reading of PyTorch does not know the operators of its test path. By a process of its own: processes in which
    OpenVINO had read a PyTorch model were seen to crash later on (OpenVINO 2026.4, torch 2.11).

    Raises:
        UserError: OpenVINO is missing, or its conversion fails.
    """
    if not importlib.util.find_spec('openvino'):
        raise UserError('OpenVINO export needs openvino: pip install openvino')
    axes = dynamic_axes(dynamic)
    shape = [-1 if axis in axes else size for axis, size in enumerate(example.shape)]
    with tempfile.TemporaryDirectory() as folder:
        if getattr(module, 'task', None) == 'detection':
            source = Path(folder, 'model.onnx')
            write_onnx(module, example, source, outputs, dynamic)
        else:
            source = Path(folder, 'model.pt')
            with torch.no_grad(), quiet():
                torch.jit.trace(module, example, check_trace=False).save(str(source))
        run_apart(
            convert_for_openvino,
            'OpenVINO cannot convert this model',
            bare=True,
            source=str(source),
            target=str(path),
            names=[INPUT, *outputs],
            shape=shape,
        )


def write_coreml(
    module: nn.Module, example: Tensor, path: Path, outputs: Sequence[str], dynamic: Iterable[str] = ()
) -> None:
    """A Core ML ML program (``.mlpackage``, a folder) for iOS 16 or macOS 13 and later, of one fixed size.

    Raises:
        UserError: A detector, whose test path Core ML has no operations for, dynamic sizes, or torch before 2.2.
    """
    if getattr(module, 'task', None) == 'detection':
        raise UserError('Core ML has no operations for the test path of a detector: export --what backbone')
    if dynamic:
        raise UserError('the Core ML export has one fixed size: leave --dynamic out')
    need_torch_export()
    logging.getLogger('coremltools').setLevel(logging.ERROR)
    with quiet(stderr=True):
        coremltools = need('coremltools', 'Core ML export')
        with torch.no_grad():
            program = torch.export.export(module, (example,)).run_decompositions({})
        model = coremltools.convert(
            program,
            convert_to='mlprogram',
            minimum_deployment_target=coremltools.target.iOS16,
            inputs=[coremltools.TensorType(name=INPUT, shape=tuple(example.shape))],
            outputs=[coremltools.TensorType(name=name) for name in outputs],
        )
        model.save(str(path))


def coreml_operations(path: Path) -> dict[str, int]:
    """How often each operation stands in the program of an ``.mlpackage``: what can be looked at without a Mac."""
    with quiet(stderr=True):
        spec = need('coremltools', 'Core ML').models.utils.load_spec(str(path))
    counts: dict[str, int] = {}
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                counts[operation.type] = counts.get(operation.type, 0) + 1
    return counts


def write_torch(
    module: nn.Module, example: Tensor, path: Path, outputs: Sequence[str], dynamic: Iterable[str] = ()
) -> None:
    """A ``torch.export`` program, ``.pt2``.

    Raises:
        UserError: A detector, whose numbers of proposals and detections ``torch.export`` cannot hold, or torch
            before 2.2.
    """
    if getattr(module, 'task', None) == 'detection':
        raise UserError(
            'torch.export cannot hold the sizes of a detector that its input decides: export '
            '--what backbone, or --to onnx'
        )
    need_torch_export()
    torch_axes = {
        axis: torch.export.Dim(name, min=1 if axis == 0 else LEAST_SIZE) for axis, name in dynamic_axes(dynamic).items()
    }
    if 'batch' in dynamic:
        example = example.expand(2, *example.shape[1:]).contiguous()  # a size of 1 would be taken for a constant
    with torch.no_grad(), quiet(), _sizes_can_vary():
        program = torch.export.export(module, (example,), dynamic_shapes=(torch_axes,) if torch_axes else None)
        torch.export.save(program, str(path))


def check_tensorrt(shapes: Sequence[str] = ()) -> None:
    """See that an engine can be built here.

    Raises:
        UserError: There is no ``trtexec``; the message has the command to run where there is.
    """
    if not shutil.which('trtexec'):
        command = shlex.join(tensorrt_command(Path('MODEL.onnx'), Path('MODEL.engine'), shapes))
        raise UserError(
            "trtexec, which comes with TensorRT, is not on this machine's PATH: export --to onnx, and "
            f'where TensorRT is, build and time the engine with\n  {command}'
        )


def build_tensorrt(onnx_path: Path, path: Path, shapes: Sequence[str] = ()) -> None:
    """Build and time a TensorRT engine with ``trtexec``, whose output goes to the terminal.

    Raises:
        UserError: The model has an operator that TensorRT does not list, or ``trtexec`` is missing or fails.
    """
    check_tensorrt(shapes)
    unknown = unlisted_operators(onnx_path)
    if unknown:
        raise UserError(f'{TENSORRT_LIST} does not list {", ".join(unknown)}, which {onnx_path.name} has')
    command = tensorrt_command(onnx_path, path, shapes)
    print(shlex.join(command), flush=True)
    if subprocess.run(command).returncode or not path.is_file():
        raise UserError('trtexec failed (its output is above)')


def tensorrt_command(onnx_path: Path, path: Path, shapes: Sequence[str] = ()) -> list[str]:
    """The command that builds and times an engine; ``shapes``: the least, usual and largest input, as 1x3x800x1344."""
    ranges = [f'--{kind}Shapes={INPUT}:{shape}' for kind, shape in zip(('min', 'opt', 'max'), shapes)]
    return ['trtexec', f'--onnx={onnx_path}', f'--saveEngine={path}', '--fp16', *ranges]


@contextlib.contextmanager
def _sizes_can_vary() -> Iterator[None]:
    """Say plainly that a network has layers whose sizes torch.export can only hold as constants."""
    try:
        yield
    except Exception as error:  # of several kinds, most of them torch's own and private
        if 'Constraints violated' in str(error):
            raise UserError(
                'torch.export finds sizes in this network that cannot vary: leave size out of --dynamic '
                f'({str(error).splitlines()[1].strip()})'
            ) from error
        raise
