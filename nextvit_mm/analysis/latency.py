"""Latency of backbones side by side: interleaved rounds, medians, ratios, and shares of the machine's own limit."""
import random
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from ..errors import UserError
from .candidates import (Candidate, build, count_multiply_adds, parse_candidate, photographs, published_top1)
from .machine import describe_machine, kernel_flops, limit_kernels
from .runtimes import PRECISIONS, RUNTIMES, Run, prepare, relative_error, require, why_not

Shape = Tuple[int, int, int]  # batch, height, width
REFERENCE = 'timm:nextvit_small/eager/fp32'
# Relative error against the same network in eager float32 from which on a row counts as broken, not as fast.
TOLERANCES = dict(fp32=1e-3, bf16=0.05, fp16=0.05, int8=0.5)
PAUSE = 0.02  # s before each candidate: thread pools of the one before it spin for a while before they sleep


@dataclass
class Row:
    """A candidate in a runtime and a precision at a shape.

    Attributes:
        candidate, runtime, precision: Which; together its :attr:`key`.
        shape: Batch, height, width.
        multiply_adds: Of one run, for the whole batch.
        top1: Published accuracy on ImageNet-1K, %; None if Table 4 has none.
        error: Relative error of its maps against the same weights in eager float32 (of ours: in timm's network).
        agrees: Whether that is within :data:`TOLERANCES`.
        rounds: Its time in every round, s: of that round's calls the median.
        median, quartiles: Over the rounds, s.
        ratio: The reference's median over its own, at the same shape; None without the reference.
        flops_per_s: Achieved, two FLOPs a multiply-add.
        share: Of the machine's limit in that precision; None where that was not measured.
    """
    candidate: str
    runtime: str
    precision: str
    shape: Shape
    multiply_adds: int
    top1: Optional[float]
    error: float
    agrees: bool
    rounds: List[float] = field(default_factory=list)
    median: float = 0.0
    quartiles: Tuple[float, float] = (0.0, 0.0)
    ratio: Optional[float] = None
    flops_per_s: float = 0.0
    share: Optional[float] = None

    @property
    def key(self) -> str:
        """CANDIDATE/RUNTIME/PRECISION."""
        return f'{self.candidate}/{self.runtime}/{self.precision}'


@dataclass
class Result:
    """What :func:`measure_latency` found.

    Attributes:
        machine: See :func:`.machine.describe_machine`.
        settings: Of the run: rounds, seed, reference and so on.
        limits: Per precision FLOP/s of the kernels ``gemm`` and ``conv`` (medians of the same rounds) and of the
            faster one as ``best``; empty where none could be measured.
        rows: What was measured.
        skipped: What was not: ``key``, ``shape`` and ``reason``.
    """
    machine: dict
    settings: dict
    limits: Dict[str, Dict[str, float]]
    rows: List[Row]
    skipped: List[dict]

    def as_dict(self) -> dict:
        """For JSON."""
        return dict(machine=self.machine, settings=self.settings, limits=self.limits,
                    rows=[dict(key=row.key, **asdict(row)) for row in self.rows], skipped=self.skipped)


def parse_shape(text: str) -> Shape:
    """``'8x224'`` as (8, 224, 224), ``'1x800x1280'`` as (1, 800, 1280).

    Raises:
        UserError: It is neither.
    """
    numbers = text.split('x')
    if not (len(numbers) in (2, 3) and all(number.isdigit() and int(number) > 0 for number in numbers)):
        raise UserError(f'{text!r} is not a shape: give BATCHxSIDE or BATCHxHEIGHTxWIDTH, such as 8x224 or 1x800x1280')
    batch, height, width = map(int, numbers if len(numbers) == 3 else [*numbers, numbers[1]])
    return batch, height, width


def shape_name(shape: Shape) -> str:
    """The inverse of :func:`parse_shape`."""
    batch, height, width = shape
    return f'{batch}x{height}' if height == width else f'{batch}x{height}x{width}'


