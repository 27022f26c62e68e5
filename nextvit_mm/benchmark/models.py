"""Whole detectors and segmentors side by side: from a picture file to a drawn result, each in a process of its own."""

import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..predict import predictor
from ..utils.optional import need
from ..utils.progress import say
from ..utils.subprocess import Served, run_apart
from . import torch_turns, turns
from .machine import describe_machine, missing_units
from .model_files import TOLERANCES, Made, draw_picture, make_files
from .model_list import parse_model
from .options import ModelsOptions
from .rounds import PAUSE, Result, Row, Shape, limits_of, parse_shape, quartiles, shape_name
from .runtimes import MODULES
from .turns import STAGES

LIMIT = 'limit'  # the key of the process that runs the limit's kernels


@dataclass
class ModelRow(Row):
    """A whole model in a runtime. Its ``rounds`` and its median are of the network alone: from the input to boxes,
    scores, labels and masks of the boxes, or to a class map of the input.

    Attributes:
        runtime: One of :data:`.options.WHOLE_RUNTIMES`.
        found: Detections in the picture, or classes in it.
        stages: Medians over the rounds of each of :data:`.turns.STAGES`, s.
        parts: Of the stage ``network``, by a profile of one run, s; ``rest`` of a runtime is what belongs to no module.
        pictures_per_s: One after the other, from file to drawn result.
        memory: Peak resident memory of the process, with Python and its libraries, bytes; None where not measured.
    """

    runtime: str = 'eager'
    found: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    pictures_per_s: float = 0.0
    memory: int | None = None

    @property
    def key(self) -> str:
        """MODEL/RUNTIME/PRECISION."""
        return f'{self.candidate}/{self.runtime}/{self.precision}'


def measure_models(options: ModelsOptions) -> Result[ModelRow]:
    """Measure every model in every runtime and precision, size by size, beside the machine's limit.

    Every combination is a process of its own, which waits until it is told to take a turn; in each round all take one,
    in an order that the seed shuffles anew.

    Raises:
        UserError: A name, shape or runtime is wrong or missing, or nothing can be measured.
    """
    models = [parse_model(name) for name in dict.fromkeys(options.models)]
    sizes = [parse_shape(shape) for shape in options.shapes]
    _check(options, sizes)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    settings = {name: getattr(options, name) for name in ('rounds', 'warmup', 'seed', 'device')}
    settings.update(shapes=list(options.shapes), reference=None)
    result: Result[ModelRow] = Result(describe_machine(), settings, {}, [], [])
    limit_times: dict[tuple[str, str], list[float]] = {}
    for shape in sizes:
        with tempfile.TemporaryDirectory(prefix='nextvit_benchmark_') as folder:
            picture = Path(folder, 'picture.jpg')
            draw_picture(picture, shape[1:], options.seed)
            rows: dict[str, ModelRow] = {}
            files: dict[str, str] = {}
            for i, model in enumerate(models):
                say(f'{shape_name(shape)}: building {model.name}')
                place = Path(folder, str(i))
                place.mkdir()
                made = _make(options, model.name, shape, picture, place, result.skipped)
                for key, file in made.files.items() if made else ():
                    rows[f'{model.name}/{key}'] = _row(model.name, key, shape, made)
                    files[f'{model.name}/{key}'] = file
            _measure(rows, files, picture, options, result.skipped, limit_times)
        result.rows += rows.values()
    result.check_rows()
    result.limits = {precision: limits_of(precision, limit_times) for precision in _used(options, result.rows)}
    _finish(result)
    return result


def _check(options: ModelsOptions, sizes: Sequence[Shape]) -> None:
    if options.rounds < 1:
        raise UserError('--rounds must be at least 1')
    if options.device != 'cpu':
        raise UserError('whole models are measured on CPUs: leave --device out')
    for shape in sizes:
        if shape[0] != 1:
            raise UserError(f'whole models take one picture: give 1x{shape_name(shape).split("x", 1)[1]}')
    for runtime in options.runtimes:
        if runtime in MODULES:
            need(MODULES[runtime], f'the runtime {runtime}')
    if 'int8' in options.precisions and 'openvino' in options.runtimes:
        need('nncf', 'int8 in OpenVINO')


def why_not(runtime: str, precision: str) -> str:
    """Why a combination is not measured here, ``''`` if it is."""
    if runtime == 'onnxruntime' and precision == 'bf16':
        return 'ONNX Runtime is measured in fp32 and int8: its CPU kernels have no half precision'
    if runtime in ('eager', 'folded') and precision == 'int8':
        return 'int8 is measured in ONNX Runtime and OpenVINO'
    missing = missing_units(precision)
    return f'this CPU has no units for {precision} ({missing})' if missing else ''


