"""Whether an exported model computes what the trained one does: the same tensor through both, results compared.

Each ``compare_…`` returns the figures that the export prints and writes into the ``.json``, and each has its limits in
:data:`LIMITS`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..predict.predictor import paste_mask

# Least (>=) or largest (<=) value of a figure.
LIMITS: dict[str, dict[str, tuple[str, float]]] = {
    'detection': {
        'unmatched detections': ('<=', 0),
        'least box IoU': ('>=', 0.99),
        'largest score difference': ('<=', 1e-3),
        'least mask IoU': ('>=', 0.99),
    },
    'segmentation': {'equal pixels': ('>=', 0.999)},
    'classification': {'largest score difference': ('<=', 1e-4), 'equal best classes': ('>=', 1.0)},
    'backbone': {'largest relative error': ('<=', 1e-4)},
}
MATCH_IOU = 0.5  # two boxes of one class that overlap less are no pair


def reference(model: nn.Module, task: str, image: Tensor) -> dict[str, np.ndarray]:
    """What the trained MM model makes of a normalised image (1, 3, H, W), through its own test path.

    Masks are pasted into the image: (K, H, W), bool.
    """
    with torch.no_grad():
        if task == 'backbone':
            return {f'stage{i}': stage.numpy() for i, stage in enumerate(getattr(model, 'backbone', model)(image))}
        if task == 'classification':
            return dict(scores=model.head(model.extract_feat(image)).softmax(1).numpy())
        height, width = image.shape[2:]
        about = dict(
            img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width), scale_factor=(1.0, 1.0)
        )
        if task == 'segmentation':
            return dict(class_map=model.encode_decode(image, [about]).argmax(1).numpy())
        from mmdet.structures import DetDataSample

        divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
        padded = F.pad(image, (0, -width % divisor, 0, -height % divisor))
        sample = DetDataSample(metainfo=dict(about, batch_input_shape=tuple(padded.shape[2:])))
        found = model.predict(padded, [sample], rescale=False)[0].pred_instances
        found = dict(
            boxes=found.bboxes,
            scores=found.scores,
            labels=found.labels,
            **(dict(masks=found.masks) if 'masks' in found else {}),
        )
        return {name: value.numpy() for name, value in found.items()}


def compare(
    task: str,
    ours: dict[str, np.ndarray],
    theirs: dict[str, np.ndarray],
    size: tuple[int, int],
    test_cfg: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, float]:
    """Figures of one image.

    Args:
        task: One of :data:`nextvit_mm.deploy.graphs.TASKS`.
        ours: The exported model's outputs by name; ``masks`` of their boxes, (K, m, m) in [0, 1].
        theirs: Those of :func:`reference`.
        size: Height and width of the image.
        test_cfg: Of a detector, ``score_thr``, ``max_per_img`` and ``mask_thr_binary``.
    """
    if task == 'backbone':
        return {'largest relative error': max(_relative_error(a, b) for a, b in zip(ours.values(), theirs.values()))}
    if task == 'classification':
        return {
            'largest score difference': float(abs(ours['scores'] - theirs['scores']).max()),
            'equal best classes': float((ours['scores'].argmax(1) == theirs['scores'].argmax(1)).mean()),
        }
    if task == 'segmentation':
        return {'equal pixels': float((ours['class_map'] == theirs['class_map']).mean())}
    return compare_detections(ours, theirs, size, **test_cfg)


def compare_detections(
    ours: dict[str, np.ndarray],
    theirs: dict[str, np.ndarray],
    size: tuple[int, int],
    score_thr: float = 0.0,
    max_per_img: int = 100,
    mask_thr_binary: float = 0.5,
) -> dict[str, float]:
    """Detections matched one to one within a class, the best overlap first.

    A detection without a partner does not count where its score is within the allowed difference of ``score_thr``, or
    of the last one of a list of ``max_per_img``: on which side of such a limit it falls is then a matter of rounding.
    """
    pairs = match(ours['boxes'], ours['labels'], theirs['boxes'], theirs['labels'])
    slack = LIMITS['detection']['largest score difference'][1]
    unmatched = 0
    for side, scores in ((0, ours['scores']), (1, theirs['scores'])):
        limit = scores.min() if len(scores) >= max_per_img else score_thr
        alone = set(range(len(scores))) - {pair[side] for pair in pairs}
        unmatched += sum(scores[i] > limit + slack for i in alone)
    figures = {
        'detections': len(theirs['scores']),
        'unmatched detections': int(unmatched),
        'least box IoU': min((iou for _, _, iou in pairs), default=1.0),
        'largest score difference': max(
            (float(abs(ours['scores'][i] - theirs['scores'][j])) for i, j, _ in pairs), default=0.0
        ),
    }
    if 'masks' in ours:
        figures['least mask IoU'] = min(
            (
                mask_iou(paste_mask(ours['masks'][i], ours['boxes'][i], size) >= mask_thr_binary, theirs['masks'][j])
                for i, j, _ in pairs
            ),
            default=1.0,
        )
    return figures


def match(
    boxes: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, IoU) of boxes (K, 4) and others (L, 4) of one class, each box in one pair at most."""
    overlap = box_iou(boxes, others) * (labels[:, None] == other_labels)
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


def mask_iou(mask: np.ndarray, other: np.ndarray) -> float:
    union = int((mask | other).sum())
    return int((mask & other).sum()) / union if union else 1.0


def worst(task: str, figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """The worst of each figure over several images, and how many images they were."""
    sums = {'detections'}
    limits = LIMITS[task]
    result: dict[str, float] = dict(images=len(figures))
    for name in figures[0]:
        values = [each[name] for each in figures]
        result[name] = sum(values) if name in sums else (min if limits[name][0] == '>=' else max)(values)
    return result


def broken_limits(task: str, figures: dict[str, float]) -> list[str]:
    """What of the figures is beyond :data:`LIMITS`, in words."""
    found = []
    for name, (relation, limit) in LIMITS[task].items():
        if name in figures and not (figures[name] >= limit if relation == '>=' else figures[name] <= limit):
            found.append(
                f'{name} is {figures[name]:.6g} and must be {"at least" if relation == ">=" else "at most"} {limit:g}'
            )
    return found


def _relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)) if ours.shape == theirs.shape else float('inf')