def measure_latency(candidates: Sequence[str],
                    shapes: Sequence[str] = ('8x224', '1x224'),
                    runtimes: Sequence[str] = ('eager', 'folded'),
                    precisions: Sequence[str] = ('fp32', ),
                    only: Optional[Sequence[str]] = None,
                    reference: Optional[str] = None,
                    rounds: int = 10,
                    warmup: int = 2,
                    min_time: float = 0.2,
                    seed: int = 0,
                    threads: Optional[int] = None,
                    device: str = 'cpu') -> Result:
    """Measure every candidate in every runtime and precision, shape by shape, beside the machine's limit.

    In each round everything runs once, in an order that the seed shuffles anew, so that what slows the machine for a
    while slows all alike. A turn is one call that is not timed (it wakes the runtime's threads and lets those of the
    one before fall asleep) and then timed calls until ``min_time`` is reached.

    Args:
        candidates: Names, see :func:`.candidates.parse_candidate`.
        shapes: See :func:`parse_shape`.
        runtimes, precisions: Of :data:`.runtimes.RUNTIMES` and :data:`.runtimes.PRECISIONS`.
        only: CANDIDATE/RUNTIME/PRECISION to take instead of every combination.
        reference: CANDIDATE/RUNTIME/PRECISION that ratios refer to. Default: :data:`REFERENCE` if measured, else the
            first row.
        rounds: Rounds per shape, at least 1.
        warmup: Calls of each before the first round.
        min_time: Seconds of timed calls in a turn.
        seed: Of weights, images and order.
        threads: CPU threads of every runtime. Default: torch's choice.
        device: ``'cpu'`` or ``'cuda'``.

    Raises:
        UserError: A name, shape or runtime is wrong or missing, or nothing can be measured.
    """
    wanted = list(only or [f'{c}/{r}/{p}' for c in candidates for r in runtimes for p in precisions])
    combinations = list(dict.fromkeys(map(parse_key, wanted)))
    if reference is not None and parse_key(reference) not in combinations:
        raise UserError(f'--reference {reference} is not among what is measured: {", ".join(wanted)}')
    if rounds < 1:
        raise UserError('--rounds must be at least 1')
    sizes = [parse_shape(shape) for shape in shapes]
    used = [list(dict.fromkeys(column)) for column in zip(*combinations)]
    require(used[1], used[2], device)
    torch.set_num_threads(threads or torch.get_num_threads())
    result = Result(describe_machine(device),
                    dict(rounds=rounds, warmup=warmup, min_time=min_time, seed=seed, device=device,
                         shapes=list(shapes), reference=reference), {}, [], [])
    kernels: Optional[dict] = None
    limit_times: Dict[Tuple[str, str], List[float]] = {}
    timer = Timer(rounds, warmup, min_time, seed, device)
    for shape in sizes:
        with tempfile.TemporaryDirectory(prefix='nextvit_benchmark_') as folder:
            rows, runs = _prepare_shape(combinations, shape, Path(folder), seed, device, result.skipped)
            if not rows:
                continue
            kernels = kernels or limit_kernels(used[2], device)
            runs.update({(precision, name): kernel for precision, of in kernels.items() for name, kernel in of.items()})
            times = timer.measure(runs, shape_name(shape))
        for row in rows:
            row.rounds = times[row.key]
        for precision, name in [key for key in runs if isinstance(key, tuple)]:
            limit_times.setdefault((precision, name), []).extend(times[precision, name])
        result.rows += rows
    if not result.rows:
        raise UserError('nothing could be measured:\n' + '\n'.join(f'  {s["key"]} at {s["shape"]}: {s["reason"]}'
                                                                  for s in result.skipped))
    result.limits = {precision: _limits(precision, limit_times) for precision in used[2]}
    finish(result)
    return result


def parse_key(key: str) -> Tuple[str, str, str]:
    """CANDIDATE/RUNTIME/PRECISION in three.

    Raises:
        UserError: It is none, or names what there is not.
    """
    parts = key.split('/')
    if len(parts) != 3:
        raise UserError(f'{key!r} must be CANDIDATE/RUNTIME/PRECISION, such as {REFERENCE}')
    parse_candidate(parts[0])
    for value, choices in ((parts[1], RUNTIMES), (parts[2], PRECISIONS)):
        if value not in choices:
            raise UserError(f'{key!r}: {value!r} is not one of {", ".join(choices)}')
    return parts[0], parts[1], parts[2]


def finish(result: Result) -> None:
    """From the times of the rounds to medians, quartiles, ratios, and shares of the limit."""
    reference = result.settings.get('reference')
    if reference is None:
        keys = [row.key for row in result.rows]
        reference = result.settings['reference'] = REFERENCE if REFERENCE in keys else keys[0]
    for row in result.rows:
        row.median, row.quartiles = statistics.median(row.rounds), quartiles(row.rounds)
    for row in result.rows:
        base = [other for other in result.rows if other.key == reference and other.shape == row.shape]
        row.ratio = base[0].median / row.median if base else None
        row.flops_per_s = 2 * row.multiply_adds / row.median
        limit = result.limits.get(row.precision, {}).get('best')
        row.share = row.flops_per_s / limit if limit else None


