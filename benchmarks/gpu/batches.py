"""One random batch as a recipe's loader gives it, to train with."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from torch import nn

DETECTION = (800, 1216)  # the mean width of COCO's pictures at this height, to whole strides
CROP, CLASSIFICATION = (512, 512), (224, 224)
OBJECTS = 7  # of a picture, as COCO's have on average


def make_batch(network: nn.Module, pictures: int, scale: float = 1.0) -> dict[str, Any]:
    """Inputs and samples for a detector, a segmentor or a classifier.

    Args:
        network: Which of them it is.
        pictures: In the batch.
        scale: Of the recipe's sides, which stay multiples of 32.
    """
    draw = np.random.default_rng(0)
    if hasattr(network, 'roi_head'):
        size, make = DETECTION, _detection
    elif hasattr(network, 'decode_head'):
        size, make = CROP, _segmentation
    else:
        size, make = CLASSIFICATION, _classification
    height, width = (max(int(side * scale) // 32, 1) * 32 for side in size)
    images = [torch.from_numpy(draw.integers(0, 256, (3, height, width), dtype=np.uint8)) for _ in range(pictures)]
    samples = [make(draw, height, width) for _ in range(pictures)]
    return dict(inputs=torch.stack(images) if make is _classification else images, data_samples=samples)


def _detection(draw: np.random.Generator, height: int, width: int):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import PolygonMasks

    low = draw.uniform(0, 0.7, (OBJECTS, 2)) * (width, height)
    high = low + draw.uniform(0.05, 0.29, (OBJECTS, 2)) * (width, height)
    boxes = np.concatenate([low, high], 1).astype(np.float32)
    polygons = [[np.array([x1, y1, x2, y1, x2, y2, x1, y2], np.float32)] for x1, y1, x2, y2 in boxes]
    sample = DetDataSample(
        metainfo=dict(_shapes(height, width), batch_input_shape=(height, width), scale_factor=(1.0, 1.0), flip=False)
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(draw.integers(0, 80, OBJECTS)),
        masks=PolygonMasks(polygons, height, width),
    )
    return sample


def _segmentation(draw: np.random.Generator, height: int, width: int):
    from mmseg.structures import SegDataSample

    labels = torch.from_numpy(draw.integers(0, 150, (1, height // 16, width // 16)))
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    return SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=_shapes(height, width))


def _classification(draw: np.random.Generator, height: int, width: int):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(int(draw.integers(0, 1000)))


def _shapes(height: int, width: int) -> dict[str, tuple[int, int]]:
    return {name: (height, width) for name in ('img_shape', 'ori_shape', 'pad_shape')}
