"""What a file of weights holds: read by any name, and of several state dicts in it the one that is wanted."""

import os
import re
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor

from ..errors import WeightsError
from ..utils.recipes import PAGE
from .fetch import fetch_from_hub, fetch_from_url, locate_weights, parse_hub_name
from .io import read_weights
from .zoo import ZOO

PLAIN = ('state_dict', 'model')  # MMEngine and timm; the authors
AVERAGED = ('state_dict_ema', 'model_ema', 'ema_state_dict')  # timm; the authors; others
COUNTERS = ('steps', 'n_averaged')  # of MMEngine's and torch's averaged models, beside the weights


def split_name(name: str) -> tuple[str, str | None]:
    """``FILE#KEY`` as the file's name and the key of the state dict in it; no key where there is none."""
    path, mark, key = name.rpartition('#')
    if not mark or not key or os.path.exists(os.path.expanduser(name)):
        return name, None
    return path, key


def load_checkpoint(name: str, map_location: Any = 'cpu') -> Any:
    """Read what a name stands for, as :func:`.io.read_weights` reads a file.

    Args:
        name: A file, an address, ``hf-hub:…``, the name of published weights, or what MMEngine has a loader of its own
            for, such as ``s3://…``; after a ``#`` the state dict in it may be named.
        map_location: As ``torch.load`` takes it.

    Raises:
        WeightsError: It cannot be fetched or read.
    """
    name = split_name(name)[0]
    if name in ZOO:
        return load_from_zoo(name, map_location)
    if name.startswith('hf-hub:'):
        return load_from_hub(name, map_location)
    if name.startswith(('http://', 'https://')):
        return read_weights(fetch_from_url(name), map_location, tensors_only=True)
    if '://' in name:
        return CheckpointLoader.load_checkpoint(name, map_location)
    return read_weights(name, map_location)


def load_state(name: str, map_location: Any = 'cpu') -> tuple[Any, Mapping[str, Tensor]]:
    """What a name stands for, and the state dict that is wanted of it (:func:`unwrap`)."""
    loaded = load_checkpoint(name, map_location)
    return loaded, unwrap(loaded, *split_name(name))


def unwrap(checkpoint: Any, source: str, key: str | None = None) -> Mapping[str, Tensor]:
    """The state dict inside a checkpoint, without the prefixes of wrappers.

    It is under ``state_dict`` (MMEngine, timm), ``model`` (the authors), or the checkpoint itself. Where a training has
    averaged its weights, the average is taken, and the log says so: MMEngine puts it under ``state_dict``, others
    under one of :data:`AVERAGED`.

    Args:
        checkpoint: What a file holds.
        source: Its name, for messages.
        key: Name of the state dict. Default: as above.

    Returns:
        Mapping: Without ``module.`` of distributed training and ``_orig_mod.`` of ``torch.compile``.

    Raises:
        WeightsError: There is none.
    """
    found = {name: value for name, value in _items(checkpoint) if isinstance(value, Mapping) and value}
    if key is not None:
        if key not in found:
            raise WeightsError(f'{source} has nothing to load under {key!r}; it has {_names(found)}')
        state = found[key]
    else:
        taken = _choose(checkpoint, found, source)
        state = checkpoint if taken is None else found[taken]
    if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
        return _without_wrappers(state, source)
    more = f'. It has {_names(found)}: name one as {source}#NAME' if found and key is None else ''
    raise WeightsError(f"{source} holds no state dict, neither under 'state_dict' or 'model' nor by itself{more}")


def _choose(checkpoint: Any, found: Mapping[str, Any], source: str) -> str | None:
    """The key of the state dict that is taken where none is named."""
    plain = next((name for name in PLAIN if name in found), None)
    averaged = next((name for name in AVERAGED if name in found), None)
    if averaged is None:
        return plain
    if 'message_hub' in checkpoint or 'steps' in found[averaged]:
        # MMEngine swaps the two when it saves.
        if plain:
            print_log(f'{source}: {plain} holds the averaged weights, and is taken', 'current')
        return plain or averaged
    other = f'; {source}#{plain} are those of the last step' if plain else ''
    print_log(f'{source}: the averaged weights are taken, {averaged}{other}', 'current')
    return averaged


def _without_wrappers(state: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    names = {name: re.sub(r'(^|\.)_orig_mod\.', r'\1', name) for name in state}
    counted = [name for name in names if name in COUNTERS]
    if counted and all(names[name].startswith('module.') for name in names if name not in counted):
        for name in counted:
            del names[name]
    while names and all(name.startswith('module.') for name in names.values()):
        names = {old: name[len('module.') :] for old, name in names.items()}
    if all(old == name for old, name in names.items()) and len(names) == len(state):
        return state
    if len(set(names.values())) != len(names):
        raise WeightsError(f'{source} holds wrapped and bare weights, of which two have one name')
    return {name: state[old] for old, name in names.items()}


def _items(checkpoint: Any) -> Any:
    return checkpoint.items() if isinstance(checkpoint, Mapping) else ()


def _names(found: Mapping[str, Any]) -> str:
    return ', '.join(map(str, found)) or 'no state dict'


# MMEngine's own loaders of files and web addresses stay as they are: other models' weights are none of ours. Its loader
# asks these for names that it would not know, in `load_from`, `init_cfg` and `init_detector` of any script.
@CheckpointLoader.register_scheme(prefixes='|'.join(f'{re.escape(name)}$' for name in ZOO))
def load_from_zoo(filename: str, map_location: Any = None) -> Any:
    return read_weights(locate_weights(filename), map_location, tensors_only=True)


@CheckpointLoader.register_scheme(prefixes='hf-hub:')
def load_from_hub(filename: str, map_location: Any = None) -> Any:
    return read_weights(fetch_from_hub(*parse_hub_name(filename)), map_location, tensors_only=True)


@CheckpointLoader.register_scheme(prefixes=PAGE)
def load_from_page(filename: str, map_location: Any = None) -> Any:
    page = filename[len(PAGE) :]
    where = f'download {page} with a browser' if page else 'there are no published ones'
    raise WeightsError(f'the weights of this recipe cannot be fetched: {where}, and give the file as weights')
