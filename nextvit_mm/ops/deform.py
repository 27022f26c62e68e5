"""Deformable convolution (arXiv 1703.06211), and with modulation (1811.11168), by torchvision.

The names and arguments are mmcv's. Offsets are (N, 2 * deformable_group * kH * kW, H_out, W_out), y before x, in pixels
of the input; the mask is (N, deformable_group * kH * kW, H_out, W_out). mmcv's scratch tensors ``columns`` and ``ones``
are not filled, and ``im2col_step`` changes nothing: torchvision picks its own.

Modulated offsets and masks may be those of a larger map, as DyHead hands them over: mmcv's kernel then reads each
picture's first values as if they were of the output's size, and so do these.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .precision import wide

GRADIENT = '_nextvit_mm_weight_gradient'
OUTSIDE = 1e6  # pixels from any place of a map


def _settings(kwargs: dict) -> tuple[int, ...]:
    """Stride, padding, dilation (each y, x), groups and deformable groups, from mmcv's names of either version."""
    if 'dW' in kwargs:
        names: Sequence[str] = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
    else:
        names = ('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'group', 'deformable_group')
    return tuple(kwargs[name] for name in names)


def _places(offset: Tensor) -> Tensor:
    """Offsets of which NaN and infinity point out of the map, where mmcv's kernels find zeros.

    torchvision's kernels would read memory outside the map, and the process would end in a segmentation fault.
    """
    return wide(offset).nan_to_num(nan=OUTSIDE, posinf=OUTSIDE, neginf=-OUTSIDE)


def _no_mask(input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What torchvision wants in the place of a mask and a bias that are not used."""
    return input.new_zeros(len(input), 1), input.new_zeros(len(weight))


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **kwargs
) -> None:
    """Fill ``output`` (N, C_out, H_out, W_out)."""
    input, weight, offset = wide(input), wide(weight), _places(offset)
    output.copy_(
        torch.ops.torchvision.deform_conv2d(input, weight, offset, *_no_mask(input, weight), *_settings(kwargs), False)
    )


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **kwargs,
) -> None:
    """Fill the gradients of the input and of the offset.

    torchvision computes the weight's at the same time. mmcv asks for that in a second call, to which it hands the same
    scratch tensor ``columns``: it waits there.
    """
    gradients = _backward(input, offset, grad_output, weight, kwargs)
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[2])
    setattr(columns, GRADIENT, gradients[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float = 1,
    **kwargs,
) -> None:
    """Fill the gradient of the weight."""
    gradient = columns.__dict__.pop(GRADIENT, None)
    if gradient is None:  # neither the input nor the offset wanted one; this gradient does not depend on the weight
        gradient = _backward(input, offset, grad_output, grad_weight, kwargs)[1]
    grad_weight.copy_(gradient * scale)


def _backward(input: Tensor, offset: Tensor, grad_output: Tensor, weight: Tensor, kwargs: dict) -> tuple[Tensor, ...]:
    input, offset, grad_output, weight = wide(input), _places(offset), wide(grad_output), wide(weight)
    return torch.ops.torchvision._deform_conv2d_backward(
        grad_output, input, weight, offset, *_no_mask(input, weight), *_settings(kwargs), False
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **kwargs,
) -> None:
    """Fill ``output`` (N, C_out, H_out, W_out)."""
    bias = wide(bias) if with_bias else wide(input).new_zeros(len(weight))
    size = output.shape[-2:]
    output.copy_(
        torch.ops.torchvision.deform_conv2d(
            wide(input),
            wide(weight),
            _places(_read(offset, size)),
            wide(_read(mask, size)),
            bias,
            *_settings(kwargs),
            True,
        )
    )


def _read(values: Tensor, size: Sequence[int]) -> Tensor:
    """The first values of each picture, as (N, C, *size)."""
    if values.shape[-2:] == tuple(size):
        return values
    channels, (height, width) = values.shape[1], size
    if height * width > values.shape[-2] * values.shape[-1]:
        raise ValueError(f'offsets and masks of {tuple(values.shape[-2:])} are too few for an output of {tuple(size)}')
    return values.flatten(1)[:, : channels * height * width].reshape(-1, channels, height, width)


def _write(target: Tensor, values: Tensor) -> None:
    """The reverse of :func:`_read`: what was not read has no gradient."""
    if target.shape == values.shape:
        target.copy_(values)
        return
    flat = target.new_zeros(len(target), target[0].numel())
    flat[:, : values[0].numel()] = values.flatten(1)
    target.copy_(flat.view_as(target))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **kwargs,
) -> None:
    """Fill the gradients of the input, the weight, the offset, the mask and, where there is one, the bias."""
    full = wide(bias) if with_bias else wide(input).new_zeros(len(weight))
    offset, mask = _read(offset, grad_output.shape[-2:]), _read(mask, grad_output.shape[-2:])
    gradients = torch.ops.torchvision._deform_conv2d_backward(
        wide(grad_output), wide(input), wide(weight), _places(offset), wide(mask), full, *_settings(kwargs), True
    )
    for target, gradient in zip((grad_input, grad_weight, grad_offset, grad_mask), gradients):
        _write(target, gradient)
    if with_bias:
        grad_bias.copy_(gradients[4])
