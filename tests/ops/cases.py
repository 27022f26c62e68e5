"""Calls of ``mmcv.ops`` on seeded inputs, for operators that mmcv compiles for the CPU.

Each case gives named arrays: what the operator returns and the gradients of its inputs.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mmcv.ops
import numpy as np
import torch
from torch import Tensor

Outputs = dict[str, np.ndarray]
CASES: dict[str, Callable[[], Outputs]] = {}


def random(seed: int, *shape: int, low: float = 0, high: float = 1) -> Tensor:
    """Uniform float32 values. NumPy promises the same from this generator in every version; torch does not."""
    return torch.from_numpy(np.random.RandomState(seed).uniform(low, high, shape).astype(np.float32))


def random_boxes(seed: int, count: int, size: float = 60, low: float = 0) -> Tensor:
    """(N, 4) boxes with a corner from ``low`` to ``size``, up to half of that wide and high."""
    corner = random(seed, count, 2, low=low, high=size)
    return torch.cat([corner, corner + random(seed + 1, count, 2, high=size / 2)], 1)


def random_rois(seed: int, count: int, pictures: int, size: float = 60, low: float = 0) -> Tensor:
    picture = torch.from_numpy(np.random.RandomState(seed + 7).randint(0, pictures, (count, 1)).astype(np.float32))
    return torch.cat([picture, random_boxes(seed, count, size, low)], 1)


def with_gradients(function: Callable, seed: int, **inputs: Tensor) -> Outputs:
    """A function's output, and for a seeded gradient of it the gradients of its inputs."""
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    output = function(*inputs.values())
    output.backward(random(seed, *output.shape, low=-1).to(output))
    return dict(output=array(output), **{f'gradient of {name}': array(t.grad) for name, t in inputs.items()})


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


@contextmanager
def operators(module) -> Iterator[None]:
    """Let ``mmcv.ops`` call the operators of another module."""
    names = [name for _, name, _ in pkgutil.iter_modules(mmcv.ops.__path__)]
    callers = [m for m in (importlib.import_module(f'mmcv.ops.{name}') for name in names) if hasattr(m, 'ext_module')]
    before = [caller.ext_module for caller in callers]
    try:
        for caller in callers:
            caller.ext_module = module
        yield
    finally:
        for caller, ext_module in zip(callers, before):
            caller.ext_module = ext_module


def case(name: str):
    def add(function: Callable[[], Outputs]) -> Callable[[], Outputs]:
        CASES[name] = function
        return function

    return add


def add_nms(name: str, boxes: Tensor, scores: Tensor, **kwargs) -> None:
    @case(f'nms {name}')
    def run() -> Outputs:
        return dict(indices=array(mmcv.ops.nms(boxes, scores, **kwargs)[1]))


def add_soft_nms(name: str, boxes: Tensor, scores: Tensor, **kwargs) -> None:
    @case(f'soft_nms {name}')
    def run() -> Outputs:
        dets, kept = mmcv.ops.soft_nms(boxes, scores, **kwargs)
        return dict(boxes=array(dets), indices=array(kept))


def add_nms_match(name: str, boxes: Tensor, scores: Tensor, threshold: float) -> None:
    @case(f'nms_match {name}')
    def run() -> Outputs:
        groups = mmcv.ops.nms_match(torch.cat([boxes, scores[:, None]], 1), threshold)
        return dict(
            indices=np.array([int(i) for group in groups for i in group]),
            lengths=np.array([len(group) for group in groups]),
        )


def add_roi_align(name: str, features: Tensor, rois: Tensor, size, scale=1.0, ratio=0, mode='avg', aligned=True):
    @case(f'roi_align {name}')
    def run() -> Outputs:
        layer = mmcv.ops.RoIAlign(size, scale, ratio, mode, aligned)
        return with_gradients(lambda x: layer(x, rois.to(x)), 90, input=features.clone())


def add_overlaps(name: str, first: Tensor, second: Tensor, **kwargs) -> None:
    @case(f'bbox_overlaps {name}')
    def run() -> Outputs:
        return dict(ious=array(mmcv.ops.bbox_overlaps(first, second, **kwargs)))


