"""What maps a network gives: it is built and run on PyTorch's meta device, on shapes alone."""

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
    if device == 'meta':
        norms_keep_shapes(module)
    return module


def norms_keep_shapes(module: nn.Module) -> None:
    """Let every BN in eval mode hand its input on, for a run on the meta device. It checks the shape as before.

    PyTorch takes ten operations for it there, a third of all.
    """
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            norm.forward = partial(_keep_shape, norm)


def _keep_shape(norm: _BatchNorm, x: Tensor) -> Tensor:
    norm._check_input_dim(x)
    return x if x.shape[1] == norm.num_features else type(norm).forward(norm, x)  # which names both widths


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


class Backbone:
    """What maps a backbone gives. It runs once for each device and side that it is asked for.

    Args:
        config: Its config.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.in_channels = config.get('in_channels', 3)
        self._found: dict[tuple[str, int], Any] = {}

    def look(self, necks: Sequence[Any] = ()) -> list[Map]:
        """Its maps, or those that necks make of them.

        Raises:
            Exception: Whatever building or running raises.
        """

        def action(device: str, side: int) -> list[Map]:
            maps = self._run(device, side)
            for neck in necks:
                maps = build(neck, device)(maps)
            return [_measure(one, side) for one in flatten(maps)]

        return run_small(action)

    def _run(self, device: str, side: int) -> Any:
        if (device, side) not in self._found:
            image = torch.zeros(1, self.in_channels, side, side, device=device)
            self._found[device, side] = build(self.config, device)(image)
        return copy.copy(self._found[device, side])  # a neck may add to the list


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
