from .digits import DigitsConfig, make_digits

__all__ = ['DigitsConfig', 'make_digits']
