"""``--cfg-options`` beside ``--backbone``: what they say of the backbone is meant for the new one too."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from ..models import NextViT
from .network import NETWORK_KEYS

ARGUMENTS = tuple(inspect.signature(NextViT.__init__).parameters)[1:]
CHOSEN = ('arch', 'out_indices')  # by --backbone itself
OF_NEXTVIT = (*NETWORK_KEYS, 'init_cfg')  # fitted from one Next-ViT to the other
PIXELS = 'data_preprocessor'
RECIPE = ('optim_wrapper', 'auto_scale_lr')  # what --recipe sets


def leave_out_ours(old: ConfigDict, key: str, options: Iterable[str]) -> None:
    """Take out of a backbone's config, in place, what options put there and only a Next-ViT takes."""
    takes = _arguments(old.get('type'))
    for name in _arguments_named(options, key):
        if name in ARGUMENTS and name not in (*CHOSEN, *takes):
            old.pop(name, None)


def weights_of(key: str, options: Mapping[str, Any]) -> dict:
    """What options say of a backbone's weights, as its ``init_cfg``; empty where they say nothing."""
    said = Config()
    said.merge_from_dict({name: value for name, value in options.items() if name.startswith(f'{key}.init_cfg')})
    for name in f'{key}.init_cfg'.split('.'):
        said = said.get(name) or {}
    return {'type': 'Pretrained', **said} if 'checkpoint' in said else {}


def merge_again(cfg: Config, key: str, options: Mapping[str, Any], was_ours: bool, recipe: bool) -> list[str]:
    """Options over what the new network and the recipe brought, in place; what was changed by that.

    Args:
        cfg: The config, with the Next-ViT in it.
        key: Where the backbone is.
        options: Dotted keys and values, which were merged before the network was changed.
        was_ours: Whether the old backbone was a Next-ViT.
        recipe: Whether the published recipe was taken.
    """
    fitted = (*CHOSEN, *(OF_NEXTVIT if was_ours else ()))
    kept = {}
    for option, value in options.items():
        argument = next(iter(_arguments_named([option], key)), None)
        stays = argument in ARGUMENTS and argument not in fitted
        stays |= recipe and option.split('.')[0] in RECIPE
        stays |= PIXELS in option.split('.')[:-1]
        if stays and _value(cfg, option) != value:
            kept[option] = value
    cfg.merge_from_dict(kept)
    return [f'{option} = {value}, as --cfg-options says' for option, value in kept.items()]


def _arguments_named(options: Iterable[str], key: str) -> list[str]:
    start = f'{key}.'
    return [option[len(start) :].split('.')[0] for option in options if option.startswith(start)]


def _arguments(kind: Any) -> Iterable[str]:
    """What a class takes, and the classes that it hands the rest to; all of ours where it is not known."""
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    if not inspect.isclass(kind):
        return ARGUMENTS
    own = [vars(one)['__init__'] for one in kind.__mro__ if '__init__' in vars(one)]
    return {name for method in own for name in inspect.signature(method).parameters}


def _value(cfg: Config, option: str) -> Any:
    node: Any = cfg
    for name in option.split('.'):
        node = node.get(name) if isinstance(node, (dict, Config)) else None
    return node
