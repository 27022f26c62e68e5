"""Multi-scale deformable attention (arXiv 2010.04159) by ``torch.nn.functional.grid_sample``."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .precision import wide


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    locations: Tensor,
    weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """The attention's output (B, queries, heads * channels).

    Args:
        value: (B, sum of H * W, heads, channels), the levels one after the other.
        spatial_shapes: (levels, 2), H and W of each.
        locations: (B, queries, heads, levels, points, 2), x and y in 0…1.
        weights: (B, queries, heads, levels, points).
        im2col_step: mmcv's; changes nothing here.
    """
    return _attend(wide(value), spatial_shapes, wide(locations), wide(weights)).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    im2col_step: int,
) -> None:
    """Fill the gradients of value, locations and weights."""
    inputs = [wide(tensor).detach().requires_grad_() for tensor in (value, locations, weights)]
    with torch.enable_grad():
        output = _attend(inputs[0], spatial_shapes, *inputs[1:])
    gradients = torch.autograd.grad(output, inputs, wide(grad_output).view_as(output))
    for target, gradient in zip((grad_value, grad_locations, grad_weights), gradients):
        target.copy_(gradient)


def _attend(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    sizes = spatial_shapes.tolist()
    output = value.new_zeros(batch * heads, channels, queries)
    for level, part in enumerate(value.split([height * width for height, width in sizes], 1)):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, channels, *sizes[level])
        grid = _heads_first(locations[:, :, :, level]) * 2 - 1  # (B * heads, queries, points, 2)
        sampled = grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
        share = _heads_first(weights[:, :, :, level]).view(batch * heads, 1, queries, points)
        output = output + (sampled * share).sum(-1)
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()


def _heads_first(tensor: Tensor) -> Tensor:
    """(B, queries, heads, …) -> (B * heads, queries, …)"""
    shape: tuple[int, ...] = tensor.shape
    return tensor.transpose(1, 2).reshape(shape[0] * shape[2], shape[1], *shape[3:])
