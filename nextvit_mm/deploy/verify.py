"""Whether an exported model computes what the trained one does: the same picture file through both, results compared.

Each ``compare_…`` returns the figures that the export prints and writes into the ``.json``, and each has its limits in
:data:`LIMITS`. A value that is not a number stays one through every reduction, and is beyond every limit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

# Least (>=) or largest (<=) value of a figure.
ALWAYS: dict[str, tuple[str, float]] = {'values that are not finite': ('<=', 0)}  # also of int8 and random weights
INPUT: dict[str, tuple[str, float]] = {'largest color difference': ('<=', 1.5)}  # of 255; OpenCV's versions round by 1
LIMITS: dict[str, dict[str, tuple[str, float]]] = {
    'detection': {
        **ALWAYS,
        **INPUT,
        'unmatched detections': ('<=', 0),
        'least box IoU': ('>=', 0.99),
        'largest score difference': ('<=', 1e-3),
    },
    'segmentation': {**ALWAYS, **INPUT, 'equal pixels': ('>=', 0.999), 'equal pixels in the picture': ('>=', 0.999)},
    'classification': {**ALWAYS, **INPUT, 'largest score difference': ('<=', 1e-4), 'equal best classes': ('>=', 1.0)},
    'backbone': {**ALWAYS, **INPUT, 'largest relative error': ('<=', 1e-4)},
}
MASKS: dict[str, tuple[str, float]] = {'wrong mask pixels': ('<=', 0)}  # of a detector that has masks
MATCH_IOU = 0.5  # two boxes of one class that overlap less are no pair
SAME_BOX = 0.01  # pixels: corners so near are of one box, also of one that the picture's edge leaves no area of
MASK_SLACK = 0.02  # a pixel whose probability is as near to the threshold may fall on either side


def limits_of(task: str) -> dict[str, tuple[str, float]]:
    return {**LIMITS[task], **MASKS} if task == 'detection' else LIMITS[task]


def not_finite(arrays: Iterable[np.ndarray]) -> int:
    """How many values are NaN or infinite."""
    return sum(int(a.size - np.isfinite(a).sum()) for a in map(np.asarray, arrays))


def color_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of two inputs (C, H, W) in colors from 0 to 255; padding of ours does not count."""
    if any(a < b for a, b in zip(ours.shape, theirs.shape)):
        return math.inf
    return float(np.abs(ours[:, : theirs.shape[1], : theirs.shape[2]] - theirs).max(initial=0))


def compare(
    task: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], test_cfg: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, float]:
    """Figures of the results of one picture.

    Args:
        task: One of :data:`nextvit_mm.deploy.graphs.TASKS`.
        ours: The exported model's results; of a segmentor with ``input_map``, its class map at the input's size.
        theirs: Those of :func:`.reference.see`.
        test_cfg: Of a detector, ``score_thr``, ``max_per_img`` and ``mask_thr_binary``.
    """
    if task == 'backbone':
        return {'largest relative error': _largest(_relative_error(a, b) for a, b in zip(ours['maps'], theirs['maps']))}
    if task == 'classification':
        return {
            'largest score difference': _largest(abs(ours['scores'] - theirs['scores'])),
            'equal best classes': float(ours['scores'].argmax() == theirs['scores'].argmax()),
        }
    if task == 'segmentation':
        return {
            'equal pixels': _equal(ours['input_map'], theirs['input_map']),
            'equal pixels in the picture': equal_but_for_edges(
                ours['class_map'], theirs['class_map'], theirs['input_map'].shape
            ),
        }
    return compare_detections(ours, theirs, **test_cfg)


def equal_but_for_edges(ours: np.ndarray, theirs: np.ndarray, resized: Sequence[int]) -> float:
    """The share of a picture's pixels (H, W) with MM's class, or one that MM has beside them.

    A class map is enlarged by the nearest pixel, and MM's logits before the classes are chosen: how far an edge may
    differ is as far as the pixels of the ``resized`` input reach in the picture.
    """
    if ours.shape != theirs.shape:
        return 0.0
    reach = math.ceil(max(a / b for a, b in zip(theirs.shape, resized))) if tuple(resized) != theirs.shape else 0
    if not reach:
        return _equal(ours, theirs)
    import cv2

    right, kernel = np.zeros(ours.shape, bool), np.ones((2 * reach + 1,) * 2, np.uint8)
    for label in np.unique(ours):
        near = cv2.dilate((theirs == label).astype(np.uint8), kernel)
        right |= (ours == label) & (near > 0)
    return float(right.mean())


