"""Detectors as networks that are exported: MMDetection's test path in standard operators."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .graph import Graph


class DetectorGraph(Graph):
    """Image (1, 3, H, W) -> ``boxes`` (K, 4), ``scores`` (K), ``labels`` (K), and ``masks`` (K, m, m) in [0, 1].

    MMDetection's two-stage test path (RPN, RoIAlign per level, one NMS per class) for one image, in standard operators.
    Boxes are in pixels of the given image, which is padded to the model's divisor inside, so that they are clipped
    where MMDetection clips them. ``labels`` are int64. K is found at run time, at most ``max_per_img``.
    Masks are of the boxes (28×28 in the published detectors): pasting them is left to the
    :class:`nextvit_mm.predict.predictor.Predictor`, which knows the size of the original picture.
    """

    task = 'detection'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        _check_detector(model)
        self.outputs = ('boxes', 'scores', 'labels') + (('masks',) if model.roi_head.with_mask else ())
        self.divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)

    def run(self, image: Tensor) -> tuple[Tensor, ...]:
        # (W, H, W, H); torch._shape_as_tensor keeps sizes as values of the graph, where int() would freeze them.
        limits = torch._shape_as_tensor(image)[2:].flip(0).repeat(2).to(image.dtype)
        bottom, right = ((size + self.divisor - 1) // self.divisor * self.divisor - size for size in image.shape[2:])
        features = self.model.extract_feat(F.pad(image, (0, right, 0, bottom)))
        proposals = self.propose(features, limits)
        boxes, scores, labels = self.detect(features, proposals, limits)
        if not self.model.roi_head.with_mask:
            return boxes, scores, labels
        return boxes, scores, labels, self.segment(features, boxes, labels)

    def propose(self, features: Sequence[Tensor], limits: Tensor) -> Tensor:
        """The RPN's boxes (P, 4): the best of each level, NMS within it, then the best of all levels."""
        head = self.model.rpn_head
        config = head.test_cfg
        logits, deltas = head(features)
        priors = head.prior_generator.grid_priors([level.shape[-2:] for level in logits], device=limits.device)
        boxes, scores = [], []
        for level_logits, level_deltas, level_priors in zip(logits, deltas, priors):
            level_scores, best = top(level_logits[0].permute(1, 2, 0).reshape(-1).sigmoid(), config.nms_pre)
            level_deltas = level_deltas[0].permute(1, 2, 0).reshape(-1, 4)
            level_boxes = _clip(head.bbox_coder.decode(level_priors[best], level_deltas[best]), limits)
            sides = level_boxes[:, 2:] - level_boxes[:, :2]
            large = (sides > max(config.get('min_bbox_size', 0), 0)).all(1)
            level_scores = level_scores.where(large, torch.full((), -1.0))
            kept = non_max_suppression(
                level_boxes[None], level_scores[None], config.nms.iou_threshold, -0.5, config.max_per_img
            )[:, 1]
            boxes.append(level_boxes[kept])
            scores.append(level_scores[kept])
        best = top(torch.cat(scores), config.max_per_img)[1]
        return torch.cat(boxes)[best]

    def detect(self, features: Sequence[Tensor], proposals: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The second stage: boxes (K, 4), scores (K) and labels (K), the best first."""
        roi_head = self.model.roi_head
        head, config = roi_head.bbox_head, roi_head.test_cfg
        logits, deltas = head(self.pool(roi_head.bbox_roi_extractor, features, proposals))
        scores = logits.softmax(1)[:, :-1]  # (P, classes); the last class is the background
        per_box = 1 if head.reg_class_agnostic else head.num_classes
        priors = proposals[:, None].expand(-1, per_box, 4).reshape(-1, 4)
        boxes = _clip(head.bbox_coder.decode(priors, deltas.reshape(-1, 4)), limits)
        boxes = boxes.reshape(-1, per_box, 4).expand(-1, head.num_classes, 4).transpose(0, 1)  # (classes, P, 4)
        picked = non_max_suppression(boxes, scores.t(), config.nms.iou_threshold, config.score_thr, config.max_per_img)
        labels, which = picked[:, 0], picked[:, 1]
        best_scores, best = top(scores[which, labels], config.max_per_img)
        labels, which = labels[best], which[best]
        return boxes[labels, which], best_scores, labels

    def segment(self, features: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """The mask of each box for its class, (K, m, m)."""
        roi_head = self.model.roi_head
        masks = roi_head.mask_head(self.pool(roi_head.mask_roi_extractor, features, boxes)).sigmoid()
        if roi_head.mask_head.class_agnostic:
            return masks[:, 0]
        return masks[torch.arange(labels.shape[0], device=labels.device), labels]

    @staticmethod
    def pool(extractor: nn.Module, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """RoIAlign of each box at the level of its size: (P, 4) -> (P, C, m, m)."""
        from torchvision.ops import roi_align

        rois = torch.cat((boxes.new_zeros(boxes.shape[0], 1), boxes), dim=1)  # all of image 0
        levels = extractor.map_roi_levels(rois, extractor.num_inputs)
        pooled: list[Tensor] = []
        members: list[Tensor] = []
        for i, layer in enumerate(extractor.roi_layers):
            members.append((levels == i).nonzero().squeeze(1))
            pooled.append(
                roi_align(
                    features[i],
                    rois[members[-1]],
                    layer.output_size,
                    layer.spatial_scale,
                    layer.sampling_ratio,
                    layer.aligned,
                )
            )
        return torch.cat(pooled)[torch.cat(members).sort()[1]]  # from level by level back to the order of the boxes


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


def _check_detector(model: nn.Module) -> None:
    """Refuse a detector whose test path is another one than :class:`DetectorGraph`'s."""

    def kind(*path: str) -> str | None:
        part = model
        for name in path:
            part = getattr(part, name, None)
        return None if part is None else type(part).__name__

    expected = {
        ('rpn_head',): 'RPNHead',
        ('roi_head',): 'StandardRoIHead',
        ('rpn_head', 'bbox_coder'): 'DeltaXYWHBBoxCoder',
        ('roi_head', 'bbox_head', 'bbox_coder'): 'DeltaXYWHBBoxCoder',
        ('roi_head', 'bbox_roi_extractor'): 'SingleRoIExtractor',
    }
    for path, wanted in expected.items():
        if kind(*path) != wanted:
            raise UserError(
                f'of detectors, Mask R-CNN and Faster R-CNN can be exported whole; this one has '
                f'{kind(*path) or "nothing"} as {".".join(path)} instead of {wanted}: take --what backbone'
            )
    for name, config in (('rpn', model.rpn_head.test_cfg), ('rcnn', model.roi_head.test_cfg)):
        if config.nms.get('type', 'nms') != 'nms':
            raise UserError(f'model.test_cfg.{name}.nms.type={config.nms.type} has no standard operator: take nms')


def _clip(boxes: Tensor, limits: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), limits)
