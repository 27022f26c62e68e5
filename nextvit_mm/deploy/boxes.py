"""Operations on boxes that every exporter knows: NMS, the best of many scores, limits."""

import torch
from torch import Tensor

NO_SCORE, ANY_SCORE = -1.0, -0.5  # of a box that is out; the threshold that leaves only such boxes out


class NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator of that name where it is traced for ONNX, torchvision's NMS where it runs."""

    @staticmethod
    def forward(
        ctx, boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int
    ) -> Tensor:
        from torchvision.ops import nms

        picked = []
        for i in range(len(boxes)):
            valid = (scores[i] > score_threshold).nonzero().squeeze(1)
            kept = valid[nms(boxes[i][valid], scores[i][valid], iou_threshold)[:max_per_class]]
            picked.append(torch.stack((torch.full_like(kept, i), kept), dim=1))
        return torch.cat(picked)

    @staticmethod
    def symbolic(g, boxes, scores, iou_threshold: float, score_threshold: float, max_per_class: int):
        def constant(value):
            return g.op('Constant', value_t=torch.tensor(value))

        # The operator knows boxes that all classes share; boxes of a class of their own are an image of their own.
        found = g.op(
            'NonMaxSuppression',
            boxes,
            g.op('Unsqueeze', scores, constant([1])),
            constant([max_per_class]),
            constant([iou_threshold]),
            constant([score_threshold]),
        )
        return g.op('Gather', found, constant([0, 2]), axis_i=1)  # (image, class, box) -> (image, box)


def non_max_suppression(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int
) -> Tensor:
    """NMS of each class: boxes (classes, P, 4) and scores (classes, P) -> pairs (class, box) that stay, (K, 2)."""
    return NonMaxSuppression.apply(boxes, scores, iou_threshold, score_threshold, max_per_class)


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best ``count`` scores, or all where there are fewer, and where they are."""
    there = torch._shape_as_tensor(scores)[0]
    return scores.topk(torch.minimum(there, torch.tensor(count)))


def clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (…, 4) within ``limits``, (W, H, W, H)."""
    return torch.minimum(boxes.clamp(min=0), limits)


def without_small(scores: Tensor, boxes: Tensor, least: float) -> Tensor:
    """Scores (P), and :data:`NO_SCORE` for those of boxes (P, 4) with a side of ``least`` or less."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return scores.where((sides > least).all(1), torch.full((), NO_SCORE))
