"""Operators on boxes (x1, y1, x2, y2) in pixels. ``offset`` 1 makes a box from 0 to 1 two pixels wide."""

import numpy as np
import torch
from torch import Tensor

from .precision import single, wide


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes (N, 4) that stay, the best score first."""
    boxes, scores = wide(boxes), wide(scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torch.ops.torchvision.nms(boxes, scores, single(iou_threshold))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes by their overlap with better ones (arXiv 1704.04503).

    Args:
        boxes, scores: (N, 4) and (N,) on the CPU, where ``mmcv.ops.soft_nms`` puts them.
        dets: (N, 5), filled with the boxes that stay and their lowered scores, the best first.
        method: 0 drops what overlaps, 1 lowers linearly, 2 by a Gaussian of width ``sigma``.

    Returns:
        Their indices, in the same order.
    """
    # Columns: x1, y1, x2, y2, score, area. Rows move as they do in mmcv, because ties go to the first row.
    rows = torch.cat([boxes.float(), scores.float()[:, None], _areas(boxes.float(), offset)[:, None]], 1).numpy().copy()
    order = np.arange(len(rows))
    count, done = len(rows), 0
    while done < count:
        best = done if np.isnan(rows[done, 4]) else done + int(np.nanargmax(rows[done:count, 4]))
        rows[[done, best]], order[[done, best]] = rows[[best, done]], order[[best, done]]
        rest = slice(done + 1, count)
        overlap = _overlap(rows[done], rows[rest], offset)
        if method == 2:
            rows[rest, 4] *= np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            low = np.zeros_like(overlap) if method == 0 else 1 - overlap
            rows[rest, 4] *= np.where(overlap >= np.float32(iou_threshold), low, np.float32(1))
        done += 1
        count = _drop(rows, order, done, ~(rows[rest, 4] < np.float32(min_score)))
    dets[:count] = torch.from_numpy(rows[:count, :5]).to(dets.dtype)
    return torch.from_numpy(order[:count].copy())


def _drop(rows: np.ndarray, order: np.ndarray, start: int, stay: np.ndarray) -> int:
    """Fill the place of each row after ``start`` that does not stay with the last one that does; how many are left."""
    kept = int(stay.sum())
    holes = start + np.flatnonzero(~stay[:kept])
    movers = start + kept + np.flatnonzero(stay[kept:])[::-1]
    rows[holes], order[holes] = rows[movers], order[movers]
    return start + kept


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of indices of dets (N, 5): a box that stays, then those that it removes, each by falling score."""
    rows = torch.cat([dets.float(), _areas(dets.float(), 0)[:, None]], 1).numpy()
    left = dets[:, 4].float().sort(dim=0, descending=True, stable=True)[1].numpy()
    groups = []
    while len(left):
        best, rest = left[0], left[1:]
        match = _overlap(rows[best], rows[rest], 0) >= np.float32(iou_threshold)
        groups.append([int(best), *rest[match].tolist()])
        left = rest[~match]
    return groups


def _areas(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)


def _overlap(one: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """IoU of a row (x1, y1, x2, y2, score, area) with others; NaN between two boxes without area."""
    low = np.maximum(one[:2], others[:, :2])
    high = np.minimum(one[2:4], others[:, 2:4])
    side = np.maximum(np.float32(0), high - low + np.float32(offset))
    shared = side[:, 0] * side[:, 1]
    with np.errstate(invalid='ignore', divide='ignore'):
        return shared / (one[5] + others[:, 5] - shared)


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Fill ``ious`` with the overlaps of boxes (M, 4) and (N, 4): (M, N), or (M,) of pairs where ``aligned``.

    ``mode`` 0 divides by the union, 1 by the area of the first box.
    """
    first, second = _pairs(bboxes1, bboxes2, aligned)
    side = (torch.min(first[..., 2:], second[..., 2:]) - torch.max(first[..., :2], second[..., :2]) + offset).clamp(0)
    shared = side[..., 0] * side[..., 1]
    area = _areas(bboxes1, offset)
    area = area if aligned else area[:, None]
    ious.copy_(shared / (area + _areas(bboxes2, offset) - shared if mode == 0 else area))


def _pairs(first: Tensor, second: Tensor, aligned: bool) -> tuple[Tensor, Tensor]:
    return (first, second) if aligned else (first[:, None], second)
