"""A trained model, as a checkpoint or an exported file, on pictures and videos."""

from .models import load_predictor

__all__ = ['load_predictor']
