"""mmcv's operators from torchvision and torch, for an mmcv without compiled ones."""

from .finder import in_use, install

__all__ = ['in_use', 'install']
