"""The functions of ``mmcv._ext``, with its names and arguments, computed by torchvision and torch."""
from typing import Callable

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

vision = torch.ops.torchvision


def find(name: str) -> Callable:
    """The operator of a name; of one that has no equivalent here, a function that says so when it is called."""
    if name.startswith('__'):
        raise AttributeError(name)
    if name in OPERATORS:
        return OPERATORS[name]

    def missing(*args, **kwargs):
        raise RuntimeError(f'mmcv\'s operator {name} has no equivalent in torch or torchvision: install an mmcv with '
                           'compiled operators')
    return missing


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that stay; with ``offset`` 1 a box from 0 to 1 is two pixels wide."""
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return vision.nms(boxes, scores, iou_threshold)


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    if pool_mode == 0:
        raise RuntimeError('RoIAlign with max pooling has no equivalent in torchvision')
    output.copy_(vision.roi_align(input, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    grad_input.copy_(vision._roi_align_backward(grad_output, rois, spatial_scale, aligned_height, aligned_width,
                                                *grad_input.shape, sampling_ratio, aligned))


OPERATORS = dict(nms=nms, roi_align_forward=roi_align_forward, roi_align_backward=roi_align_backward)
