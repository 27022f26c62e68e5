"""Segmentors as networks that are exported."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .graph import WHOLE, Graph


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
        self.class_count = self.heads[-1].num_classes
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


def _exportable_upsample(upsample: nn.Module) -> nn.Module:
    """MMSegmentation's, which rounds its output's size to a constant, as torch's, which takes the factor."""
    if upsample.size or not float(upsample.scale_factor).is_integer():
        return upsample
    return nn.Upsample(
        scale_factor=float(upsample.scale_factor), mode=upsample.mode, align_corners=upsample.align_corners
    )
