"""Warnings that whoever runs a tool can do nothing about, each with the reason; ``--verbose`` prints them."""

import re
import sys
import warnings

# The start of the message as a pattern: why nobody needs to read it.
OF_PYTHON: dict[str, str] = {
    r'pkg_resources is deprecated': 'MMEngine imports it; only MMEngine can change that',
    r'`?torch\.cuda\.amp\.': 'the name by which MMEngine asks for mixed precision; the new one does the same',
    r"'pin_memory' argument is set as true but no accelerator": 'for GPUs; without one it has no effect',
    r'Default ``avg_non_ignore`` is False': "the recipes' own choice, as published",
    r'``build_loss`` would be deprecated': 'MMSegmentation calls its own old function',
    r'`reduce_zero_label` will be deprecated': 'MMSegmentation says so of the only way in which it works',
    r'Warning: The (bbox|polygon|text|line|circle) is out of bounds': 'it is cut off at the edge of the picture',
    r'The draw is False': 'nobody asked for pictures; --show-dir does',
    r'Setting (OMP|MKL)_NUM_THREADS environment variable': 'the launchers of this project set the first one',
    r'This DataLoader will create \d+ worker processes': "the recipe's number; with fewer cores they take turns",
    r'`broadcast_buffers` is deprecated': "MMEngine's own call of torch",
    r'torch\.meshgrid: in an upcoming release': 'MMDetection calls it; the result is the same',
    r'.*`?clean_up_tokenization_spaces`? was not set': 'of text models that MMPretrain imports and no recipe uses',
}
OF_MMENGINE: dict[str, str] = {
    r'"FileClient" will be deprecated': 'MMEngine calls its own old function',
    r'"HardDiskBackend" is the alias': 'MMEngine calls its own old function',
    r'The prefix is not set in metric class': "a metric of MM's own without a prefix is named as published",
    r'Failed to search registry with scope': "MMEngine's own look-up; what is missing raises",
    r'Advance dataloader \d+ steps': 'we draw these batches and read none of their pictures',
    r'Resumed iteration number is not divisible': 'the gradients are in the checkpoint; where they are not, we say so',
    r'Cannot auto import .*\.registry': "MMEngine's own look-up; what is missing raises",
}


def silence_python_warnings() -> None:
    """Drop :data:`OF_PYTHON` from this process's warnings, unless Python was told what to do with warnings (``-W``)."""
    if sys.warnoptions:
        return
    for pattern in OF_PYTHON:
        warnings.filterwarnings('ignore', message=pattern)


def is_silenced(message: str) -> bool:
    """Whether a line of MMEngine's log is one of :data:`OF_MMENGINE`."""
    return any(re.match(pattern, message) for pattern in OF_MMENGINE)
