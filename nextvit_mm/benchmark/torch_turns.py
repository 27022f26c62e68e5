"""What :mod:`.turns` does, of a model of an MM library in PyTorch, and of the machine's limit."""

import contextlib
import importlib
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from mmengine.registry import init_default_scope
from torch import nn

from ..deploy.reference import batch_of
from ..predict.predictor import Predictor
from .machine import limit_kernels
from .turns import PARTS, SCORE_THR, Clock, Stopwatch, forget_peak, resident, serve

# Functions of MMDetection that are no module's, by where they are looked up.
NMS = ('mmdet.models.dense_heads.rpn_head.batched_nms', 'mmdet.models.layers.bbox_nms.batched_nms')
MODULES = dict(
    backbone='backbone',
    neck='neck',
    rpn_head='heads',
    decode_head='heads',
    **{'roi_head.bbox_head': 'heads', 'roi_head.mask_head': 'heads'},
    **{'roi_head.bbox_roi_extractor': 'RoIAlign', 'roi_head.mask_roi_extractor': 'RoIAlign'},
)


class TorchModel:
    """An MM model as its library runs it: its pipeline, its preprocessor, its ``predict``.

    Args:
        file: What :func:`.model_files.save` wrote.
        picture: What every turn starts from.
        threads: Of the CPU.
        precision: ``'fp32'``, or ``'bf16'`` by autocast.
    """

    def __init__(self, file: str, picture: str, threads: int, precision: str) -> None:
        torch.set_num_threads(threads)
        # A whole module, which only a pickle holds. This run wrote it, into a temporary folder of its own user.
        saved = torch.load(file, weights_only=False)
        self.model, self.planned, self.picture, self.precision = saved['model'], saved['planned'], picture, precision
        init_default_scope(saved['scope'])
        self.runner = Predictor(file, session=lambda array: [], about=saved['about'])

    def turn(self) -> dict[str, float]:
        """Seconds of each of :data:`.turns.STAGES`."""
        watch, clock = Stopwatch(), Clock()
        batch = batch_of(self.model, self.planned, self.picture)
        clock.lap('read')
        with self._watched(watch, every_part=False):
            sample = self._predict(batch)
        clock.lap('network')
        clock.stages['paste'] = watch.stop()['paste']
        clock.stages['network'] -= clock.stages['paste']
        self.runner.draw(self.picture, as_result(sample), SCORE_THR)
        clock.lap('draw')
        return clock.stages

    def parts(self) -> dict[str, float]:
        """Seconds of each of :data:`.turns.PARTS`."""
        batch, watch = batch_of(self.model, self.planned, self.picture), Stopwatch()
        with self._watched(watch, every_part=True):
            self._predict(batch)
            watch.reset()
            self._predict(batch)
        seconds = watch.stop()
        return {part: seconds[part] for part in PARTS}

    def start_memory(self) -> bool:
        return forget_peak()

    def memory(self) -> int:
        return resident('VmHWM')

    def _predict(self, batch: dict[str, Any]) -> Any:
        keywords = dict(rescale=True) if self.runner.about['task'] == 'detection' else {}
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=self.precision == 'bf16'):
            return self.model.predict(batch['inputs'], batch['data_samples'], **keywords)[0]

    @contextlib.contextmanager
    def _watched(self, watch: Stopwatch, every_part: bool) -> Iterator[None]:
        """Time what pastes, and the parts of the network if wanted."""
        with contextlib.ExitStack() as stack:
            for owner, name, part in _functions(self.model, every_part):
                stack.enter_context(mock.patch.object(owner, name, watch.timed(getattr(owner, name), part)))
            for target in NMS if every_part and self.runner.about['task'] == 'detection' else ():
                function = getattr(*_resolved(target))
                stack.enter_context(mock.patch(target, watch.timed(function, 'NMS')))
            yield


def _functions(model: nn.Module, every_part: bool) -> Iterator[tuple[Any, str, str]]:
    """Owners and names of what is timed, and the part that each is."""
    mask_head = getattr(getattr(model, 'roi_head', None), 'mask_head', None)
    if mask_head is not None:
        yield mask_head, 'predict_by_feat', 'paste'
    if hasattr(model, 'postprocess_result'):
        yield model, 'postprocess_result', 'paste'
    for path, part in MODULES.items() if every_part else ():
        with contextlib.suppress(AttributeError):
            yield model.get_submodule(path), 'forward', part


def _resolved(target: str) -> tuple[Any, str]:
    module, _, name = target.rpartition('.')
    return importlib.import_module(module), name


def as_result(sample: Any) -> dict[str, Any]:
    """A data sample of MM's as a result of the runner."""
    if 'pred_sem_seg' in sample:
        return dict(class_map=sample.pred_sem_seg.data[0].numpy())
    found = sample.pred_instances
    names = dict(boxes='bboxes', scores='scores', labels='labels', masks='masks')
    return {
        ours: found[theirs].float().numpy() if ours in ('boxes', 'scores') else found[theirs].numpy()
        for ours, theirs in names.items()
        if theirs in found
    }


class Limit:
    """The kernels that the machine's limit is taken from, in a process of their own as the models are.

    Args:
        threads: Of the CPU.
        precisions: Of the kernels.
    """

    def __init__(self, threads: int, precisions: list[str]) -> None:
        torch.set_num_threads(threads)
        self.kernels = limit_kernels(precisions)

    def turn(self) -> dict[str, float]:
        """Seconds of each kernel, by ``PRECISION/NAME``."""
        times = {}
        for precision, kernels in self.kernels.items():
            for name, kernel in kernels.items():
                kernel()
                start = time.perf_counter()
                kernel()
                times[f'{precision}/{name}'] = time.perf_counter() - start
        return times


def main() -> None:
    """A process of a model."""
    serve(TorchModel)


def limit() -> None:
    """A process of the limit."""
    serve(Limit)
