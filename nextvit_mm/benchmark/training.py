"""A training step of backbones side by side: forward, backward and AdamW; time and peak memory."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..utils.progress import say
from ..utils.subprocess import run_apart
from .candidates import build, build_timms, parse_candidate, photographs
from .flops import multiply_adds
from .machine import describe_machine, limit_kernels, prepare_torch
from .options import TRAINING_PRECISIONS, TRAINING_REFERENCE, TrainingOptions
from .rounds import Result, Row, Run, Timer, limits_of, parse_shape, shape_name
from .turns import forget_peak, resident

# Relative difference of loss and gradient norm, from the same weights in float32, from which on a row is wrong.
TOLERANCES = dict(fp32=1e-3, bf16=0.1, fp16=0.1)
LEARNING_RATE = 0.0  # AdamW does all its work, and every step of every candidate is the same


@dataclass
class TrainingRow(Row):
    """A training step; its ``flops`` are those of the convolutions, linear layers and matrix products of the forward
    and the backward pass, without what ``with_cp`` computes twice; its ``error`` is the larger relative difference of
    loss and gradient norm.

    Attributes:
        memory: Peak, bytes; None where not measured. On GPUs what PyTorch held at most, weights included; on Linux
            CPUs, of a process of its own, the growth of its resident memory from the model's building on.
    """

    memory: int | None = None


class TrainingStep:
    """One training step of a backbone, ready to be called again and again.

    The loss is the sum over the maps of their mean square. BN is in training mode, stochastic depth is 0.

    Args:
        model: The backbone; it is left in training mode.
        image: (B, 3, H, W).
        precision: One of :data:`.options.TRAINING_PRECISIONS`.
        channels_last: Whether it wants its image so.
    """

    def __init__(self, model: nn.Module, image: Tensor, precision: str, channels_last: bool) -> None:
        self.model, self.image, self.precision = model.train(), image, precision
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
        self.scale = 2.0**10 if precision == 'fp16' else 1.0  # or small gradients vanish

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.backward()
        self.optimizer.step()

    def backward(self) -> Tensor:
        """Forward and backward pass; returns the loss."""
        dtype = torch.float16 if self.precision == 'fp16' else torch.bfloat16
        with torch.autocast(self.image.device.type, dtype=dtype, enabled=self.precision != 'fp32'):
            maps = self.model(self.image.to(memory_format=self.layout))
        loss = sum(map_.float().square().mean() for map_ in maps)
        (loss * self.scale).backward()
        return loss.detach()

    def check(self) -> tuple[float, float]:
        """Loss and norm of the gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward()
        norms = [parameter.grad.double().norm() for parameter in self.model.parameters() if parameter.grad is not None]
        return loss.item(), torch.stack(norms).norm().item() / self.scale


def measure_training(options: TrainingOptions) -> Result[TrainingRow]:
    """Measure a training step of every candidate in every precision, interleaved as in :func:`.measure_latency`.

    Raises:
        UserError: A name, shape or precision is wrong, or nothing can be measured.
    """
    wanted = _combinations(options)
    seed, device = options.seed, options.device
    batch, height, width = size = parse_shape(options.shape)
    prepare_torch(options.threads)
    used = list(dict.fromkeys(precision for _, precision in wanted))
    settings = {name: getattr(options, name) for name in ('rounds', 'warmup', 'seed', 'device', 'reference')}
    settings['shapes'] = [options.shape]
    result: Result[TrainingRow] = Result(describe_machine(device), settings, {}, [], [])
    image = photographs((batch, 3, height, width), seed).to(device)
    rows, runs = _prepare(wanted, image, seed, device, result.skipped)
    result.rows += rows
    result.check_rows()
    limits = limit_kernels(used, device)
    kernels = [(p, name) for p, of in limits.items() for name in of]
    runs.update({(p, name): limits[p][name] for p, name in kernels})
    timer = Timer(options.rounds, options.warmup, 0.2, seed, device)
    times = timer.measure(runs, f'{shape_name(size)} training')
    result.limits = {p: limits_of(p, {key: times[key] for key in kernels}) for p in used}  # type: ignore[misc]
    for row in rows:
        row.rounds = times[row.key]
    del runs
    if options.memory:
        for row in rows:
            say(f'peak memory of {row.key}')
            try:
                row.memory = peak_memory(row, seed, device, torch.get_num_threads())
            except UserError as why:  # the times are good all the same
                reason = f'its memory: {str(why).splitlines()[-1]}'
                result.skipped.append(dict(key=row.key, shape=shape_name(row.shape), reason=reason))
    result.finish(TRAINING_REFERENCE)
    return result