def _make(
    options: ModelsOptions, name: str, shape: Shape, picture: Path, folder: Path, skipped: list[dict]
) -> Made | None:
    """The files of a model, by a process of its own; what cannot be had is added to ``skipped``."""
    wanted = []
    for runtime in options.runtimes:
        for precision in options.precisions:
            reason = why_not(runtime, precision)
            if reason:
                skipped.append(dict(key=f'{name}/{runtime}/{precision}', shape=shape_name(shape), reason=reason))
            else:
                wanted.append(f'{runtime}/{precision}')
    if not wanted:
        return None
    try:
        made = run_apart(
            make_files,
            'it cannot be built',
            name=name,
            size=shape[1:],
            wanted=wanted,
            picture=str(picture),
            folder=str(folder),
            seed=options.seed,
            threads=torch.get_num_threads(),
        )
    except UserError as error:
        reason = str(error).splitlines()[-1]
        skipped += [dict(key=f'{name}/{key}', shape=shape_name(shape), reason=reason) for key in wanted]
        return None
    skipped += [
        dict(key=f'{name}/{key}', shape=shape_name(shape), reason=reason) for key, reason in made['skipped'].items()
    ]
    return Made(**made)


def _row(name: str, key: str, shape: Shape, made: Made) -> ModelRow:
    runtime, precision = key.split('/')
    error = made.errors[key]
    return ModelRow(
        name, precision, shape, made.flops, error, error <= TOLERANCES[precision], runtime=runtime, found=made.found
    )


def _measure(
    rows: dict[str, ModelRow],
    files: Mapping[str, str],
    picture: Path,
    options: ModelsOptions,
    skipped: list[dict],
    limit_times: dict[tuple[str, str], list[float]],
) -> None:
    """Fill in the times; a row whose process fails is taken out and added to ``skipped``."""
    threads = torch.get_num_threads()
    stages: dict[str, list[dict[str, float]]] = {key: [] for key in rows}
    with contextlib.ExitStack() as stack:
        processes: dict[str, Served] = {}

        def drop(key: str, error: UserError) -> None:
            skipped.append(
                dict(key=key, shape=shape_name(rows.pop(key).shape), reason=str(error).splitlines()[-1][:200])
            )

        for key, row in list(rows.items()):
            say(f'{shape_name(row.shape)}: starting {key}')
            try:
                processes[key] = stack.enter_context(open_process(row, files[key], picture, threads))
                for _ in range(options.warmup):
                    processes[key].ask('turn')
                processes[key].ask('start_memory')
            except UserError as error:
                drop(key, error)
        if not rows:
            return
        limit = stack.enter_context(open_limit(_used(options, rows.values()), threads))
        order, shuffle = [*rows, LIMIT], random.Random(options.seed).shuffle
        title = shape_name(next(iter(rows.values())).shape)
        for i in range(options.rounds):
            shuffle(order)
            for j, key in enumerate(list(order)):
                say(f'{title}: round {i + 1}/{options.rounds}, {j + 1}/{len(order)}, {key}')
                time.sleep(PAUSE)
                if key == LIMIT:
                    for kernel, seconds in limit.ask('turn').items():
                        precision, _, kernel_name = kernel.partition('/')
                        limit_times.setdefault((precision, kernel_name), []).append(seconds)
                    continue
                try:
                    stages[key].append(processes[key].ask('turn'))
                except UserError as error:
                    order.remove(key)
                    drop(key, error)
        for key, row in rows.items():
            say(f'{title}: profile of {key}')
            row.memory = processes[key].ask('memory')
            row.rounds = [turn['network'] for turn in stages[key]]
            row.stages = {stage: statistics.median(turn[stage] for turn in stages[key]) for stage in STAGES}
            row.pictures_per_s = 1 / statistics.median(sum(turn.values()) for turn in stages[key])
            row.parts = processes[key].ask('parts')


def _used(options: ModelsOptions, rows: Iterable[ModelRow]) -> list[str]:
    """The precisions that are measured. In others, which a CPU emulates, a kernel of the limit can take minutes."""
    found = {row.precision for row in rows}
    return [precision for precision in options.precisions if precision in found]


def open_process(row: ModelRow, file: str, picture: Path, threads: int) -> Served:
    """The process of a row."""
    arguments: dict[str, Any] = dict(picture=str(picture), threads=threads)
    if row.runtime in ('eager', 'folded'):
        return Served(torch_turns.main, row.key, dict(arguments, file=file, precision=row.precision))
    precision = 'bf16' if row.precision == 'bf16' else 'f32'
    return Served(turns.__file__, row.key, dict(arguments, runner=predictor.__file__, path=file, precision=precision))


def open_limit(precisions: Sequence[str], threads: int) -> Served:
    """The process of the limit's kernels."""
    return Served(torch_turns.limit, LIMIT, dict(threads=threads, precisions=list(precisions)))


def _finish(result: Result[ModelRow]) -> None:
    """From the times of the rounds to medians, quartiles, shares of the limit, and ratios to the same heads on
    ResNet-101 in the same runtime and precision."""
    for row in result.rows:
        row.median, row.quartiles = statistics.median(row.rounds), quartiles(row.rounds)
        row.flops_per_s = row.flops / row.median
        limit = result.limits.get(row.precision, {}).get('best')
        row.share = row.flops_per_s / limit if limit else None
    medians = {(row.key, row.shape): row.median for row in result.rows}
    for row in result.rows:
        runtime = 'eager' if row.runtime == 'folded' else row.runtime  # PyTorch too; ResNet is not folded
        base = medians.get((f'{parse_model(row.candidate).reference}/{runtime}/{row.precision}', row.shape))
        row.ratio = base / row.median if base else None
    result.settings['reference'] = 'ResNet-101 with the same heads, in the same runtime and precision'
