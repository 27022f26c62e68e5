"""Next-ViT (arXiv 2207.05501) for MMDetection, MMSegmentation and MMPretrain. Importing it registers everything."""

from . import needed  # noqa: F401  (first: it says in one line which MM package is missing)
from .adapt import use_nextvit
from .adapt.layer_decay import NextViTLayerDecayConstructor
from .data.paired import PairedSegDataset
from .models import NextViT
from .ops import install as install_operators
from .reproduction import PublishedRunHook
from .training.losses import ClassWeightedCrossEntropy
from .training.schedulers import WarmupCosineEpochLR
from .utils.recipes import add_to_configs, add_to_inferencers
from .version import __version__
from .weights import allow_mmengine_checkpoints, get_model, list_models

allow_mmengine_checkpoints()
install_operators()
add_to_configs()
add_to_inferencers()

__all__ = [
    'ClassWeightedCrossEntropy',
    'NextViT',
    'NextViTLayerDecayConstructor',
    'PairedSegDataset',
    'PublishedRunHook',
    'WarmupCosineEpochLR',
    '__version__',
    'get_model',
    'list_models',
    'use_nextvit',
]
