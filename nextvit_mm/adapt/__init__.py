"""Next-ViT in the place of another config's backbone."""

from .read import read_config
from .swap import use_nextvit

__all__ = ['read_config', 'use_nextvit']
