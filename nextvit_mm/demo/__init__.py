"""A small data set, and a training on it from start to picture."""

from .digit_classes import DigitClassesConfig, make_digit_classes
from .digits import DigitsConfig, make_digits

__all__ = ['DigitClassesConfig', 'DigitsConfig', 'make_digit_classes', 'make_digits']
