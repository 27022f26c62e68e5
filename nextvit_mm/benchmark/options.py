"""What the benchmarks take; ``tools/benchmark.py`` makes its flags of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..utils.command import option
from .model_list import NAMES
from .runtimes import PRECISIONS, RUNTIMES

LATENCY_REFERENCE = 'timm:nextvit_small/eager/fp32'
WHOLE_RUNTIMES = ('eager', 'folded', 'onnxruntime', 'openvino')
WHOLE_MODELS = tuple(f'mask_rcnn_{name}' for name in ('nextvit_s', 'resnet50', 'resnet101'))
TRAINING_REFERENCE = 'timm:nextvit_small/fp32'
TRAINING_PRECISIONS = ('fp32', 'bf16', 'fp16')  # the last two by autocast
TRAINING_CANDIDATES = (
    'timm:nextvit_small',
    'timm:nextvit_small@channels_last',
    'nextvit_s@contiguous',
    'nextvit_s',
    'nextvit_s@with_cp',
)


@dataclass
class RunOptions:
    """What both benchmarks take."""

    rounds: int = option(10, help='interleaved rounds', metavar='N')
    warmup: int = option(1, help='calls of each before the first round', metavar='N')
    seed: int = option(0, help='of weights, images and order')
    threads: int | None = option(None, help='CPU threads of every runtime (default: as torch)', metavar='N')
    device: str = option('cpu', help='where it runs', choices=('cpu', 'cuda'))


@dataclass
class LatencyOptions(RunOptions):
    """Of :func:`.latency.measure_latency`. ``candidates`` as :func:`.candidates.parse_candidate` takes them."""

    candidates: Sequence[str] = option(
        ('nextvit_s', 'timm:nextvit_small'),
        help='nextvit_s, _b, _l, or timm:NAME; with @contiguous or @channels_last '
        '(default: nextvit_s timm:nextvit_small)',
        metavar='NAME',
    )
    shapes: Sequence[str] = option(
        ('8x224', '1x224'),
        help='BATCHxSIDE or BATCHxHEIGHTxWIDTH (default: 8x224 1x224; the paper also has 1x512 and 1x800x1280)',
        metavar='SHAPE',
    )
    runtimes: Sequence[str] = option(
        ('eager', 'folded', 'onnxruntime', 'openvino'), help=', '.join(RUNTIMES), choices=RUNTIMES, metavar='NAME'
    )
    precisions: Sequence[str] = option(('fp32',), help=', '.join(PRECISIONS), choices=PRECISIONS, metavar='NAME')
    only: Sequence[str] | None = option(
        None, help='CANDIDATE/RUNTIME/PRECISION to measure, instead of every combination', metavar='ROW'
    )
    reference: str | None = option(
        None, help=f'what ratios refer to (default: {LATENCY_REFERENCE} if measured, else the first row)', metavar='ROW'
    )
    min_time: float = option(0.2, help='seconds of timed calls in a turn', metavar='S')


@dataclass
class ModelsOptions(RunOptions):
    """Of :func:`.models.measure_models`."""

    models: Sequence[str] = option(
        WHOLE_MODELS, help=f'{", ".join(NAMES)}, a config, or PACKAGE::PATH of one', metavar='MODEL'
    )
    rounds: int = option(5, help='interleaved rounds', metavar='N')
    shapes: Sequence[str] = option(('1x800x1280',), help='1xHEIGHTxWIDTH or 1xSIDE, multiples of 32', metavar='SHAPE')
    runtimes: Sequence[str] = option(
        WHOLE_RUNTIMES, help=', '.join(WHOLE_RUNTIMES), choices=WHOLE_RUNTIMES, metavar='NAME'
    )
    precisions: Sequence[str] = option(
        ('fp32', 'bf16', 'int8'),
        help='fp32, bf16, int8; what the CPU has no units for is left out, and the report says so',
        choices=('fp32', 'bf16', 'int8'),
        metavar='NAME',
    )


@dataclass
class TrainingOptions(RunOptions):
    """Of :func:`.training.measure_training`."""

    rounds: int = option(5, help='interleaved rounds', metavar='N')
    candidates: Sequence[str] = option(
        TRAINING_CANDIDATES, help='as for latency, ours also with @with_cp', metavar='NAME'
    )
    precisions: Sequence[str] = option(
        ('fp32', 'bf16'),
        help='fp32, or autocast to bf16 or fp16 (default: fp32 bf16)',
        choices=TRAINING_PRECISIONS,
        metavar='NAME',
    )
    only: Sequence[str] | None = option(
        None, help='CANDIDATE/PRECISION to measure, instead of every combination', metavar='ROW'
    )
    shape: str = option('4x256', help='BATCHxSIDE or BATCHxHEIGHTxWIDTH')
    reference: str | None = option(
        None,
        help=f'what ratios refer to (default: {TRAINING_REFERENCE} if measured, else the first row)',
        metavar='ROW',
    )
    memory: bool = option(True, help='leave out peak memory, which takes a process for each row')
