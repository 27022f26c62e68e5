"""Two random pictures with what a model of MMDetection, MMSegmentation or MMPretrain learns from them."""

import copy
from typing import Any

import numpy as np
import torch
from mmdet.models import BaseMOTModel, SemiBaseDetector
from mmdet.models.reid import BaseReID
from mmdet.structures import ReIDDataSample
from mmdet.testing import demo_mm_inputs, demo_mm_proposals, demo_track_inputs
from mmengine.structures import PixelData
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import nn

SEED = 0


def make(model: nn.Module, side: int) -> tuple[dict, dict]:
    """What a data loader would give a model: to train, and to test."""
    if isinstance(model, BaseSegmentor):
        both = _segmentation(model, side)
    elif isinstance(model, BaseMOTModel):
        return _video(side, 2), _video(side, 1)
    elif isinstance(model, BaseSelfSupervisor):
        both = _views(model, side)
        return both, dict(both, inputs=both['inputs'][0])
    elif type(model).__module__.startswith('mmpretrain') or hasattr(model, 'head'):
        both = _classification(model, side)
    else:
        both = _detection(model, side)
        if isinstance(model, SemiBaseDetector):
            return _branches(both), both
        return both, {key: copy.deepcopy(values[:1]) for key, values in both.items()}  # as upstream tests
    return both, copy.deepcopy(both)


def _detection(model: nn.Module, side: int) -> dict:
    semantic = getattr(getattr(model, 'roi_head', None), 'semantic_head', None)
    shapes = [(3, side, side)] * 2
    data = demo_mm_inputs(
        2,
        shapes,
        num_items=[3, 2],
        num_classes=4,
        with_mask=any('mask' in type(part).__name__.lower() + name for name, part in model.named_modules()),
        with_semantic=True,
        sem_seg_output_strides=8 if semantic is not None else 1,  # of the head's map
    )
    for sample, proposals in zip(data['data_samples'], demo_mm_proposals(shapes, 20)):
        del proposals.labels
        if not getattr(model, 'with_rpn', True):
            sample.proposals = proposals
    return data


def _branches(data: dict) -> dict:
    """A labelled picture, and another one as the teacher and as the student see it."""
    for sample in data['data_samples']:
        sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    rows: dict[str, Any] = {
        key: dict(
            sup=[values[0], None],
            unsup_teacher=[None, copy.deepcopy(values[1])],
            unsup_student=[None, copy.deepcopy(values[1])],
        )
        for key, values in data.items()
    }
    return rows


def _video(side: int, frames: int) -> dict:
    data = demo_track_inputs(
        1, frames, [0] if frames > 1 else None, (3, side, side), num_items=[3], num_classes=2, with_mask=True
    )
    for video in data['data_samples']:
        for sample in video.video_data_samples:
            sample.set_metainfo(dict(ori_video_length=frames, batch_input_shape=(side, side)))
    return data


def _segmentation(model: nn.Module, side: int) -> dict:
    generator = torch.Generator().manual_seed(SEED)
    samples = []
    for _ in range(2):
        sample = SegDataSample(
            metainfo=dict(
                img_shape=(side, side),
                ori_shape=(side, side),
                pad_shape=(side, side),
                scale_factor=(1.0, 1.0),
                flip=False,
                flip_direction=None,
            )
        )
        labels = torch.randint(0, 2, (1, side // 16, side // 16), generator=generator)
        labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
        sample.gt_sem_seg = PixelData(data=labels)
        sample.gt_edge_map = PixelData(data=(labels != labels.roll(1, -1)).long())
        sample.gt_depth_map = PixelData(data=labels.float() + 1)
        samples.append(sample)
    return dict(inputs=_images(side, generator), data_samples=samples)


def _classification(model: nn.Module, side: int) -> dict:
    person = isinstance(model, BaseReID)  # of pictures twice as high as wide
    images = _images(side, torch.Generator().manual_seed(SEED), 2 if person else 1)
    kind = ReIDDataSample if person else DataSample
    samples = [kind(metainfo=dict(img_shape=one.shape[1:], ori_shape=one.shape[1:])) for one in images]
    for number, sample in enumerate(samples):
        sample.set_gt_label(number)
    return dict(inputs=images, data_samples=samples)


def _views(model: nn.Module, side: int) -> dict:
    """Crops of two pictures, each as often as the model's loss wants them."""
    generator = torch.Generator().manual_seed(SEED)
    crops = getattr(getattr(model.head, 'loss_module', None), 'num_crops', [2])
    views = [torch.stack(_images(side, generator)) for _ in range(sum(crops))]
    return dict(inputs=views, data_samples=[DataSample(), DataSample()])


def _images(side: int, generator: torch.Generator, high: int = 1) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, high * side, side), generator=generator, dtype=torch.uint8) for _ in range(2)]