def add_deform(
    name: str,
    shape: tuple[int, ...],
    outputs: int,
    kernel: tuple[int, int],
    reach: float = 2,
    modulated: bool = False,
    bias: bool = False,
    dtype=torch.float32,
    **kwargs,
) -> None:
    """A deformable convolution of maps (N, C, H, W) whose offsets go as far as ``reach`` pixels."""

    @case(f'{"modulated_" * modulated}deform_conv {name}')
    def run() -> Outputs:
        groups, parts = kwargs.get('groups', 1), kwargs.get('deform_groups', 1)
        layer = (mmcv.ops.ModulatedDeformConv2d if modulated else mmcv.ops.DeformConv2d)(
            shape[1], outputs, kernel, bias=bias, **kwargs
        ).to(dtype)
        probe = torch.nn.Conv2d(1, 1, kernel, **{k: v for k, v in kwargs.items() if k in PLAIN})
        size = probe(torch.zeros(1, 1, *shape[2:])).shape[2:]
        points = parts * kernel[0] * kernel[1]
        inputs = dict(
            input=random(1, *shape, low=-1), offset=random(2, shape[0], 2 * points, *size, low=-reach, high=reach)
        )
        if modulated:
            inputs['mask'] = random(3, shape[0], points, *size)
        inputs['weight'] = random(4, outputs, shape[1] // groups, *kernel, low=-1)
        if bias:
            inputs['bias'] = random(5, outputs)

        def function(*values: Tensor) -> Tensor:
            count = 3 if modulated else 2
            names = ('weight', 'bias')[: len(values) - count]
            return torch.func.functional_call(layer, dict(zip(names, values[count:])), values[:count])

        return with_gradients(function, 91, **{key: value.to(dtype) for key, value in inputs.items()})


PLAIN = ('stride', 'padding', 'dilation')


def add_psa_mask(name: str, mode: str, mask: tuple[int, int], size: tuple[int, int]) -> None:
    @case(f'psa_mask {name}')
    def run() -> Outputs:
        return with_gradients(mmcv.ops.PSAMask(mode, mask), 92, masks=random(1, 2, mask[0] * mask[1], *size))


def _boxes() -> None:
    boxes, scores = random_boxes(10, 200), random(12, 200)
    tied = (scores * 5).round() / 5
    whole = random_boxes(14, 150, 12).round()  # overlaps that are simple fractions, such as the thresholds
    outside = random_boxes(16, 80, 30, -40)
    none = (boxes[:0], scores[:0])
    for threshold in (0.3, 0.5, 0.7):
        add_nms(f'random, above {threshold}', boxes, scores, iou_threshold=threshold)
    for threshold in (0.1, 0.2, 0.25, 0.3, 0.5, 0.6):
        add_nms(f'whole pixels, above {threshold}', whole, scores[:150], iou_threshold=threshold)
        add_nms(f'whole pixels, offset 1, above {threshold}', whole, scores[:150], iou_threshold=threshold, offset=1)
    add_nms('all the same box', boxes[:1].repeat(9, 1), scores[:9], iou_threshold=0.5)
    add_nms('offset 1', boxes, scores, iou_threshold=0.5, offset=1)
    add_nms('outside of the picture', outside, scores[:80], iou_threshold=0.5)
    add_nms('best 9 above a score', boxes, scores, iou_threshold=0.5, score_threshold=0.3, max_num=9)
    # Of equal scores mmcv leaves the order to an unstable sort: tests/ops/test_definitions.py has those.
    add_nms('one box', boxes[:1], scores[:1], iou_threshold=0.5)
    add_nms('no box', *none, iou_threshold=0.5)
    for method in ('naive', 'linear', 'gaussian'):
        add_soft_nms(method, boxes, scores, method=method)
        add_soft_nms(f'{method}, equal scores, offset 1', whole, tied[:150], method=method, offset=1, min_score=0.05)
        add_soft_nms(f'{method}, one box', boxes[:1], scores[:1], method=method)
        add_soft_nms(f'{method}, no box', *none, method=method)
    add_soft_nms('low scores', outside, scores[:80] * 0.01, method='gaussian', min_score=0.004, sigma=0.3)
    add_nms_match('random', boxes, scores, 0.4)
    add_nms_match('whole pixels', whole, scores[:150], 0.25)
    add_nms_match('one box', boxes[:1], scores[:1], 0.5)
    add_nms_match('no box', *none, 0.5)
    for mode in ('iou', 'iof'):
        for offset in (0, 1):
            add_overlaps(f'{mode}, offset {offset}', boxes[:20], outside[:15], mode=mode, offset=offset)
            add_overlaps(f'{mode}, offset {offset}, pairs', boxes[:80], outside, mode=mode, offset=offset, aligned=True)
    add_overlaps('no box', boxes[:0], boxes[:3])


@case('batched_nms of classes')
def batched() -> Outputs:
    classes = torch.from_numpy(np.random.RandomState(3).randint(0, 4, 200))
    outputs = {}
    for name, setting in dict(
        nms=dict(type='nms'),
        soft=dict(type='soft_nms', min_score=0.02),
        split=dict(type='nms', split_thr=50, max_num=40),
    ).items():
        boxes, kept = mmcv.ops.batched_nms(
            random_boxes(10, 200), random(12, 200), classes, dict(iou_threshold=0.45, **setting)
        )
        outputs.update({f'{name}: boxes': array(boxes), f'{name}: indices': array(kept)})
    return outputs


def _regions() -> None:
    features, rois = random(20, 2, 3, 12, 17, low=-1), random_rois(21, 9, 2)
    outside = random_rois(24, 9, 2, 60, -50)
    empty = rois.clone()
    empty[:, 3:] = empty[:, 1:3]
    for mode in ('avg', 'max'):
        for aligned in (True, False):
            name = f'{mode}, {"" if aligned else "not "}aligned'
            add_roi_align(name, features, rois, (3, 2), 0.25, 0, mode, aligned)
            add_roi_align(f'{name}, 2 points', features, rois, 4, 0.25, 2, mode, aligned)
            add_roi_align(f'{name}, outside of the picture', features, outside, (2, 3), 0.25, 0, mode, aligned)
            add_roi_align(f'{name}, regions without area', features, empty, 2, 0.25, 0, mode, aligned)
            add_roi_align(f'{name}, one region', features[:1], random_rois(26, 1, 1), 7, 0.125, 0, mode, aligned)
            add_roi_align(f'{name}, no region', features, rois[:0], 2, 0.25, 0, mode, aligned)
        add_roi_align(f'{mode}, float64', features.double(), rois, 2, 0.25, 0, mode)
        add_roi_align(f'{mode}, half precision', features.half(), rois, 2, 0.25, 2, mode)


def _deformable() -> None:
    for modulated in (False, True):
        common = dict(modulated=modulated)
        add_deform('3x3', (2, 3, 6, 5), 4, (3, 3), padding=1, **common)
        add_deform(
            'of two groups, two deformable', (2, 4, 5, 6), 6, (3, 3), padding=1, groups=2, deform_groups=2, **common
        )
        add_deform(
            'stride, dilation, kernel 3x2', (1, 2, 9, 8), 3, (3, 2), stride=2, padding=(2, 1), dilation=2, **common
        )
        add_deform('far outside of the map', (2, 2, 4, 4), 2, (3, 3), reach=9, padding=1, **common)
        add_deform('1x1, one picture', (1, 5, 4, 3), 2, (1, 1), **common)
        add_deform('float64', (1, 2, 4, 4), 2, (3, 3), padding=1, dtype=torch.float64, **common)
    add_deform('map smaller than the kernel', (1, 2, 2, 2), 2, (3, 3), padding=1)
    add_deform('with bias', (3, 2, 5, 5), 4, (3, 3), padding=1, modulated=True, bias=True)
    add_deform('of five pictures', (5, 2, 4, 4), 2, (3, 3), padding=1, modulated=True)
    for mode in ('collect', 'distribute'):
        add_psa_mask(mode, mode, (5, 7), (3, 4))
        add_psa_mask(f'{mode}, mask smaller than the map', mode, (3, 3), (5, 4))


_boxes()
_regions()
_deformable()
