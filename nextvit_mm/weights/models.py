"""Weights into a whole detector, segmentor or classifier with a Next-ViT."""

import logging
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor, nn

from ..errors import WeightsError
from ..models import NextViT
from .channels import fit_stem
from .checkpoint import load_state
from .keys import PREFIX, detect_dialect, detect_prefix, is_folded, to_ours
from .pretrained import cover, misfit

Notify = Callable[..., None]


def arrange(model: nn.Module, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Put a bare Next-ViT, such as a classifier of the authors or timm, where an MM model has its backbone and head.

    What already lies below ``backbone.``, and other networks, are returned as they are.
    """
    backbone = getattr(unwrap_model(model), 'backbone', None)
    if not isinstance(backbone, NextViT) or detect_prefix(state_dict) or detect_dialect(state_dict) is None:
        return state_dict
    depths = [len(stage.blocks) for stage in backbone.arch.stages]
    try:
        ours = to_ours(state_dict, depths)
    except ValueError as error:
        raise WeightsError(f'the weights have {error}') from None
    return {name if name.startswith('head.') else PREFIX + name: value for name, value in ours.items()}


def load_exactly(
    model: nn.Module, checkpoint: str, where: str, logger: logging.Logger | None = None, notify: Notify | None = None
) -> dict:
    """Load a checkpoint that has just the model's parameters; MMEngine's own loading takes what happens to match.

    Args:
        model: The whole model.
        checkpoint: A file, an address, ``hf-hub:…`` or a name.
        where: Whose model it is, for the message.
        logger: For what the loading says.
        notify: Called with the content, ``state_dict`` in the model's names, before it is loaded, and may change it:
            MMEngine's hooks ``after_load_checkpoint``.

    Returns:
        dict: The file's content.

    Raises:
        WeightsError: It cannot be read, or does not fit.
    """
    loaded, state = load_state(checkpoint)
    weights = _told(loaded, arrange(model, state), notify)
    try:
        load_state_dict(model, weights, strict=True, logger=logger)
    except RuntimeError as error:
        lines = [textwrap.shorten(line, 300) for line in str(error).splitlines() if line.strip()]
        raise WeightsError('\n'.join([f'{checkpoint} does not fit the model of {where}:', *lines[:6]])) from None
    return loaded


def load_to_start_from(model: nn.Module, checkpoint: str, notify: Notify | None = None) -> None:
    """Load a checkpoint into a whole model that will be trained further: what ``load_from`` does in ``train``.

    The backbone gets every one of its tensors, as from :class:`NextViTPretrained`. Of the rest, what has the same name
    and shape is taken (a head for other classes is not), and the log says what was not.

    Args:
        model: With a :class:`nextvit_mm.NextViT` as ``backbone``.
        checkpoint: A file, an address, ``hf-hub:…`` or a name, of such a model or of a backbone or classifier alone.
        notify: As in :func:`load_exactly`.

    Raises:
        WeightsError: It cannot be read, or does not fit the backbone.
    """
    model = unwrap_model(model)
    loaded, given = load_state(checkpoint)
    whole = _told(loaded, fit_stem(arrange(model, given), model.backbone, PREFIX, checkpoint), notify)
    inner = {name[len(PREFIX) :]: value for name, value in whole.items() if name.startswith(PREFIX)}
    coverage = cover(model.backbone, inner)
    if is_folded(inner) or not coverage.whole:
        raise WeightsError(misfit(checkpoint, model.backbone, given, detect_prefix(given), coverage))
    own = model.state_dict()
    taken: dict[str, Tensor] = {PREFIX + name: value for name, value in coverage.loaded.items()}
    taken.update(
        {
            name: value
            for name, value in whole.items()
            if not name.startswith(PREFIX) and name in own and own[name].shape == value.shape
        }
    )
    model.load_state_dict({**own, **taken})
    fresh = [name for name in own if not name.startswith(PREFIX) and name not in taken]
    left = [name for name in whole if not name.startswith(PREFIX) and name not in taken]
    others = len(taken) - len(coverage.loaded)
    print_log(
        f'{checkpoint}: {coverage.report()}; of the other parts {others} tensors loaded; '
        f'not loaded, because missing or of another shape in the file: {_parts(fresh)}; left in the file: '
        f'{_parts(left)}',
        'current',
    )


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model inside a wrapper for distributed training or test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _told(loaded: Any, weights: Mapping[str, Tensor], notify: Notify | None) -> Mapping[str, Tensor]:
    if notify is None:
        return weights
    bare = all(isinstance(value, Tensor) for value in loaded.values())
    content = {**({} if bare else loaded), 'state_dict': weights}
    notify(checkpoint=content)
    return content['state_dict']


def _parts(names) -> str:
    """The names' modules, each once."""
    return ', '.join(dict.fromkeys(name.rsplit('.', 1)[0] for name in names)) or 'nothing'
