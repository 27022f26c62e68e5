from .init import NextViTPretrained
from .io import allow_mmengine_checkpoints, read_weights
from .model import get_model
from .zoo import list_models

__all__ = ['NextViTPretrained', 'allow_mmengine_checkpoints', 'get_model', 'list_models', 'read_weights']
