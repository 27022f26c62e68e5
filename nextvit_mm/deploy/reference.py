"""What the trained MM model makes of a picture file, through its own test pipeline and its own ``predict``."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor, nn

from ..errors import UserError
from ..predict.predictor import About
from .pictures import size_of
from .steps import Plan


class Seen(NamedTuple):
    """Of one picture.

    Attributes:
        tensor: What MM's pipeline makes of the file, normalised, without padding: (C, H, W).
        results: As those of :class:`nextvit_mm.predict.predictor.Predictor`; ``masks`` (K, H, W) are probabilities in
            255ths. A segmentor has ``input_map``, too: its class map at the size of the input.
    """

    tensor: np.ndarray
    results: dict[str, Any]


def see(model: nn.Module, task: str, planned: Plan, path: str | Path) -> Seen:
    """The results of the trained model for a picture file, in pixels of that picture."""
    batch = batch_of(model, planned, path)
    meta = batch['data_samples'][0].metainfo
    height, width = meta['img_shape'][:2]
    tensor = batch['inputs'][0, :, :height, :width].numpy().copy()
    if planned.canvas:
        _put_on_canvas(batch, planned.canvas, task, model.data_preprocessor)
    with torch.no_grad():
        return Seen(tensor, RESULTS[task](model, batch, tensor, planned))


def batch_of(model: nn.Module, planned: Plan, path: str | Path) -> dict[str, Any]:
    """A picture file through MM's pipeline and preprocessor: ``inputs`` and ``data_samples``."""
    data = Compose(planned.pipeline_of(size_of(path, planned.read)))(dict(img_path=str(path), img_id=0, seg_fields=[]))
    if 'data_samples' not in data:
        raise UserError("the test pipeline ends without MM's packing step, such as PackDetInputs: put it at the end")
    sample = data['data_samples']
    if 'scale_factor' not in sample.metainfo and all(step['do'] != 'resize' for step in planned.steps):
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    for key in ('img_shape', 'ori_shape', 'scale_factor'):
        if key not in sample.metainfo:
            raise UserError(f"the test pipeline's packing step leaves {key} out of meta_keys: add it")
    return model.data_preprocessor(pseudo_collate([data]), False)


def _put_on_canvas(batch: dict[str, Any], canvas: list[int], task: str, preprocessor: nn.Module) -> None:
    """Pad to a height and width, as MM's ``Pad`` would: the picture then has that size for the model."""
    sample = batch['data_samples'][0]
    height, width = sample.metainfo['img_shape'][:2]
    bottom, right = canvas[0] - height, canvas[1] - width
    image = F.pad(batch['inputs'][:, :, :height, :width], (0, right, 0, bottom))
    if task == 'detection':
        divisor, value = getattr(preprocessor, 'pad_size_divisor', 1), getattr(preprocessor, 'pad_value', 0)
        image = F.pad(image, (0, -canvas[1] % divisor, 0, -canvas[0] % divisor), value=value)
        sample.set_metainfo(dict(img_shape=tuple(canvas), batch_input_shape=tuple(image.shape[2:])))
    else:
        sample.set_metainfo(dict(img_padding_size=[0, right, 0, bottom], pad_shape=tuple(canvas)))
    batch['inputs'] = image


def _backbone(model: nn.Module, batch: dict, tensor: np.ndarray, planned: Plan) -> dict[str, Any]:
    image = batch['inputs'] if planned.canvas else torch.from_numpy(tensor)[None]
    return dict(maps=[stage.numpy() for stage in model.backbone(image)])


def _classes(model: nn.Module, batch: dict, *_: Any) -> dict[str, Any]:
    sample = model.predict(batch['inputs'], batch['data_samples'])[0]
    return dict(scores=sample.pred_score.numpy(), labels=sample.pred_label.numpy())


def _class_map(model: nn.Module, batch: dict, *_: Any) -> dict[str, Any]:
    def predict() -> np.ndarray:
        found = model.predict(batch['inputs'], batch['data_samples'])[0].pred_sem_seg.data
        return found[0].numpy().astype(np.int64)

    sample = batch['data_samples'][0]
    class_map, original = predict(), sample.metainfo['ori_shape']
    sample.set_metainfo(dict(ori_shape=sample.metainfo['img_shape'][:2]))
    return dict(class_map=class_map, input_map=class_map if original[:2] == sample.ori_shape else predict())


def _detections(model: nn.Module, batch: dict, *_: Any) -> dict[str, Any]:
    with _masks_before_the_threshold(model), _masks_of_boxes_outside():
        sample = model.predict(batch['inputs'], batch['data_samples'], rescale=True)[0]
    found, (height, width) = sample.pred_instances, sample.metainfo['ori_shape'][:2]
    names = dict(boxes='bboxes', scores='scores', labels='labels', masks='masks')
    results = {ours: found[theirs].numpy() for ours, theirs in names.items() if theirs in found}
    # Where the pipeline pads, MM's boxes may lie in the padding, which the predictor leaves out, or reach into it.
    seen = (results['boxes'][:, :2] <= (width, height)).all(1)
    results = {name: values[seen] for name, values in results.items()}
    results['boxes'] = results['boxes'].clip(0, np.array(2 * [width, height], np.float32))
    return results


@contextlib.contextmanager
def _masks_before_the_threshold(model: nn.Module) -> Iterator[None]:
    """MMDetection then gives probabilities in 255ths."""
    config = getattr(getattr(model, 'roi_head', None), 'test_cfg', None)
    if config is None or 'mask_thr_binary' not in config:
        yield
        return
    threshold = config.mask_thr_binary
    config.mask_thr_binary = -1
    try:
        yield
    finally:
        config.mask_thr_binary = threshold


@contextlib.contextmanager
def _masks_of_boxes_outside() -> Iterator[None]:
    """On a CPU, MMDetection's pasting fails at a box that lies in the padding as a whole; its mask is empty."""
    from mmdet.models.roi_heads.mask_heads import fcn_mask_head

    usual = fcn_mask_head._do_paste_mask

    def paste(masks: Tensor, boxes: Tensor, height: int, width: int, skip_empty: bool = True) -> tuple:
        inside = (boxes[:, :2].min(0).values < boxes.new_tensor([width, height])).all()
        return usual(masks, boxes, height, width, skip_empty=skip_empty and bool(inside))

    with mock.patch.object(fcn_mask_head, '_do_paste_mask', paste):
        yield


RESULTS = dict(backbone=_backbone, classification=_classes, segmentation=_class_map, detection=_detections)


def as_colors(tensor: np.ndarray | Tensor, about: About, normalized: bool = True) -> np.ndarray:
    """An input (C, H, W) in colors from 0 to 255."""
    mean, std = (np.array(about['input'][key], np.float32).reshape(-1, 1, 1) for key in ('mean', 'std'))
    return np.asarray(tensor) * std + mean if normalized else np.asarray(tensor)
