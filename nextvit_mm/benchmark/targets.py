"""The project's own targets of speed, and what one run on one machine reaches of them."""
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from .latency import measure_latency
from .report import Table
from .rounds import Result, Row, parse_shape
from .runtimes import EXPORTED
from .training import measure_training

OURS, TIMM, PEER = 'nextvit_s', 'timm:nextvit_small', 'timm:resnet101'
SHAPES = ('8x224', '1x224')
TRAINING_SHAPE = '4x256'


@dataclass(frozen=True)
class Pick:
    """The fastest row of a candidate in any of these runtimes; none for training."""
    candidates: Tuple[str, ...]
    precision: str
    runtimes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """How many times as fast ``fast`` is to be as ``slow``, by shape; ``in_same_runtime``: in the one that is
    fastest for ``fast``. A shape without a number is shown all the same."""
    title: str
    fast: Pick
    slow: Pick
    wanted: Dict[str, float]
    in_same_runtime: bool = False


@dataclass(frozen=True)
class Outcome:
    """A target at a shape: what was reached, and what this machine could give at most.

    Attributes:
        target, shape: Which.
        ratio: Median of the slow row over that of the fast one; None where one of them is missing.
        wanted: The target; None where the shape has none.
        ceiling: The ratio if the fast row ran at the machine's measured limit; None where that was not measured.
        fast, slow: Keys of the rows.
    """
    target: Target
    shape: str
    ratio: Optional[float]
    wanted: Optional[float]
    ceiling: Optional[float]
    fast: str
    slow: str


_REFERENCE = Pick((TIMM, ), 'fp32', ('eager', ))
LATENCY_TARGETS = (
    Target('folded, eager, channels-last, fp32', Pick((OURS, ), 'fp32', ('folded', )), _REFERENCE, {'8x224': 1.6}),
    Target('best exported runtime, fp32', Pick((OURS, ), 'fp32', EXPORTED), _REFERENCE, {'8x224': 2.7}),
    Target('the same against timm exported to the same runtime', Pick((OURS, ), 'fp32', EXPORTED),
           Pick((TIMM, ), 'fp32', EXPORTED), {'8x224': 1.15, '1x224': 1.3}, in_same_runtime=True),
    Target('best exported runtime, bf16', Pick((OURS, ), 'bf16', EXPORTED), _REFERENCE, {'8x224': 5.0}),
    Target('INT8', Pick((OURS, ), 'int8', EXPORTED), _REFERENCE, {'8x224': 8.0}),
    *(Target(f'against ResNet-101 in the same runtime, {precision}', Pick((OURS, ), precision, EXPORTED),
             Pick((PEER, ), precision, EXPORTED), {'8x224': 1.25}, in_same_runtime=True)
      for precision in ('fp32', 'bf16', 'int8')),
)
_OUR_LAYOUTS = (OURS, f'{OURS}@contiguous')
TRAINING_TARGETS = (
    Target('training step, fp32', Pick(_OUR_LAYOUTS, 'fp32'), Pick((TIMM, ), 'fp32'), {TRAINING_SHAPE: 1.25}),
    Target('training step, bf16 autocast, against timm in fp32', Pick(_OUR_LAYOUTS, 'bf16'), Pick((TIMM, ), 'fp32'),
           {TRAINING_SHAPE: 2.0}),
    Target('training step, bf16 autocast, against timm in the same', Pick(_OUR_LAYOUTS, 'bf16'),
           Pick((TIMM, ), 'bf16'), {}),
)


def measure_targets(latency_rounds: int = 10, training_rounds: int = 5, seed: int = 0,
                    threads: Optional[int] = None) -> Tuple[Result, Result]:
    """Measure what the targets need, on the CPU: about ten minutes on two cores.

    Raises:
        UserError: ONNX Runtime, OpenVINO, NNCF or timm is missing.
    """
    latency = measure_latency((), SHAPES, only=latency_keys(), rounds=latency_rounds, seed=seed, threads=threads)
    training = measure_training(only=training_keys(), shape=TRAINING_SHAPE, rounds=training_rounds, seed=seed,
                                threads=threads, memory=False)
    return latency, training


def latency_keys() -> List[str]:
    """CANDIDATE/RUNTIME/PRECISION of every row that a target needs, and timm's in half precision and 8 bits."""
    keys = [f'{TIMM}/eager/fp32', f'{TIMM}@channels_last/eager/fp32', f'{OURS}/folded/fp32']
    for candidate in (OURS, TIMM, PEER):
        keys += [f'{candidate}/onnxruntime/fp32', *(f'{candidate}/openvino/{p}' for p in ('fp32', 'bf16', 'int8'))]
    return keys


def training_keys() -> List[str]:
    """CANDIDATE/PRECISION of every row of training that a target needs, and timm's in channels-last."""
    return [f'{candidate}/{precision}' for precision in ('fp32', 'bf16')
            for candidate in (TIMM, f'{TIMM}@channels_last', *_OUR_LAYOUTS)]


def evaluate(latency: Result, training: Result) -> List[Outcome]:
    """Every target at every shape of the run it belongs to."""
    outcomes = []
    for targets, result in ((LATENCY_TARGETS, latency), (TRAINING_TARGETS, training)):
        outcomes += [_evaluate(target, result, shape) for target in targets for shape in result.settings['shapes']]
    return outcomes


def targets_table(outcomes: Sequence[Outcome]) -> Table:
    """The targets with today's ratios beside them."""
    headings = ['Next-ViT-S', 'shape', 'measured as', 'target', 'today', 'machine allows', 'met']
    lines = []
    for outcome in outcomes:
        met = '' if None in (outcome.ratio, outcome.wanted) else 'yes' if outcome.ratio >= outcome.wanted else 'no'
        lines.append([outcome.target.title, outcome.shape, f'{outcome.fast} : {outcome.slow}',
                      f'≥ {outcome.wanted}×' if outcome.wanted else '', _times(outcome.ratio), _times(outcome.ceiling),
                      met])
    return headings, lines


def outcome_dict(outcome: Outcome) -> dict:
    """For JSON."""
    return dict(title=outcome.target.title, shape=outcome.shape, wanted=outcome.wanted, ratio=outcome.ratio,
                ceiling=outcome.ceiling, fast=outcome.fast, slow=outcome.slow)


def _evaluate(target: Target, result: Result, shape: str) -> Outcome:
    rows = [row for row in result.rows if row.shape == parse_shape(shape) and row.agrees]
    fast = _fastest(rows, target.fast)
    slow_pick = target.slow
    if fast and target.in_same_runtime:
        slow_pick = Pick(slow_pick.candidates, slow_pick.precision, (fast.runtime, ))
    slow = _fastest(rows, slow_pick)
    ratio = slow.median / fast.median if fast and slow else None
    ceiling = ratio / fast.share if ratio and fast.share else None  # at a share of one
    return Outcome(target, shape, ratio, target.wanted.get(shape), ceiling, fast.key if fast else 'not measured',
                   slow.key if slow else 'not measured')


def _fastest(rows: Sequence[Row], pick: Pick) -> Optional[Row]:
    matching = [row for row in rows if row.candidate in pick.candidates and row.precision == pick.precision
                and (not pick.runtimes or row.runtime in pick.runtimes)]
    return min(matching, key=lambda row: row.median, default=None)


def _times(ratio: Optional[float]) -> str:
    return 'not measured' if ratio is None else f'{ratio:.2f}×'
