"""CARAFE (arXiv 1905.02188): each output pixel is a weighted sum of k * k pixels of the input around its own.

The sum over k * k is a loop, so that no tensor is larger than the output. mmcv has two forms that compute the same.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from .precision import wide


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """Fill ``output`` (N, C, sH, sW) from features (N, C, H, W) and masks (N, groups * k * k, sH, sW)."""
    weights = _split(wide(masks), group_size, scale_factor)
    total = _split(torch.zeros_like(output, dtype=weights.dtype), group_size, scale_factor)
    for index, window in _windows(wide(features), kernel_size, group_size):
        total.addcmul_(window[..., None, :, None], weights[:, :, index : index + 1])
    output.copy_(total.reshape(output.shape))


def carafe_naive_backward(
    grad_output: Tensor,
    features: Tensor,
    masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Fill the gradients of the features and of the masks."""
    height, width = features.shape[-2:]
    reach = (kernel_size - 1) // 2
    gradient = _split(wide(grad_output), group_size, scale_factor)
    weights = _split(wide(masks), group_size, scale_factor)
    by_masks = torch.zeros_like(weights)
    by_features = pad(wide(torch.zeros_like(features)), [reach] * 4)
    for index, window in _windows(wide(features), kernel_size, group_size):
        place = slice(index, index + 1)
        by_masks[:, :, place] = (gradient * window[..., None, :, None]).sum(2, keepdim=True)
        top, left = divmod(index, kernel_size)
        share = (gradient * weights[:, :, place]).sum((4, 6))
        by_features[..., top : top + height, left : left + width] += share.reshape(features.shape)
    grad_input.copy_(by_features[..., reach : reach + height, reach : reach + width])
    grad_masks.copy_(by_masks.reshape(masks.shape))


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """The same; ``rfeatures`` keeps the features for the backward pass, the other scratch tensors stay empty."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """The same, with mmcv's scratch tensors."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size, group_size, scale_factor)


def _split(tensor: Tensor, groups: int, scale: int) -> Tensor:
    """(N, groups * D, s * H, s * W) -> (N, groups, D, H, s, W, s)"""
    batch, depth, height, width = tensor.shape
    return tensor.view(batch, groups, depth // groups, height // scale, scale, width // scale, scale)


def _windows(features: Tensor, kernel: int, groups: int) -> Iterator[tuple[int, Tensor]]:
    """For each place of the kernel, row by row: its index, and the features under it, (N, groups, C / groups, H, W)."""
    batch, channels, height, width = features.shape
    padded = pad(features, [(kernel - 1) // 2] * 4)
    for index in range(kernel**2):
        top, left = divmod(index, kernel)
        window = padded[..., top : top + height, left : left + width]
        yield index, window.reshape(batch, groups, channels // groups, height, width)
