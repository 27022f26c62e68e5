from .fold import fold, remaining_norms

__all__ = ['fold', 'remaining_norms']
