"""Gathering and scattering: masked convolution, and the masks of point-wise spatial attention."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Fill ``col`` (C * kh * kw, M) with the patches of a map (1, C, H, W) at M places of the output."""
    padded = pad(im[0], [pad_w, pad_w, pad_h, pad_h])
    rows = mask_h_idx[:, None, None] + torch.arange(kernel_h, device=im.device)[:, None]  # (M, kh, 1)
    columns = mask_w_idx[:, None, None] + torch.arange(kernel_w, device=im.device)  # (M, 1, kw)
    patches = padded[:, rows, columns]  # (C, M, kh, kw)
    col.copy_(patches.permute(0, 2, 3, 1).reshape(col.shape))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write the columns (C, M) to M places of a map (1, C, H, W)."""
    im[0][:, mask_h_idx, mask_w_idx] = col


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Fill ``output`` (N, H * W, H, W) from masks (N, h_mask * w_mask, H, W) around each place (PSANet, ECCV 2018).

    ``psa_type`` 0 collects: output[n, p, q] is what q's mask holds for p. 1 distributes: p's mask for q.
    """
    place, inside = _places(input, (h_feature, w_feature), (h_mask, w_mask), (half_h_mask, half_w_mask))
    collected = input.flatten(2).gather(1, place.expand(num_, -1, -1)) * inside
    output.copy_((collected if psa_type == 0 else collected.transpose(1, 2)).reshape(output.shape))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Fill ``grad_input`` (N, h_mask * w_mask, H, W)."""
    place, inside = _places(grad_input, (h_feature, w_feature), (h_mask, w_mask), (half_h_mask, half_w_mask))
    gradient = grad_output.flatten(2)
    gradient = (gradient if psa_type == 0 else gradient.transpose(1, 2)) * inside
    target = torch.zeros_like(grad_input).flatten(2)
    grad_input.copy_(target.scatter_add_(1, place.expand(num_, -1, -1), gradient).view(grad_input.shape))


def _places(like: Tensor, size: tuple[int, int], mask: tuple[int, int], half: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Which place of q's mask lies on p, and whether one does: both (1, H * W of p, H * W of q)."""

    def axis(index: int) -> Tensor:
        places = torch.arange(size[index], device=like.device)
        return places[:, None] - places + half[index]  # (p, q)

    rows = axis(0)[:, None, :, None]
    columns = axis(1)[None, :, None, :]
    inside = (rows >= 0) & (rows < mask[0]) & (columns >= 0) & (columns < mask[1])
    places = torch.where(inside, rows * mask[1] + columns, 0)
    shape = (1, size[0] * size[1], size[0] * size[1])
    return places.reshape(shape), inside.reshape(shape)