def quartiles(values: Sequence[float]) -> Tuple[float, float]:
    """First and third quartile; of a single value, it twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, high


class Timer:
    """Interleaved rounds.

    Args:
        rounds, warmup, min_time, seed, device: As in :func:`measure_latency`.
    """

    def __init__(self, rounds: int, warmup: int, min_time: float, seed: int, device: str) -> None:
        self.rounds, self.warmup, self.min_time, self.seed = rounds, warmup, min_time, seed
        self.synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None

    def measure(self, runs: Mapping[object, Run], title: str) -> Dict[object, List[float]]:
        """Seconds of a call, by name, one value a round."""
        times: Dict[object, List[float]] = {key: [] for key in runs}
        for i, key in enumerate(runs):
            say(f'{title}: warming up {i + 1}/{len(runs)}, {name_of(key)}')
            for _ in range(self.warmup):
                runs[key]()
            self.synchronize()
        order, shuffle = list(runs), random.Random(self.seed).shuffle
        for i in range(self.rounds):
            say(f'{title}: round {i + 1}/{self.rounds}')
            shuffle(order)
            for key in order:
                times[key].append(self._turn(runs[key]))
        return times

    def _turn(self, run: Run) -> float:
        time.sleep(PAUSE)
        self._time(run)
        samples = [self._time(run)]
        while sum(samples) < self.min_time:
            samples.append(self._time(run))
        return statistics.median(samples)

    def _time(self, run: Run) -> float:
        self.synchronize()
        start = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - start


def say(text: str) -> None:
    """Progress, on stderr: one line that is written over on a terminal."""
    terminal = sys.stderr.isatty()
    print(f'\r\033[K{text}' if terminal else text, end='' if terminal else '\n', file=sys.stderr, flush=True)


def hush() -> None:
    """Take the line of :func:`say` off a terminal."""
    if sys.stderr.isatty():
        print('\r\033[K', end='', file=sys.stderr, flush=True)


def name_of(key) -> str:
    """How progress names what is run: a row's key, or a kernel of the machine's limit."""
    return key if isinstance(key, str) else f'limit of the machine ({", ".join(key)})'


def _prepare_shape(combinations: Sequence[Tuple[str, str, str]], shape: Shape, folder: Path, seed: int, device: str,
                   skipped: List[dict]) -> Tuple[List[Row], Dict[object, Run]]:
    """Rows without times yet, and what to call for each; what cannot run is added to ``skipped``."""
    batch, height, width = shape
    image = photographs((batch, 3, height, width), seed).to(device)
    rows: List[Row] = []
    runs: Dict[object, Run] = {}
    for name in dict.fromkeys(candidate for candidate, _, _ in combinations):
        candidate = parse_candidate(name)
        keys = []
        for key, runtime, precision in [(f'{c}/{r}/{p}', r, p) for c, r, p in combinations if c == name]:
            reason = why_not(candidate, runtime, precision, device)
            if reason:
                skipped.append(dict(key=key, shape=shape_name(shape), reason=reason))
            else:
                keys.append((key, runtime, precision))
        if not keys:
            continue
        say(f'{shape_name(shape)}: building {name}')
        try:
            model, expected, multiply_adds = _build(candidate, image, seed, device)
        except UserError as error:
            skipped += [dict(key=key, shape=shape_name(shape), reason=str(error)) for key, _, _ in keys]
            continue
        for key, runtime, precision in keys:
            say(f'{shape_name(shape)}: building {key}')
            try:
                run = prepare(candidate, model, runtime, precision, image, folder, torch.get_num_threads())
                error = relative_error(run(), expected)
            except (UserError, RuntimeError) as why:
                skipped.append(dict(key=key, shape=shape_name(shape), reason=str(why).splitlines()[0]))
                continue
            runs[key] = run
            rows.append(Row(name, runtime, precision, shape, multiply_adds, published_top1(candidate, shape[1:]), error,
                            error <= TOLERANCES[precision]))
    return rows, runs


def _build(candidate: Candidate, image: torch.Tensor, seed: int, device: str) -> Tuple[nn.Module, list, int]:
    """The network, the maps that it must give, and its multiply-adds.

    The maps are timm's in eager float32: of another layout, and for ours of another implementation.
    """
    size = tuple(image.shape[2:])
    theirs = build(parse_candidate(f'timm:{candidate.timm_name}'), size, seed, device)
    model = build(candidate, size, seed, device, theirs)
    try:
        with torch.no_grad():
            expected = [output.cpu() for output in theirs(image)]
        return model, expected, count_multiply_adds(theirs, image.shape)
    except RuntimeError as error:
        raise UserError(f'{candidate.name} does not run at {size[0]}×{size[1]}: {str(error).splitlines()[0]}') from None


def _limits(precision: str, times: Mapping[Tuple[str, str], Sequence[float]]) -> Dict[str, float]:
    found = {name: kernel_flops(name) / statistics.median(values)
             for (of, name), values in times.items() if of == precision}
    return {**found, 'best': max(found.values())} if found else {}
