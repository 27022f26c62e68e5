"""From a trained model to a verified file of a runtime."""

from .fold import fold, remaining_norms

__all__ = ['fold', 'remaining_norms']
