"""Operators on regions (picture, x1, y1, x2, y2) of feature maps, with mmcv's names and arguments."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from .points import Grid, corners, flat, grids, sample, spread
from .precision import wide
from .threads import fill

LOWEST = -10000.0  # what mmcv's max pooling starts from, and gives for a region without points


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` (K, C, PH, PW); ``pool_mode`` 1 averages, 0 takes the largest and where it is."""
    maps, regions, size = wide(input), wide(rois), (aligned_height, aligned_width)
    if pool_mode == 1:
        maps = maps.contiguous()  # once, and not in each thread: torchvision's kernel knows no other layout
        align = torch.ops.torchvision.roi_align
        fill(
            output,
            0,
            output.numel(),
            lambda part: align(maps, regions[part], spatial_scale, *size, sampling_ratio, aligned),
        )
        return
    for index, (picture, grid) in enumerate(grids(regions, size, spatial_scale, sampling_ratio, aligned)):
        y, x = flat(grid.y, grid.x)
        shape = (maps.size(1), *size, len(y) // (size[0] * size[1]))
        # The first place is that of no point, and wins only where nothing is larger.
        values = pad(sample(maps[picture], corners(y, x, maps.shape[2:])).view(shape), [1, 0], value=LOWEST)
        largest, place = values.max(3)
        output[index].copy_(largest)
        for target, position in ((argmax_y, y), (argmax_x, x)):
            position = pad(position.view(shape[1:]), [1, 0], value=-1).expand_as(values)
            target[index].copy_(position.gather(3, place[..., None])[..., 0])


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` (N, C, H, W)."""
    if pool_mode == 1:
        gradient, regions = wide(grad_output), wide(rois)
        pictures, _, height, width = grad_input.shape

        def align(part: slice) -> Tensor:
            channels = gradient[:, part]
            return torch.ops.torchvision._roi_align_backward(
                channels,
                regions,
                spatial_scale,
                aligned_height,
                aligned_width,
                pictures,
                channels.size(1),
                height,
                width,
                sampling_ratio,
                aligned,
            )

        fill(grad_input, 1, gradient.numel(), align)
        return
    total = torch.zeros_like(wide(grad_input))
    planes = total.view(1, -1)  # all maps of all pictures in a row
    height, width = total.shape[2:]
    found = argmax_y != -1
    at = corners(wide(argmax_y)[found], wide(argmax_x)[found], (height, width))
    plane = rois[:, 0].long()[:, None] * total.size(1) + torch.arange(total.size(1), device=total.device)
    start = (plane[:, :, None, None] * height * width).expand_as(found)[found]
    spread(wide(grad_output)[found][None], at._replace(places=at.places + start), planes)
    grad_input.copy_(total)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``output`` and ``argmax`` (K, C, PH, PW): the largest pixel of each bin, and its place in the map, or -1.

    torchvision's RoIPool rounds a region to whole pixels first. mmcv's does not, and is not the same operator.
    """
    maps, size = wide(input), tuple(input.shape[2:])
    rois = wide(rois)
    argmax.fill_(-1)
    corner = torch.stack([rois[:, 1], rois[:, 2], rois[:, 3] + 1, rois[:, 4] + 1], 1) * spatial_scale
    for index, picture in enumerate(rois[:, 0].long().tolist()):
        left, top, right, bottom = corner[index]
        if right <= left or bottom <= top:
            continue  # 0, and no gradient; mmcv's CUDA kernel sends that to the map's first pixel
        rows, row_there = _bin_pixels(top, bottom, pooled_height, size[0])
        columns, column_there = _bin_pixels(left, right, pooled_width, size[1])
        # The first of equal pixels counts, row by row: so the largest of each row is found first.
        by_row, column = maps[picture][:, :, columns].max(3)  # (C, H, PW)
        largest, row = by_row[:, rows].max(2)  # (C, PH, GH, PW) -> (C, PH, PW)
        row = rows[torch.arange(pooled_height, device=rows.device)[:, None], row]
        column = column.gather(1, row)
        column = columns[torch.arange(pooled_width, device=rows.device), column]
        there = row_there[:, None] & column_there
        output[index].copy_(torch.where(there, largest, 0))
        argmax[index].copy_(torch.where(there, row * size[1] + column, -1))


def _bin_pixels(start: Tensor, end: Tensor, bins: int, length: int) -> tuple[Tensor, Tensor]:
    """The pixels of each bin along an axis, (bins, most), the last one repeated; and whether a bin has any."""
    step = (end - start) / bins
    place = torch.arange(bins, device=start.device, dtype=start.dtype)
    low = (place * step + start).floor().clamp(0, length).long()
    high = ((place + 1) * step + start).ceil().clamp(0, length).long()
    most = max(int((high - low).max()), 1)
    pixels = low[:, None] + torch.arange(most, device=start.device)
    return torch.minimum(pixels, high[:, None] - 1).clamp(0, length - 1), high > low


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``grad_input`` (N, C, H, W)."""
    total = torch.zeros_like(wide(grad_input)).flatten(2)
    found = argmax != -1
    plane = rois[:, 0].long()[:, None] * total.size(1) + torch.arange(total.size(1), device=total.device)
    place = argmax + plane[:, :, None, None] * total.size(2)
    total.view(-1).index_add_(0, place[found], wide(grad_output)[found])
    grad_input.copy_(total.view(grad_input.shape))


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Fill ``output`` (K, C, PH, PW): RoIAlign whose bins are moved (arXiv 1703.06211).

    ``offset`` (K, 2, PH, PW), x before y, is in ``gamma`` times the region's width and height; empty for none.
    """
    maps, size = wide(input), (pooled_height, pooled_width)
    for index, (picture, grid) in enumerate(grids(wide(rois), size, spatial_scale, sampling_ratio, True)):
        y, x = flat(*_moved(grid, offset, index, gamma))
        count = len(y) // (size[0] * size[1])
        values = sample(maps[picture], corners(y, x, maps.shape[2:])).view(maps.size(1), *size, count)
        output[index].copy_(values.sum(3) / max(count, 1))


def _moved(grid: Grid, offset: Tensor, index: int, gamma: float) -> tuple[Tensor, Tensor]:
    """A region's points after the offset of each bin."""
    if not offset.numel():
        return grid.y, grid.x
    x, y = wide(offset[index])[:, :, :, None, None]
    return grid.y + gamma * grid.height * y, grid.x + gamma * grid.width * x


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Fill the gradients of the maps and of the offset."""
    maps, size, channels = wide(input), (pooled_height, pooled_width), input.size(1)
    total = torch.zeros_like(maps)
    for index, (picture, grid) in enumerate(grids(wide(rois), size, spatial_scale, sampling_ratio, True)):
        y, x = flat(*_moved(grid, offset, index, gamma))
        count = len(y) // (size[0] * size[1])
        if not count:
            continue
        gradient = (wide(grad_output[index]) / count)[..., None].expand(-1, -1, -1, count).reshape(channels, -1)
        at = corners(y, x, maps.shape[2:])
        spread(gradient, at, total[picture])
        if offset.numel():
            slopes = [(gradient * slope).sum(0).view(*size, count).sum(2) for slope in _slopes(maps[picture], y, x)]
            grad_offset[index].copy_(torch.stack([gamma * grid.width * slopes[0], gamma * grid.height * slopes[1]]))
    grad_input.copy_(total)


def _slopes(features: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives (C, P) of the values at points by x and by y, as mmcv takes them.

    Within a pixel outside of the map mmcv goes on with the slope of the border pixels, where the value is constant.
    """
    height, width = features.shape[1:]
    at = corners(y, x, (height, width))
    flat_map = features.flatten(1)
    top_left, top_right, bottom_left, bottom_right = (flat_map[:, place] for place in at.places)
    top, left = at.places[0] // width, at.places[0] % width
    bottom, right = at.places[3] // width, at.places[3] % width
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    by_x = (top_right - top_left) * (bottom - y) + (bottom_right - bottom_left) * (y - top)
    by_y = (bottom_left - top_left) * (right - x) + (bottom_right - top_right) * (x - left)
    return torch.where(inside, by_x, 0), torch.where(inside, by_y, 0)
