"""Sampling a feature map at points, by RoIAlign's rules and in torch alone.

Behind the operators that torchvision lacks, and a second opinion on those that it has (``benchmarks/operators.py``).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Corners(NamedTuple):
    """The four pixels around each of P points: their places in a flattened map (4, P), and their weights (4, P)."""

    places: Tensor
    weights: Tensor


class Grid(NamedTuple):
    """The points of a region: rows (PH, PW, GH, 1), columns (PH, PW, 1, GW), and the region's height and width."""

    y: Tensor
    x: Tensor
    height: Tensor
    width: Tensor


def corners(y: Tensor, x: Tensor, size: tuple[int, int]) -> Corners:
    """Bilinear interpolation at points (P,) of a map of a size (H, W).

    A point up to one pixel outside takes the value of the border, one further out takes 0.
    """
    (top, bottom, down), (left, right, across) = _between(y, size[0]), _between(x, size[1])
    inside = (y >= -1) & (y <= size[0]) & (x >= -1) & (x <= size[1])
    up, back = 1 - down, 1 - across
    weights = torch.stack([up * back, up * across, down * back, down * across])
    width = size[1]
    places = torch.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right])
    return Corners(places, torch.where(inside, weights, 0))


def _between(position: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after a position, and how far it is from the first to the second."""
    position = position.clamp(0, length - 1)
    low = position.long()  # cut off, which is down: nothing is negative here
    return low, (low + 1).clamp(max=length - 1), position - low


def sample(features: Tensor, at: Corners) -> Tensor:
    """Values (C, P) of a map (C, H, W)."""
    flat = features.flatten(1)
    terms = [flat[:, place] * weight for place, weight in zip(*at)]
    return terms[0] + terms[1] + terms[2] + terms[3]


def spread(gradient: Tensor, at: Corners, target: Tensor) -> None:
    """Add the gradient of :func:`sample`, for values' gradients (C, P), to a map (C, H, W)."""
    flat = target.view(len(target), -1)
    for place, weight in zip(*at):
        flat.index_add_(1, place, gradient * weight)


def grids(rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool) -> Iterator[tuple[int, Grid]]:
    """For each region (picture, x1, y1, x2, y2): the index of its picture, and its points.

    Args:
        rois: (K, 5), in pixels of the picture.
        size: bins of a region, (PH, PW).
        scale: of the map, such as 1 / 16.
        ratio: points of a bin along each axis; 0 for as many as the bin has pixels.
        aligned: pixels are points at their centres; else a region is at least a pixel large.
    """
    bounds = rois[:, 1:] * scale - (0.5 if aligned else 0)
    height, width = bounds[:, 3] - bounds[:, 1], bounds[:, 2] - bounds[:, 0]
    if not aligned:
        height, width = height.clamp(min=1), width.clamp(min=1)
    counts = torch.stack([(height / size[0]).ceil(), (width / size[1]).ceil()], 1).clamp(min=0).long()
    if ratio > 0:
        counts = torch.full_like(counts, ratio)
    pictures = rois[:, 0].long().tolist()
    for index, (rows, columns) in enumerate(counts.tolist()):
        y = _points(bounds[index, 1], height[index], size[0], rows)
        x = _points(bounds[index, 0], width[index], size[1], columns)
        shape = (*size, rows, columns)
        yield (
            pictures[index],
            Grid(
                y[:, None, :, None].expand(*shape[:3], 1),
                x[None, :, None, :].expand(*shape[:2], 1, shape[3]),
                height[index],
                width[index],
            ),
        )


def _points(start: Tensor, length: Tensor, bins: int, count: int) -> Tensor:
    """(bins, count) positions along an axis, in the order of operations of mmcv's kernels."""
    step = length / bins
    first = start + torch.arange(bins, device=start.device, dtype=start.dtype) * step
    inner = (torch.arange(count, device=start.device, dtype=start.dtype) + 0.5) * step / max(count, 1)
    return first[:, None] + inner


def flat(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Points of broadcast shapes, flattened."""
    y, x = torch.broadcast_tensors(y, x)
    return y.reshape(-1), x.reshape(-1)


def roi_align(input: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool) -> Tensor:
    """RoIAlign (arXiv 1703.06870) with average pooling: (K, C, PH, PW) from maps (N, C, H, W)."""
    output = []
    for picture, grid in grids(rois, size, scale, ratio, aligned):
        y, x = flat(grid.y, grid.x)
        count = len(y) // (size[0] * size[1])
        values = sample(input[picture], corners(y, x, input.shape[2:])).view(input.size(1), *size, count)
        output.append(values.sum(3) / max(count, 1))
    return torch.stack(output) if output else input.new_zeros(0, input.size(1), *size)
