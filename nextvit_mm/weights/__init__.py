"""Everything between a file and a state dict."""

from .build import get_model
from .io import allow_mmengine_checkpoints, read_weights
from .pretrained import NextViTPretrained
from .zoo import list_models

__all__ = ['NextViTPretrained', 'allow_mmengine_checkpoints', 'get_model', 'list_models', 'read_weights']
