"""What maps a network gives: it is built and run on PyTorch's meta device, on shapes alone."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..utils.logs import quiet_log

SIDES = (256, 224, 320)  # pixels; some transformers take the one that they were trained at alone, SSD300 needs more


class Map(NamedTuple):
    """A feature map.

    Attributes:
        stride: Pixels of the input for one of the map's; 0 for a vector.
        width: Channels.
    """

    stride: int
    width: int


def without_weights(config: Any) -> Any:
    """A copy of a config that fetches nothing when it is built."""
    if isinstance(config, dict):
        kept = {k: without_weights(v) for k, v in config.items() if k not in ('init_cfg', 'pretrained')}
        for key in ('teacher_ckpt', 'teacher_checkpoint'):
            if key in kept:
                kept[key] = None
        return type(config)(kept)
    if isinstance(config, (list, tuple)):
        return type(config)(without_weights(one) for one in config)
    return copy.copy(config)


def build(config: Any, device: str) -> nn.Module:
    """A module of a config, or a sequence of them, without weights and in eval mode."""
    with warnings.catch_warnings(), quiet_log(), torch.device(device):
        warnings.simplefilter('ignore')  # of the MM libraries, about themselves
        if isinstance(config, (list, tuple)):
            module: nn.Module = nn.Sequential(*(MODELS.build(without_weights(one)) for one in config))
        else:
            module = MODELS.build(without_weights(config))
    module = revert_sync_batchnorm(module)  # SyncBN refuses a device other than a GPU
    module.eval()  # not chained: `train` of several backbones returns nothing
    return module


def run_small(action: Callable[[str, int], Any]) -> Any:
    """``action(device, side)`` on the meta device, or if it fails there on the CPU; the last error if nothing works."""
    for attempt in ('meta', 'cpu'):
        for side in SIDES:
            try:
                with torch.no_grad(), warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    return action(attempt, side)
            except Exception as error:  # of any library
                last = error
    raise last


def look(backbone: Any, necks: Sequence[Any] = (), in_channels: int = 3) -> list[Map]:
    """The maps of a backbone's config, or those that necks make of them.

    Raises:
        Exception: Whatever building or running raises.
    """

    def action(device: str, side: int) -> list[Map]:
        maps: Any = build(backbone, device)(torch.zeros(1, in_channels, side, side, device=device))
        for neck in necks:
            maps = build(neck, device)(maps)
        return [_measure(one, side) for one in flatten(maps)]

    return run_small(action)


def flatten(maps: Any) -> list[Tensor]:
    """The tensors in what a network returns."""
    if isinstance(maps, Tensor):
        return [maps]
    if isinstance(maps, dict):
        maps = list(maps.values())
    return [tensor for one in maps or () for tensor in flatten(one)] if isinstance(maps, (list, tuple)) else []


def _measure(tensor: Tensor, side: int) -> Map:
    if tensor.ndim != 4:  # (B, C) of a pooled map, (B, N, C) of tokens
        return Map(0, tensor.shape[-1])
    return Map(round(side / tensor.shape[-2]), tensor.shape[1])
