"""mmcv's operators from torchvision and torch, for an mmcv without compiled ones."""
from .finder import install

__all__ = ['install']
