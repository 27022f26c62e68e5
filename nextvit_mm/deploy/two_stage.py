"""Two-stage detectors as networks that are exported: Faster, Mask and Cascade R-CNN."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from .boxes import ANY_SCORE, clip, non_max_suppression, top, without_small
from .detectors import DetectorGraph, check_coder, check_kind, check_methods, check_nms, check_values
from .graph import WHOLE


class TwoStageGraph(DetectorGraph):
    """RPN, RoIAlign per level, one head or a cascade of them, one NMS per class; and ``masks`` (K, m, m) in [0, 1].

    Masks are of the boxes (28×28 in the published detectors): pasting them is left to the
    :class:`nextvit_mm.predict.predictor.Predictor`, which knows the size of the original picture.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        _check(model)
        roi_head = model.roi_head
        self.test_cfg = roi_head.test_cfg
        self.box_stages = _stages(roi_head.bbox_roi_extractor, roi_head.bbox_head)
        self.class_count = self.box_stages[-1][1].num_classes
        self.mask_stages = _stages(roi_head.mask_roi_extractor, roi_head.mask_head) if roi_head.with_mask else []
        if self.mask_stages:
            self.outputs = (*self.outputs, 'masks')

    def find(self, features: Sequence[Tensor], limits: Tensor) -> tuple[Tensor, ...]:
        boxes, scores, labels = self.detect(features, self.propose(features, limits), limits)
        if not self.mask_stages:
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
            level_boxes = clip(head.bbox_coder.decode(level_priors[best], level_deltas[best]), limits)
            if config.get('min_bbox_size', -1) >= 0:
                level_scores = without_small(level_scores, level_boxes, config.min_bbox_size)
            kept = non_max_suppression(
                level_boxes[None], level_scores[None], config.nms.iou_threshold, ANY_SCORE, config.max_per_img
            )[:, 1]
            boxes.append(level_boxes[kept])
            scores.append(level_scores[kept])
        best = top(torch.cat(scores), config.max_per_img)[1]
        return torch.cat(boxes)[best]

    def detect(self, features: Sequence[Tensor], boxes: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From proposals (P, 4) to boxes (K, 4), scores (K) and labels (K), the best first."""
        total: Tensor | None = None  # the sum of the stages' logits
        for i, (extractor, head) in enumerate(self.box_stages):
            pooled, order = self.pool(extractor, features, boxes)
            boxes = boxes[order]  # four numbers of each move, and not its pooled maps
            logits, deltas = head(pooled)
            total = logits if total is None else total[order] + logits
            if i < len(self.box_stages) - 1:
                boxes = self.refine(head, boxes, logits, deltas, limits)
        scores = (total / len(self.box_stages)).softmax(1)[:, :-1]  # (P, classes); the last class is the background
        return self.pick(head, boxes, scores, deltas, limits)

    @staticmethod
    def refine(head: nn.Module, boxes: Tensor, logits: Tensor, deltas: Tensor, limits: Tensor) -> Tensor:
        """The boxes (P, 4) of a cascade's next stage: moved as the best class wants it."""
        if not head.reg_class_agnostic:
            labels = logits[:, :-1].argmax(1)
            places = labels[:, None, None].expand(-1, 1, 4)
            deltas = deltas.reshape(-1, head.num_classes, 4).gather(1, places)[:, 0]
        return clip(head.bbox_coder.decode(boxes, deltas), limits)

    def pick(
        self, head: nn.Module, boxes: Tensor, scores: Tensor, deltas: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The last stage's decoding and NMS: boxes (K, 4), scores (K) and labels (K), the best first."""
        config, classes = self.test_cfg, head.num_classes
        per_box = 1 if head.reg_class_agnostic else classes
        priors = boxes[:, None].expand(-1, per_box, 4).reshape(-1, 4)
        boxes = clip(head.bbox_coder.decode(priors, deltas.reshape(-1, 4)), limits)
        boxes = boxes.reshape(-1, per_box, 4).expand(-1, classes, 4).transpose(0, 1)  # (classes, P, 4)
        picked = non_max_suppression(boxes, scores.t(), config.nms.iou_threshold, config.score_thr, config.max_per_img)
        labels, which = picked[:, 0], picked[:, 1]
        best_scores, best = top(scores[which, labels], config.max_per_img)
        labels, which = labels[best], which[best]
        return boxes[labels, which], best_scores, labels

    def segment(self, features: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """The mask of each box for its class, (K, m, m): of a cascade the mean of the stages."""
        total: Tensor | None = None
        for extractor, head in self.mask_stages:
            pooled, order = self.pool(extractor, features, boxes)
            masks = _masks(head, pooled, labels[order])[order.sort()[1]]
            total = masks if total is None else total + masks
        return total / len(self.mask_stages)

    @staticmethod
    def pool(extractor: nn.Module, features: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """RoIAlign of boxes (P, 4), each at the level of its size.

        Returns:
            tuple: Pooled maps (P, C, m, m), level by level, and which box each of them is of, (P).
        """
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
        return torch.cat(pooled), torch.cat(members)


def _stages(extractors: nn.Module, heads: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of an extractor and a head: one, or those of a cascade."""
    if isinstance(heads, nn.ModuleList):
        return list(zip(extractors, heads))
    return [(extractors, heads)]


def _masks(head: nn.Module, pooled: Tensor, labels: Tensor) -> Tensor:
    """Of pooled maps (K, C, m, m) the mask of each for its label, (K, M, M) in [0, 1].

    The last layer has a filter for every class; only that of the label is applied.
    """
    last = head.conv_logits
    if head.class_agnostic or last.kernel_size != (1, 1) or last.bias is None:
        masks = head(pooled)
        one = masks[:, 0] if head.class_agnostic else masks[torch.arange(labels.shape[0], device=labels.device), labels]
        return one.sigmoid()
    for conv in head.convs:
        pooled = conv(pooled)
    if head.upsample is not None:
        pooled = head.upsample(pooled)
        if head.upsample_method == 'deconv':
            pooled = head.relu(pooled)
    # Not as a matrix product: its reshaping fails in ONNX Runtime where there are no boxes.
    logits = (pooled * last.weight[labels]).sum(1) + last.bias[labels][:, None, None]
    return logits.sigmoid()


def _check(model: nn.Module) -> None:
    """Refuse a detector whose test path is another one than :class:`TwoStageGraph`'s."""
    from mmdet.models.detectors import TwoStageDetector
    from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
    from mmdet.models.roi_heads.bbox_heads import BBoxHead
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    check_methods(model, TwoStageDetector, 'predict', 'extract_feat')
    if not model.with_rpn:
        raise UserError(f'{type(model).__name__} takes its boxes from a file, and has no rpn_head: {WHOLE}')
    check_kind(model.rpn_head, 'rpn_head', 'RPNHead')
    if not model.rpn_head.use_sigmoid_cls:
        raise UserError('rpn_head.loss_cls.use_sigmoid=False is not exported: take --what backbone')
    check_coder(model.rpn_head.bbox_coder, 'rpn_head.bbox_coder', 'DeltaXYWHBBoxCoder')
    roi_head = model.roi_head
    cascade = isinstance(roi_head, CascadeRoIHead)
    check_methods(
        roi_head,
        CascadeRoIHead if cascade else StandardRoIHead,
        *('predict', 'predict_bbox', 'predict_mask', '_bbox_forward', '_mask_forward'),
        *(['_refine_roi'] if cascade else []),
    )
    if roi_head.with_shared_head:
        raise UserError('this detector has a shared_head, whose test path is not exported: take --what backbone')
    for extractor, head in _stages(roi_head.bbox_roi_extractor, roi_head.bbox_head):
        _check_extractor(extractor, 'roi_head.bbox_roi_extractor')
        check_methods(head, BBoxHead, 'predict_by_feat', '_predict_by_feat_single', 'regress_by_class')
        check_coder(head.bbox_coder, 'roi_head.bbox_head.bbox_coder', 'DeltaXYWHBBoxCoder')
        if head.custom_activation:
            raise UserError(f'{type(head.loss_cls).__name__} makes scores in a way of its own: take --what backbone')
        if not (head.with_cls and head.with_reg):
            raise UserError(f'{type(head).__name__} lacks scores or boxes: take --what backbone')
    for extractor, head in _stages(roi_head.mask_roi_extractor, roi_head.mask_head) if roi_head.with_mask else ():
        _check_extractor(extractor, 'roi_head.mask_roi_extractor')
        check_methods(head, FCNMaskHead, 'forward', 'predict_by_feat', '_predict_by_feat_single')
    check_nms(model.rpn_head.test_cfg, 'rpn', 'nms_pre', 'max_per_img')
    check_nms(roi_head.test_cfg, 'rcnn', 'max_per_img')
    check_values(roi_head.test_cfg, 'rcnn', 'score_thr', *(['mask_thr_binary'] if roi_head.with_mask else []))


def _check_extractor(extractor: nn.Module, name: str) -> None:
    check_kind(extractor, name, 'SingleRoIExtractor')
    for layer in extractor.roi_layers:
        check_kind(layer, f'{name}.roi_layer', 'RoIAlign')
        if layer.pool_mode != 'avg':
            raise UserError(f'{name}.roi_layer.pool_mode={layer.pool_mode} is not exported: take avg')