def _combinations(options: TrainingOptions) -> list[tuple[str, str]]:
    """Candidates and precisions to measure."""
    keys = options.only or [f'{c}/{p}' for c in options.candidates for p in options.precisions]
    wanted = list(dict.fromkeys(map(_parse_key, keys)))
    keys = [f'{c}/{p}' for c, p in wanted]
    if options.reference is not None and options.reference not in keys:
        raise UserError(f'--reference {options.reference} is not among what is measured: {", ".join(keys)}')
    if options.rounds < 1:
        raise UserError('--rounds must be at least 1')
    if options.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU here')
    return wanted


def peak_memory(row: TrainingRow, seed: int, device: str, threads: int) -> int | None:
    """Peak memory of two steps in a process of their own, bytes; None where the system does not tell.

    Raises:
        UserError: The process failed, most likely for want of memory.
    """
    return run_apart(
        _measure_memory,
        'memory was not measured',
        candidate=row.candidate,
        precision=row.precision,
        shape=row.shape,
        seed=seed,
        device=device,
        threads=threads,
    )


def _parse_key(key: str) -> tuple[str, str]:
    candidate, _, precision = key.partition('/')
    parse_candidate(candidate)
    if precision not in TRAINING_PRECISIONS:
        raise UserError(f'{key!r}: {precision!r} is not one of {", ".join(TRAINING_PRECISIONS)}')
    return candidate, precision


def _prepare(
    wanted: Sequence[tuple[str, str]], image: Tensor, seed: int, device: str, skipped: list[dict]
) -> tuple[list[TrainingRow], dict[object, Run]]:
    """Rows without times yet, and what to call for each; what cannot run is added to ``skipped``.

    One model serves all its precisions.
    """
    batch, _, height, width = image.shape
    models: dict[str, nn.Module] = {}
    rows: list[TrainingRow] = []
    runs: dict[object, Run] = {}
    for name, precision in wanted:
        key, candidate = f'{name}/{precision}', parse_candidate(name)
        say(f'building {key}')
        try:
            if precision == 'fp16' and device == 'cpu':
                raise UserError('fp16 is for GPUs (--device cuda); on CPUs take bf16')
            if name not in models:
                theirs = build_timms(candidate.timm_name, (height, width), seed, device)
                models[name] = build(candidate, (height, width), seed, device, theirs)
            step = TrainingStep(models[name], image, precision, candidate.channels_last)
            expected, flops = _expect(candidate.timm_name, image, seed, device)
            error = max(
                abs(found - value) / value if math.isfinite(found) else math.inf
                for found, value in zip(step.check(), expected)
            )
        except (UserError, RuntimeError) as why:
            reason = str(why).splitlines()[0]
            skipped.append(dict(key=key, shape=shape_name((batch, height, width)), reason=reason))
            continue
        runs[key] = step
        rows.append(TrainingRow(name, precision, (batch, height, width), flops, error, error <= TOLERANCES[precision]))
    return rows, runs


_EXPECTED: dict[tuple, tuple] = {}


def _expect(timm_name: str, image: Tensor, seed: int, device: str) -> tuple[tuple[float, float], int]:
    """Loss and gradient norm of timm's in float32, and the FLOPs of forward and backward pass."""
    key = (timm_name, tuple(image.shape), seed, device)
    if key not in _EXPECTED:
        model = copy.deepcopy(build_timms(timm_name, tuple(image.shape[2:]), seed, device))
        step, checked = TrainingStep(model, image, 'fp32', False), []
        found = multiply_adds(lambda: checked.append(step.check()))
        _EXPECTED[key] = checked[0], 2 * found.total
    return _EXPECTED[key]


def _measure_memory(
    candidate: str, precision: str, shape: Sequence[int], seed: int, device: str, threads: int
) -> int | None:
    """In a process of its own: peak memory of two steps."""
    prepare_torch(threads)
    batch, height, width = shape
    parsed = parse_candidate(candidate)
    image = photographs((batch, 3, height, width), seed).to(device)
    step = TrainingStep(build(parsed, (height, width), seed, device), image, precision, parsed.channels_last)
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        return torch.cuda.max_memory_allocated()
    if not forget_peak():  # or what building took would count
        return None
    before = resident('VmRSS')
    step()
    step()
    return resident('VmHWM') - before
