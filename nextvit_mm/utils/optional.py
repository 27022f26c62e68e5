"""Packages that only some of the commands need."""

import importlib

from ..errors import UserError


def need(module: str, purpose: str):
    """Import an optional package, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f'{purpose} needs {module}: pip install {module} ({error})') from None
