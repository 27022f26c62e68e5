"""One-stage detectors as networks that are exported: RetinaNet, FCOS, ATSS and others that predict as they do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from .boxes import ANY_SCORE, clip, non_max_suppression, top, without_small
from .detectors import CODERS, DetectorGraph, check_coder, check_methods, check_nms


class OneStageGraph(DetectorGraph):
    """The best pairs of a box and a class of each level, then one NMS: ``BaseDenseHead.predict`` for one image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        _check(model)
        self.test_cfg, self.class_count = model.bbox_head.test_cfg, model.bbox_head.num_classes

    def find(self, features: Sequence[Tensor], limits: Tensor) -> tuple[Tensor, ...]:
        head, config = self.model.bbox_head, self.test_cfg
        logits, deltas, *factors = head(features)
        priors = head.prior_generator.grid_priors([level.shape[-2:] for level in logits], device=limits.device)
        none = [None] * len(logits)
        levels = [self.best(*level, limits) for level in zip(logits, deltas, priors, factors[0] if factors else none)]
        boxes, scores, labels = map(torch.cat, zip(*levels))
        # As MMDetection does, boxes of different classes are moved apart so far that none overlap.
        apart = boxes + (labels.to(boxes.dtype) * (limits.max() + 1))[:, None]
        kept = non_max_suppression(apart[None], scores[None], config.nms.iou_threshold, ANY_SCORE, config.max_per_img)[
            :, 1
        ]
        best_scores, best = top(scores[kept], config.max_per_img)
        return boxes[kept][best], best_scores, labels[kept][best]

    def best(
        self, logits: Tensor, deltas: Tensor, priors: Tensor, factors: Tensor | None, limits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (P, 4), scores (P) and labels (P) of a level: the ``nms_pre`` best above ``score_thr``."""
        head, config = self.model.bbox_head, self.test_cfg
        logits = logits[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        scores = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(1)[:, :-1]  # the last is the background
        pairs = (scores > config.get('score_thr', 0)).nonzero()
        scores, order = top(scores[pairs[:, 0], pairs[:, 1]], config.nms_pre)
        places, labels = pairs[order].unbind(1)
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, head.bbox_coder.encode_size)[places]
        boxes = clip(head.bbox_coder.decode(priors[places], deltas), limits)
        if factors is not None:
            scores = scores * factors[0].permute(1, 2, 0).reshape(-1).sigmoid()[places]
        if config.get('min_bbox_size', -1) >= 0:
            scores = without_small(scores, boxes, 0)
        return boxes, scores, labels


def _check(model: nn.Module) -> None:
    """Refuse a detector whose test path is another one than :class:`OneStageGraph`'s."""
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.detectors import SingleStageDetector

    check_methods(model, SingleStageDetector, 'predict', 'extract_feat')
    head = model.bbox_head
    check_methods(head, BaseDenseHead, 'predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
    check_coder(head.bbox_coder, 'bbox_head.bbox_coder', *CODERS)
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise UserError(f'{type(head.loss_cls).__name__} makes scores in a way of its own: take --what backbone')
    if head.test_cfg.get('min_bbox_size', 0) > 0:
        raise UserError(
            f'model.test_cfg.min_bbox_size={head.test_cfg.min_bbox_size} is of pixels of the picture before resizing, '
            'which an exported file does not see: set it to 0'
        )
    check_nms(head.test_cfg, '', 'nms_pre', 'max_per_img')
