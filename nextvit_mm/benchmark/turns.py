"""A model in a process of its own that takes a turn whenever it is told to: from a picture file to a drawn result.

This file needs neither torch nor the rest of the package, as the runner itself does not: the times and the memory of an
exported model are those of a program of somebody's own.
"""

import importlib.util
import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ('read', 'network', 'paste', 'draw')
PARTS = ('backbone', 'neck', 'heads', 'RoIAlign', 'NMS', 'rest')  # of the stage network
SCORE_THR = 0.05  # of what is drawn, so that all that a detector finds is
# What the name of a layer, or of an operation, says of where it belongs.
PART_OF_NAME = re.compile(r'(?<![a-z])(backbone|neck|rpn_head|bbox_head|mask_head|decode_head)(?![a-z])')
PART_OF_OPERATION = dict(RoiAlign='RoIAlign', ROIAlign='RoIAlign', NonMaxSuppression='NMS')


class Clock:
    """Seconds from lap to lap, by the stage that ends there."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage], self.last = now - self.last, now


class ExportedModel:
    """A file of ONNX Runtime or OpenVINO and the runner, as somebody uses them who has nothing else.

    Args:
        runner: The file of :mod:`nextvit_mm.predict.predictor`.
        path: The model, its ``.json`` beside it.
        picture: What every turn starts from.
        threads: Of the CPU.
        precision: OpenVINO's, ``'f32'`` or ``'bf16'``.
    """

    def __init__(self, runner: str, path: str, picture: str, threads: int, precision: str) -> None:
        self.path, self.picture, self.threads, self.precision = path, picture, threads, precision
        self.predictor = load_file(runner).Predictor(path, threads, precision)

    def turn(self) -> dict[str, float]:
        """Seconds of each of :data:`STAGES`."""
        clock = Clock()
        placed = self.predictor.place(self.picture)
        clock.lap('read')
        outputs = self.predictor.session(placed.tensor)
        clock.lap('network')
        result = self.predictor.interpret(outputs, placed)
        clock.lap('paste')
        self.predictor.draw(self.picture, result, SCORE_THR)
        clock.lap('draw')
        return clock.stages

    def parts(self) -> dict[str, float]:
        """Seconds of each of :data:`PARTS`, by the runtime's own profile of one run."""
        array = self.predictor.place(self.picture).tensor
        profile = _profile_onnx if self.path.endswith('.onnx') else _profile_openvino
        return sum_parts(profile(self, array))

    def start_memory(self) -> bool:
        return forget_peak()

    def memory(self) -> int:
        return resident('VmHWM')


def sum_parts(times: list[tuple[str, str, float]]) -> dict[str, float]:
    """Seconds by part, of operations with name, kind and seconds."""
    sums = dict.fromkeys(PARTS, 0.0)
    for name, kind, seconds in times:
        sums[part_of(name, kind)] += seconds
    return sums


def part_of(name: str, kind: str = '') -> str:
    """Which of :data:`PARTS` an operation belongs to.

    Args:
        name: As the exporters write it, with the modules around it: ``/model/roi_head/bbox_head/fc_cls/Gemm``,
            ``__module.model.backbone.stem.0.conv``.
        kind: Of the operation.
    """
    if kind in PART_OF_OPERATION:
        return PART_OF_OPERATION[kind]
    found = PART_OF_NAME.search(name)
    if not found:
        return 'rest'
    return 'heads' if found[1].endswith('_head') else found[1]


def _profile_onnx(model: ExportedModel, array: np.ndarray) -> list[tuple[str, str, float]]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, model.threads
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, 'profile'))
        session = onnxruntime.InferenceSession(model.path, options, providers=['CPUExecutionProvider'])
        for _ in range(2):
            session.run(None, {session.get_inputs()[0].name: array})
        events = json.loads(Path(session.end_profiling()).read_text())
    suffix = '_kernel_time'
    runs = [event for event in events if event.get('cat') == 'Node' and event['name'].endswith(suffix)]
    second = runs[len(runs) // 2 :]
    return [(event['name'][: -len(suffix)], event['args']['op_name'], event['dur'] / 1e6) for event in second]


def _profile_openvino(model: ExportedModel, array: np.ndarray) -> list[tuple[str, str, float]]:
    import openvino

    settings = dict(
        INFERENCE_PRECISION_HINT=model.precision,
        PERFORMANCE_HINT='LATENCY',
        INFERENCE_NUM_THREADS=model.threads,
        PERF_COUNT=True,
    )
    request = openvino.Core().compile_model(model.path, 'CPU', settings).create_infer_request()
    for _ in range(2):
        request.infer({0: array})
    return [
        (each.node_name, each.node_type, each.real_time.total_seconds())
        for each in request.get_profiling_info()
        if each.real_time.total_seconds() > 0
    ]


class Stopwatch:
    """Seconds of parts of a program, each without what other parts inside it take."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.running = ['rest']
        self.since = time.perf_counter()

    def reset(self) -> None:
        self.seconds.clear()
        self.since = time.perf_counter()

    def timed(self, function: Callable, part: str) -> Callable:
        """A function that does the same, its time counted as that of a part."""

        def run(*args: Any, **keywords: Any) -> Any:
            self._count()
            self.running.append(part)
            try:
                return function(*args, **keywords)
            finally:
                self._count()
                self.running.pop()

        return run

    def stop(self) -> Mapping[str, float]:
        self._count()
        return self.seconds

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now


def forget_peak() -> bool:
    """From now on ``VmHWM`` is of what comes; False where the system has no such thing."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
        return True
    except OSError:  # not Linux, or not allowed
        return False


def resident(what: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (the most so far) of this process, bytes. Linux."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{what}:'):
            return int(line.split()[1]) * 1024
    raise OSError(f'no {what}')


def load_file(path: str) -> Any:
    """A Python file as a module, whatever package it is in."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a .py file has a spec
    sys.modules[Path(path).stem] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def serve(open_model: Callable[..., Any]) -> None:
    """Answer each line of stdin, the name of a method, with what it returns, as a line of JSON on stdout.

    What libraries print goes to stderr.
    """
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    model = open_model(**json.loads(sys.argv[1]))
    print('null', file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(getattr(model, line.strip())()), file=answers, flush=True)
    answers.flush()
    os._exit(0)  # some runtimes crash where a process ends as others do


if __name__ == '__main__':
    serve(ExportedModel)
