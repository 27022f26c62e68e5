"""From a model to the network that is exported: one image tensor in, arrays out, no MM structure in between.

The networks run the MM model's own modules; what comes after them in MMDetection is written here with operations that
every exporter knows. Inputs are (B, 3, H, W), normalised, or colors from 0 to 255 where the network normalises itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError

TASKS = ('backbone', 'classification', 'segmentation', 'detection')
WHOLE = 'it cannot be exported whole, take --what backbone'


class Graph(nn.Module, ABC):
    """What is exported.

    Attributes:
        task (str): One of :data:`TASKS`.
        outputs (tuple[str]): Names of the outputs.
    """

    task: str
    outputs: tuple[str, ...]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer('mean', None)
        self.register_buffer('std', None)

    def normalize_inside(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take colors from 0 to 255, and normalise them first."""
        self.mean, self.std = (torch.tensor(value).view(1, -1, 1, 1) for value in (mean, std))

    def forward(self, image: Tensor):
        return self.run(image if self.mean is None else (image - self.mean) / self.std)

    @abstractmethod
    def run(self, image: Tensor):
        """The network itself, on a normalised image: as many tensors as :attr:`outputs`, or that one."""


class BackboneGraph(Graph):
    """Image -> the feature maps, ``stage1`` … in the order of ``out_indices``."""

    task = 'backbone'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.outputs = tuple(f'stage{i + 1}' for i in model.out_indices)

    def run(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.model(image)


class ClassifierGraph(Graph):
    """Image -> ``scores`` (B, classes): of one class a picture, which add up to 1, or of many labels, each in [0, 1].

    Attributes:
        multi_label (dict | None): Of many labels, the ``threshold`` from which or the number ``top`` of which count.
    """

    task = 'classification'
    outputs = ('scores',)

    def __init__(self, model: nn.Module) -> None:
        from mmpretrain.models.heads import ClsHead, MultiLabelClsHead

        super().__init__(model)
        head, kind = model.head, type(model.head)
        many = isinstance(head, MultiLabelClsHead)
        base = MultiLabelClsHead if many else ClsHead
        own = [name for name in ('predict', '_get_predictions') if getattr(kind, name, None) is not getattr(base, name)]
        if own:
            raise UserError(f'{kind.__name__} predicts in a way of its own: {WHOLE}')
        if not many and getattr(head, 'num_classes', 2) == 1:
            raise UserError(f'{kind.__name__} has one class, whose score is 1 for every picture: train with two')
        self.multi_label = dict(threshold=head.thr, top=head.topk) if many else None

    def run(self, image: Tensor) -> Tensor:
        logits = self.model.head(self.model.extract_feat(image))
        return logits.softmax(1) if self.multi_label is None else logits.sigmoid()


class SegmentorGraph(Graph):
    """Image -> ``class_map`` (B, H, W), int64, at the size of the image.

    One decode head, or a cascade of them. One output channel is a foreground, 1 where it is above the head's threshold.
    """

    task = 'segmentation'
    outputs = ('class_map',)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        _check_segmentor(model)
        heads = model.decode_head
        self.heads = list(heads) if isinstance(heads, nn.ModuleList) else [heads]
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                    setattr(module, name, ExportableAdaptiveAvgPool2d(child.output_size))
                elif type(child).__module__.startswith('mmseg') and type(child).__name__ == 'Upsample':
                    setattr(module, name, _exportable_upsample(child))

    def run(self, image: Tensor) -> Tensor:
        features = self.model.extract_feat(image)
        logits = self.heads[0](features)
        for head in self.heads[1:]:
            logits = head(features, logits)
        logits = F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=self.model.align_corners)
        if self.model.out_channels == 1:
            return (logits[:, 0].sigmoid() > self.heads[-1].threshold).long()
        return logits.argmax(1)


def _check_segmentor(model: nn.Module) -> None:
    """Refuse a segmentor whose ``predict`` is another one than :class:`SegmentorGraph`'s."""
    from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder

    kind = type(model)
    whole = (EncoderDecoder.encode_decode, CascadeEncoderDecoder.encode_decode)
    if not isinstance(model, EncoderDecoder) or kind.encode_decode not in whole:
        raise UserError(f'{kind.__name__} predicts in a way of its own: {WHOLE}')
    if kind.predict is not EncoderDecoder.predict:
        raise UserError(f'{kind.__name__} predicts in a way of its own: {WHOLE}')
    cascade = isinstance(model.decode_head, nn.ModuleList)
    last = type(model.decode_head[-1] if cascade else model.decode_head)
    base = BaseCascadeDecodeHead if cascade else BaseDecodeHead
    if last.predict is not base.predict or last.predict_by_feat is not base.predict_by_feat:
        raise UserError(f'{last.__name__} predicts in a way of its own, such as by queries or points: {WHOLE}')
    if cascade and model.out_channels == 1:
        raise UserError('MMSegmentation itself cannot predict with several decode heads of one output channel')
    if model.test_cfg.get('mode', 'whole') != 'whole':
        raise UserError(
            'a segmentor that is tested in sliding windows cannot be exported whole: set '
            'model.test_cfg.mode=whole, or export --what backbone'
        )
    if getattr(model.data_preprocessor, 'test_cfg', None):
        raise UserError(f'data_preprocessor.test_cfg pads pictures, which a segmentor exported whole does not: {WHOLE}')


class ExportableAdaptiveAvgPool2d(nn.Module):
    """What ``nn.AdaptiveAvgPool2d`` does, as two products with pooling matrices.

    Exporters know torch's only for sizes that the output divides, and PSP pools 16 rows to 3 and 6.
    """

    def __init__(self, output_size) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self.pooling_matrix(x.shape[axis], out, x) for axis, out in zip((2, 3), self.output_size))
        return rows @ x @ columns.t()  # (out, H) @ (B, C, H, W) @ (W, out)

    @staticmethod
    def pooling_matrix(size: int, out: int, like: Tensor) -> Tensor:
        """(out, size): row i averages over pixels ⌊i·size/out⌋ to ⌈(i+1)·size/out⌉ − 1."""
        cells = torch.arange(out, device=like.device)
        pixels = torch.arange(size, device=like.device)
        first, end = cells * size // out, ((cells + 1) * size + out - 1) // out
        inside = (pixels >= first[:, None]).to(like.dtype) * (pixels < end[:, None]).to(like.dtype)
        return inside / inside.sum(1, keepdim=True)


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


def _exportable_upsample(upsample: nn.Module) -> nn.Module:
    """MMSegmentation's, which rounds its output's size to a constant, as torch's, which takes the factor."""
    if upsample.size or not float(upsample.scale_factor).is_integer():
        return upsample
    return nn.Upsample(
        scale_factor=float(upsample.scale_factor), mode=upsample.mode, align_corners=upsample.align_corners
    )


def make_graph(model: nn.Module, what: str) -> Graph:
    """The network that is exported of a (folded) MM model.

    Args:
        model: Detector, segmentor, classifier, or a backbone.
        what: ``'backbone'`` or ``'model'``.

    Raises:
        UserError: There is no export for this kind of model.
    """
    if what == 'backbone':
        return BackboneGraph(getattr(model, 'backbone', model)).eval()
    if hasattr(model, 'roi_head') or hasattr(model, 'bbox_head'):
        return DetectorGraph(model).eval()
    if hasattr(model, 'decode_head'):
        return SegmentorGraph(model).eval()
    if hasattr(model, 'head'):
        return ClassifierGraph(model).eval()
    raise UserError(f'{type(model).__name__} cannot be exported whole: take --what backbone')


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