def compare_detections(
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    score_thr: float = 0.0,
    max_per_img: int = 100,
    mask_thr_binary: float = 0.5,
) -> dict[str, float]:
    """Detections matched one to one within a class, the best overlap first.

    A detection without a partner does not count where its score is within the allowed difference of ``score_thr``, or
    of the last one of a list of ``max_per_img``: on which side of such a limit it falls is then a matter of rounding.
    So is the side of ``mask_thr_binary`` of a mask's pixel within :data:`MASK_SLACK` of it.
    """
    pairs = match(ours['boxes'], ours['labels'], theirs['boxes'], theirs['labels'])
    slack = LIMITS['detection']['largest score difference'][1]
    unmatched = 0
    for side, scores in ((0, ours['scores']), (1, theirs['scores'])):
        limit = scores.min() if len(scores) >= max_per_img else score_thr
        alone = set(range(len(scores))) - {pair[side] for pair in pairs}
        unmatched += sum(not scores[i] <= limit + slack for i in alone)
    figures = {
        'detections': len(theirs['scores']),
        'unmatched detections': int(unmatched),
        'least box IoU': float(np.min([iou for _, _, iou in pairs], initial=1.0)),
        'largest score difference': _largest(abs(ours['scores'][i] - theirs['scores'][j]) for i, j, _ in pairs),
    }
    if 'masks' in ours:
        figures['wrong mask pixels'] = sum(
            wrong_pixels(ours['masks'][i], theirs['masks'][j], mask_thr_binary) for i, j, _ in pairs
        )
    return figures


def wrong_pixels(mask: np.ndarray, probabilities: np.ndarray, threshold: float) -> int:
    """Pixels of a mask (H, W) on the other side of the threshold than probabilities in 255ths that are clear of it."""
    likely = probabilities.astype(np.float32) / 255
    return int(((mask != (likely >= threshold)) & (abs(likely - threshold) > MASK_SLACK)).sum())


def match(
    boxes: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, IoU) of boxes (K, 4) and others (L, 4) of one class, each box in one pair at most."""
    same = (abs(boxes[:, None] - others[None]) <= SAME_BOX).all(2)
    overlap = np.maximum(box_iou(boxes, others), same) * (labels[:, None] == other_labels)
    pairs = []
    for _ in range(min(overlap.shape)):
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        if overlap[i, j] < MATCH_IOU:
            break
        pairs.append((int(i), int(j), float(overlap[i, j])))
        overlap[i, :] = overlap[:, j] = 0
    return pairs


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K, 4) and (L, 4) -> (K, L)."""
    start = np.maximum(boxes[:, None, :2], others[None, :, :2])
    end = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = (end - start).clip(0).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def worst(task: str, figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """The worst of each figure over several images, and how many images they were."""
    sums, limits = {'detections', 'wrong mask pixels', 'values that are not finite'}, limits_of(task)
    result: dict[str, float] = dict(images=len(figures))
    for name in figures[0]:
        values = [each[name] for each in figures]
        result[name] = sum(values) if name in sums else float((np.min if limits[name][0] == '>=' else np.max)(values))
    return result


def broken_limits(task: str, figures: Mapping[str, float]) -> list[str]:
    """What of the figures is beyond :data:`LIMITS`, in words."""
    return broken(limits_of(task), figures)


def broken(limits: Mapping[str, tuple[str, float]], figures: Mapping[str, float]) -> list[str]:
    found = []
    for name, (relation, limit) in limits.items():
        if name in figures and not (figures[name] >= limit if relation == '>=' else figures[name] <= limit):
            found.append(
                f'{name} is {figures[name]:.6g} and must be {"at least" if relation == ">=" else "at most"} {limit:g}'
            )
    return found


def _largest(values: Iterable[float]) -> float:
    return float(np.max(np.array(list(values), np.float64), initial=0.0))  # Python's max drops a NaN


def _equal(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((ours == theirs).mean()) if ours.shape == theirs.shape else 0.0


def _relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)) if ours.shape == theirs.shape else math.inf
