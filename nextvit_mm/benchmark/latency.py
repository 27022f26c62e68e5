"""Latency of backbones side by side: interleaved rounds, medians, ratios, and shares of the machine's own limit."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..errors import UserError
from ..utils.progress import say
from .candidates import Candidate, build, build_timms, count_multiply_adds, parse_candidate, photographs, published_top1
from .machine import describe_machine, limit_kernels, prepare_torch
from .options import LATENCY_REFERENCE, LatencyOptions
from .rounds import Result, Row, Run, Shape, Timer, limits_of, parse_shape, shape_name
from .runtimes import PRECISIONS, RUNTIMES, prepare, relative_error, require, why_not

# Relative error against the same network in eager float32 from which on a row counts as broken, not as fast.
TOLERANCES = dict(fp32=1e-3, bf16=0.05, fp16=0.05, int8=0.5)


@dataclass
class LatencyRow(Row):
    """One inference.

    Attributes:
        runtime: Of :data:`.runtimes.RUNTIMES`.
        top1: Published accuracy on ImageNet-1K, %; None if Table 4 has none.
    """

    runtime: str = 'eager'
    top1: float | None = None

    @property
    def key(self) -> str:
        """CANDIDATE/RUNTIME/PRECISION."""
        return f'{self.candidate}/{self.runtime}/{self.precision}'


def measure_latency(options: LatencyOptions) -> Result[LatencyRow]:
    """Measure every candidate in every runtime and precision, shape by shape, beside the machine's limit.

    In each round everything runs once, in an order that the seed shuffles anew, so that what slows the machine for a
    while slows all alike. A turn is one call that is not timed (it wakes the runtime's threads and lets those of the
    one before fall asleep) and then timed calls until ``min_time`` is reached.

    Raises:
        UserError: A name, shape or runtime is wrong or missing, or nothing can be measured.
    """
    combinations = _combinations(options)
    sizes = [parse_shape(shape) for shape in options.shapes]
    used = [list(dict.fromkeys(column)) for column in zip(*combinations)]
    require(used[1], used[2], options.device)
    prepare_torch(options.threads)
    settings = {
        name: getattr(options, name)
        for name in ('rounds', 'warmup', 'min_time', 'seed', 'device', 'shapes', 'reference')
    }
    settings['shapes'] = list(options.shapes)
    result: Result[LatencyRow] = Result(describe_machine(options.device), settings, {}, [], [])
    kernels: dict | None = None
    limit_times: dict[tuple[str, str], list[float]] = {}
    timer = Timer(options.rounds, options.warmup, options.min_time, options.seed, options.device)
    for shape in sizes:
        with tempfile.TemporaryDirectory(prefix='nextvit_benchmark_') as folder:
            rows, runs = _prepare_shape(combinations, shape, Path(folder), options, result.skipped)
            if not rows:
                continue
            kernels = kernels or limit_kernels(used[2], options.device)
            runs.update({(precision, name): kernel for precision, of in kernels.items() for name, kernel in of.items()})
            times = timer.measure(runs, shape_name(shape))
        for row in rows:
            row.rounds = times[row.key]
        for key in runs:
            if isinstance(key, tuple):
                limit_times.setdefault(key, []).extend(times[key])
        result.rows += rows
    result.check_rows()
    result.limits = {precision: limits_of(precision, limit_times) for precision in used[2]}
    result.finish(LATENCY_REFERENCE)
    return result


def _combinations(options: LatencyOptions) -> list[tuple[str, str, str]]:
    """Candidates, runtimes and precisions to measure."""
    wanted = list(
        options.only
        or [f'{c}/{r}/{p}' for c in options.candidates for r in options.runtimes for p in options.precisions]
    )
    combinations = list(dict.fromkeys(map(parse_key, wanted)))
    if options.reference is not None and parse_key(options.reference) not in combinations:
        raise UserError(f'--reference {options.reference} is not among what is measured: {", ".join(wanted)}')
    if options.rounds < 1:
        raise UserError('--rounds must be at least 1')
    return combinations


def parse_key(key: str) -> tuple[str, str, str]:
    """CANDIDATE/RUNTIME/PRECISION in three.

    Raises:
        UserError: It is none, or names what there is not.
    """
    parts = key.split('/')
    if len(parts) != 3:
        raise UserError(f'{key!r} must be CANDIDATE/RUNTIME/PRECISION, such as {LATENCY_REFERENCE}')
    parse_candidate(parts[0])
    for value, choices in ((parts[1], RUNTIMES), (parts[2], PRECISIONS)):
        if value not in choices:
            raise UserError(f'{key!r}: {value!r} is not one of {", ".join(choices)}')
    return parts[0], parts[1], parts[2]


def _prepare_shape(
    combinations: Sequence[tuple[str, str, str]],
    shape: Shape,
    folder: Path,
    options: LatencyOptions,
    skipped: list[dict],
) -> tuple[list[LatencyRow], dict[object, Run]]:
    """Rows without times yet, and what to call for each; what cannot run is added to ``skipped``."""
    rows: list[LatencyRow] = []
    runs: dict[object, Run] = {}

    def skip(key: str, reason: str) -> None:
        skipped.append(dict(key=key, shape=shape_name(shape), reason=reason))

    for name in dict.fromkeys(candidate for candidate, _, _ in combinations):
        candidate = parse_candidate(name)
        keys = []
        for key, runtime, precision in [(f'{c}/{r}/{p}', r, p) for c, r, p in combinations if c == name]:
            reason = why_not(candidate, runtime, precision, options.device)
            if reason:
                skip(key, reason)
            else:
                keys.append((key, runtime, precision))
        if not keys:
            continue
        say(f'{shape_name(shape)}: building {name}')
        try:
            network = _build(candidate, shape, options.seed, options.device)
        except UserError as error:
            for key, _, _ in keys:
                skip(key, str(error))
            continue
        for key, runtime, precision in keys:
            say(f'{shape_name(shape)}: building {key}')
            try:
                run = prepare(candidate, network.model, runtime, precision, network.image, folder)
                off = relative_error(run(), network.expected)
            except (UserError, RuntimeError) as why:
                skip(key, str(why).splitlines()[0])
                continue
            runs[key] = run
            rows.append(_row(candidate, runtime, precision, shape, network.multiply_adds, off))
    return rows, runs


def _row(
    candidate: Candidate, runtime: str, precision: str, shape: Shape, multiply_adds: int, error: float
) -> LatencyRow:
    return LatencyRow(
        candidate.name,
        precision,
        shape,
        2 * multiply_adds,
        error,
        error <= TOLERANCES[precision],
        runtime=runtime,
        top1=published_top1(candidate, shape[1:]),
    )


class _Network(NamedTuple):
    """A network, its image, the maps that it must give for it, and its multiply-adds.

    The maps are timm's in eager float32: of another layout, and for ours of another implementation.
    """

    model: nn.Module
    image: torch.Tensor
    expected: list[torch.Tensor]
    multiply_adds: int


def _build(candidate: Candidate, shape: Shape, seed: int, device: str) -> _Network:
    batch, height, width = shape
    image = photographs((batch, 3, height, width), seed).to(device)
    theirs = build_timms(candidate.timm_name, (height, width), seed, device)
    model = build(candidate, (height, width), seed, device, theirs)
    try:
        with torch.no_grad():
            expected = [output.cpu() for output in theirs(image)]
        return _Network(model, image, expected, count_multiply_adds(theirs, image.shape))
    except RuntimeError as error:
        raise UserError(f'{candidate.name} does not run at {height}×{width}: {str(error).splitlines()[0]}') from None
