"""Latency of backbones side by side: interleaved rounds, medians, ratios, and shares of the machine's own limit."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import UserError
from ..utils.progress import say
from .candidates import Candidate, build, count_multiply_adds, parse_candidate, photographs, published_top1
from .machine import describe_machine, limit_kernels
from .rounds import Result, Row, Run, Shape, Timer, limits_of, parse_shape, shape_name
from .runtimes import PRECISIONS, RUNTIMES, prepare, relative_error, require, why_not

REFERENCE = 'timm:nextvit_small/eager/fp32'
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


def measure_latency(
    candidates: Sequence[str],
    shapes: Sequence[str] = ('8x224', '1x224'),
    runtimes: Sequence[str] = ('eager', 'folded'),
    precisions: Sequence[str] = ('fp32',),
    only: Sequence[str] | None = None,
    reference: str | None = None,
    rounds: int = 10,
    warmup: int = 2,
    min_time: float = 0.2,
    seed: int = 0,
    threads: int | None = None,
    device: str = 'cpu',
) -> Result:
    """Measure every candidate in every runtime and precision, shape by shape, beside the machine's limit.

    In each round everything runs once, in an order that the seed shuffles anew, so that what slows the machine for a
    while slows all alike. A turn is one call that is not timed (it wakes the runtime's threads and lets those of the
    one before fall asleep) and then timed calls until ``min_time`` is reached.

    Args:
        candidates: Names, see :func:`.candidates.parse_candidate`.
        shapes: See :func:`.rounds.parse_shape`.
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
    result = Result(
        describe_machine(device),
        dict(
            rounds=rounds,
            warmup=warmup,
            min_time=min_time,
            seed=seed,
            device=device,
            shapes=list(shapes),
            reference=reference,
        ),
        {},
        [],
        [],
    )
    kernels: dict | None = None
    limit_times: dict[tuple[str, str], list[float]] = {}
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
    result.check_rows()
    result.limits = {precision: limits_of(precision, limit_times) for precision in used[2]}
    result.finish(REFERENCE)
    return result


def parse_key(key: str) -> tuple[str, str, str]:
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


def _prepare_shape(
    combinations: Sequence[tuple[str, str, str]],
    shape: Shape,
    folder: Path,
    seed: int,
    device: str,
    skipped: list[dict],
) -> tuple[list[LatencyRow], dict[object, Run]]:
    """Rows without times yet, and what to call for each; what cannot run is added to ``skipped``."""
    batch, height, width = shape
    image = photographs((batch, 3, height, width), seed).to(device)
    rows: list[LatencyRow] = []
    runs: dict[object, Run] = {}
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
            rows.append(
                LatencyRow(
                    name,
                    precision,
                    shape,
                    2 * multiply_adds,
                    error,
                    error <= TOLERANCES[precision],
                    runtime=runtime,
                    top1=published_top1(candidate, shape[1:]),
                )
            )
    return rows, runs


def _build(candidate: Candidate, image: torch.Tensor, seed: int, device: str) -> tuple[nn.Module, list, int]:
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
