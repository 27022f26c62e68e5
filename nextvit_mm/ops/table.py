"""The functions of ``mmcv._ext`` by name, and what happens to those that have no equivalent here."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

import torch
import torchvision

from ..errors import UserError
from . import attention, boxes, deform, losses, masked, reassemble, regions


class Operator(NamedTuple):
    """A function with the name and the arguments that ``mmcv.ops`` calls it with, and the library that computes it."""

    function: Callable
    source: str


def get_compiler_version() -> str:
    """What ``mmcv.utils.collect_env`` prints as mmcv's compiler."""
    return f'none: operators of torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    """What ``mmcv.utils.collect_env`` prints as mmcv's CUDA."""
    return f"torchvision's, for CUDA {torch.version.cuda}" if torch.version.cuda else 'not available'


VISION = (
    boxes.nms,
    regions.roi_align_forward,
    regions.roi_align_backward,
    deform.deform_conv_forward,
    deform.deform_conv_backward_input,
    deform.deform_conv_backward_parameters,
    deform.modulated_deform_conv_forward,
    deform.modulated_deform_conv_backward,
    get_compiler_version,
    get_compiling_cuda_version,
)
TORCH = (
    boxes.softnms,
    boxes.nms_match,
    boxes.bbox_overlaps,
    regions.roi_pool_forward,
    regions.roi_pool_backward,
    regions.deform_roi_pool_forward,
    regions.deform_roi_pool_backward,
    losses.sigmoid_focal_loss_forward,
    losses.sigmoid_focal_loss_backward,
    losses.softmax_focal_loss_forward,
    losses.softmax_focal_loss_backward,
    attention.ms_deform_attn_forward,
    attention.ms_deform_attn_backward,
    masked.masked_im2col_forward,
    masked.masked_col2im_forward,
    masked.psamask_forward,
    masked.psamask_backward,
    reassemble.carafe_forward,
    reassemble.carafe_backward,
    reassemble.carafe_naive_forward,
    reassemble.carafe_naive_backward,
)
OPERATORS: dict[str, Operator] = {
    function.__name__: Operator(function, source)
    for source, functions in (('torchvision', VISION), ('torch', TORCH))
    for function in functions
}


def missing(name: str) -> Callable:
    """For an operator without an equivalent: a function that says so when it is called.

    ``mmcv.ops`` asks for every operator's name when it is imported, long before it calls one.
    """
    if name.startswith('_'):
        raise AttributeError(name)

    def operator(*args, **kwargs):
        raise UserError(
            f"mmcv's operator {name}, which {_caller(sys._getframe(1))} calls, has no equivalent in torch or "
            f'torchvision: install an mmcv with compiled operators for torch {torch.__version__} (mim install mmcv; '
            'in a clone of nextvit_mm: make COMPILED_OPS=1 setup)'
        )

    operator.__name__ = name
    return operator


def _caller(frame: FrameType) -> str:
    """The function that called an operator, such as ``mmcv.ops.nms.nms_rotated``, as far as Python knows it."""
    owner = frame.f_locals.get('self', frame.f_locals.get('ctx'))
    plain = f'{type(owner).__name__}.{frame.f_code.co_name}' if owner is not None else frame.f_code.co_name
    return f'{frame.f_globals.get("__name__", "?")}.{getattr(frame.f_code, "co_qualname", plain)}'
