"""Weights for pictures of three channels in a network for pictures of one, four or more."""

from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..models import NextViT

FIRST = 'stem.0.conv.weight'  # in every dialect
USUAL = 3


def adapt_input(weight: Tensor, channels: int) -> Tensor:
    """The first convolution for another number of channels, as timm does it.

    For one channel the weights of the three are added up: a gray picture gives what it gave as a colored one. For more
    channels they are repeated and scaled by 3 / channels, which keeps the size of what comes out.

    Args:
        weight: (O, 3, kh, kw).
        channels: Of the pictures to come, at least 1.

    Returns:
        Tensor: (O, channels, kh, kw), of the same type.
    """
    exact = weight.float()
    if channels == 1:
        return exact.sum(1, keepdim=True).to(weight.dtype)
    repeated = exact.repeat(1, -(-channels // USUAL), 1, 1)[:, :channels]
    return (repeated * (USUAL / channels)).to(weight.dtype)


def fit_stem(state_dict: Mapping[str, Tensor], module: NextViT, prefix: str, source: str) -> Mapping[str, Tensor]:
    """A state dict for a backbone, its first convolution adapted where the backbone takes another number of channels.

    Args:
        state_dict: In any dialect.
        module: The backbone.
        prefix: Of its names in the state dict.
        source: Where the weights are from, for the log.

    Returns:
        Mapping: A new one; the same one where the convolution fits, or is not for three channels.
    """
    channels = module.stem[0].conv.in_channels
    weight = state_dict.get(prefix + FIRST)
    if weight is None or weight.dim() != 4 or weight.shape[1] != USUAL or channels == USUAL:
        return state_dict
    how = 'added up' if channels == 1 else f'repeated and scaled by {USUAL}/{channels}'
    print_log(
        f'{source}: its first convolution is for 3 channels, and was {how} for in_channels={channels}; the stem learns',
        'current',
    )
    with torch.no_grad():
        return {**state_dict, prefix + FIRST: adapt_input(weight, channels)}
