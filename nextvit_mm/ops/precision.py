"""The precision in which an operator is computed."""

import struct

import torch
from torch import Tensor

NARROW = (torch.float16, torch.bfloat16)


def wide(tensor: Tensor) -> Tensor:
    """Half and bfloat16 as float32, all else as it is.

    Coordinates of a large picture have no place in eleven bits, and torchvision has no bfloat16 kernels for gradients.
    """
    return tensor.float() if tensor.dtype in NARROW else tensor


def single(value: float) -> float:
    """The float32 that is nearest to a number.

    mmcv compares an overlap with its threshold in float32. An overlap of just 0.3 is not above float32's 0.3, but is
    above float64's: torchvision, which compares in float64, would drop a box that mmcv keeps.
    """
    return struct.unpack('f', struct.pack('f', value))[0]
