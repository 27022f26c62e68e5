"""What every measurement of this package shares: shapes, rows, interleaved rounds, ratios, progress."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

import torch

from ..errors import UserError
from ..utils.progress import say
from .machine import kernel_flops

Run = Callable[[], Any]  # what is timed, once; of inference it returns the maps, tensors or arrays
Shape = tuple[int, int, int]  # batch, height, width
PAUSE = 0.02  # s before each candidate: thread pools of the one before it spin for a while before they sleep


@dataclass
class Row:
    """A candidate in a precision at a shape; what exactly was timed is a subclass's.

    Attributes:
        candidate, precision: Which; in :attr:`key`.
        shape: Batch, height, width.
        flops: Of one run, for the whole batch, two a multiply-add.
        error: Relative error against the same weights in timm's network, eager and float32.
        agrees: Whether that is within the tolerances of its kind.
        rounds: Its time in every round, s: of that round's calls the median.
        median, quartiles: Over the rounds, s.
        ratio: The reference's median over its own, at the same shape; None without the reference.
        flops_per_s: Achieved.
        share: Of the machine's limit in that precision; None where that was not measured.
    """

    candidate: str
    precision: str
    shape: Shape
    flops: int
    error: float
    agrees: bool
    rounds: list[float] = field(default_factory=list)
    median: float = 0.0
    quartiles: tuple[float, float] = (0.0, 0.0)
    ratio: float | None = None
    flops_per_s: float = 0.0
    share: float | None = None

    @property
    def key(self) -> str:
        """CANDIDATE/PRECISION."""
        return f'{self.candidate}/{self.precision}'


RowType = TypeVar('RowType', bound=Row)


@dataclass
class Result(Generic[RowType]):
    """What a run found.

    Attributes:
        machine: See :func:`.machine.describe_machine`.
        settings: Of the run: rounds, seed, shapes, reference and so on.
        limits: Per precision FLOP/s of the kernels ``gemm`` and ``conv`` (medians of the same rounds) and of the
            faster one as ``best``; empty where none could be measured.
        rows: What was measured, all of one kind.
        skipped: What was not: ``key``, ``shape`` and ``reason``.
    """

    machine: dict
    settings: dict
    limits: dict[str, dict[str, float]]
    rows: list[RowType]
    skipped: list[dict]

    def as_dict(self) -> dict:
        """For JSON."""
        return dict(
            machine=self.machine,
            settings=self.settings,
            limits=self.limits,
            rows=[dict(key=row.key, **asdict(row)) for row in self.rows],
            skipped=self.skipped,
        )

    def finish(self, usual_reference: str) -> None:
        """From the times of the rounds to medians, quartiles, ratios, and shares of the limit.

        Ratios are to ``settings['reference']``; where that is None, to ``usual_reference`` if measured, else to the
        first row.
        """
        if self.settings.get('reference') is None:
            keys = [row.key for row in self.rows]
            self.settings['reference'] = usual_reference if usual_reference in keys else keys[0]
        for row in self.rows:
            row.median, row.quartiles = statistics.median(row.rounds), quartiles(row.rounds)
        base = {row.shape: row.median for row in self.rows if row.key == self.settings['reference']}
        for row in self.rows:
            row.ratio = base[row.shape] / row.median if row.shape in base else None
            row.flops_per_s = row.flops / row.median
            limit = self.limits.get(row.precision, {}).get('best')
            row.share = row.flops_per_s / limit if limit else None

    def check_rows(self) -> None:
        """Raises: UserError: Nothing could be measured; with the reasons."""
        if not self.rows:
            raise UserError(
                'nothing could be measured:\n'
                + '\n'.join(f'  {skip["key"]} at {skip["shape"]}: {skip["reason"]}' for skip in self.skipped)
            )


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


class Timer:
    """Interleaved rounds.

    Args:
        rounds, warmup, min_time, seed, device: As in :func:`.latency.measure_latency`.
    """

    def __init__(self, rounds: int, warmup: int, min_time: float, seed: int, device: str) -> None:
        self.rounds, self.warmup, self.min_time, self.seed = rounds, warmup, min_time, seed
        self.synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None

    def measure(self, runs: Mapping[Any, Run], title: str) -> dict[Any, list[float]]:
        """Seconds of a call, by name, one value a round."""
        times: dict[Any, list[float]] = {key: [] for key in runs}
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
        total = samples[0]  # of a short run there are too many samples to add them up anew after each
        while total < self.min_time:
            samples.append(self._time(run))
            total += samples[-1]
        return statistics.median(samples)

    def _time(self, run: Run) -> float:
        self.synchronize()
        start = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - start


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; of a single value, it twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, high


def limits_of(precision: str, times: Mapping[tuple[str, str], Sequence[float]]) -> dict[str, float]:
    """FLOP/s of the limit's kernels in a precision, by name, and of the faster one as ``best``; {} without any."""
    found = {
        name: kernel_flops(name) / statistics.median(values) for (of, name), values in times.items() if of == precision
    }
    return {**found, 'best': max(found.values())} if found else {}


def name_of(key) -> str:
    """How progress names what is run: a row's key, or a kernel of the machine's limit."""
    return key if isinstance(key, str) else f'limit of the machine ({", ".join(key)})'
