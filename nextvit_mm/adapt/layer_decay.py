"""Layer-wise decay of the learning rate, for every model with a backbone that tells its parameters' depths."""

import logging
from collections import Counter

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ..errors import UserError

LAYER_DECAY = 'NextViTLayerDecayConstructor'
RATES = ('layer_decay_rate', 'decay_rate')  # MMPretrain's name; MMDetection's and MMSegmentation's
LAYERS = 'num_layers'  # of theirs: how many groups of layers a rate is for
IGNORED = ('decay_type',)  # of theirs: the backbone tells its own depths


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NextViTLayerDecayConstructor(DefaultOptimWrapperConstructor):
    """One learning rate for each depth of the backbone: lr · rate^(last depth - depth).

    The depth of a parameter is what the backbone's ``get_layer_depth`` says; neck and heads have the last one, and the
    full rate. Parameters of one dimension, norms and biases among them, get no weight decay.

    ``paramwise_cfg`` takes ``layer_decay_rate`` (or ``decay_rate``), in (0, 1], and MMEngine's ``norm_decay_mult``,
    ``bias_decay_mult`` and ``flat_decay_mult`` (default 0), each a factor on the weight decay. With ``num_layers``, as
    MMDetection and MMSegmentation have it, the rate is one for as many groups: rate^(num_layers + 1) remains for the
    first depth, and the depths between share it evenly.

    Raises:
        UserError: No rate, one outside (0, 1], an unknown key, or a backbone without ``get_layer_depth``.
    """

    def __call__(self, model: nn.Module):
        if hasattr(model, 'module'):
            model = model.module
        self._given: dict = dict(self.paramwise_cfg or {})  # type: ignore[has-type]  # MMEngine's, which has no types
        rate = next((self._given.pop(name) for name in RATES if name in self._given), None)
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise UserError(f'{LAYER_DECAY}: paramwise_cfg.{RATES[0]} must lie in (0, 1], not {rate!r}')
        self._rate = float(rate)
        self._factors = {
            name: float(self._given.pop(name, 0.0))
            for name in ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
        }
        self._layers = self._given.pop(LAYERS, None)
        if self._layers is not None and (not isinstance(self._layers, int) or self._layers < 1):
            raise UserError(f'{LAYER_DECAY}: paramwise_cfg.{LAYERS} must be a number above 0, not {self._layers!r}')
        for name in IGNORED:
            self._given.pop(name, None)
        if self._given:
            raise UserError(
                f'{LAYER_DECAY}: paramwise_cfg has unknown keys: {", ".join(self._given)}. To leave out those of '
                'another constructor, add optim_wrapper.paramwise_cfg._delete_=True to --cfg-options, beside the rate'
            )
        # The base class asks for parameters only where there is something that concerns single ones.
        self.paramwise_cfg = dict(rate=self._rate)
        return super().__call__(model)

    def _validate_cfg(self) -> None:
        """The keys are looked at when they are used: the base class knows only its own."""

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Every parameter that learns, as a group of its own."""
        holder, prefix = _find(module)
        norms = {
            f'{name}.{own}' if name else own
            for name, part in module.named_modules()
            if isinstance(part, (_NormBase, nn.LayerNorm, nn.GroupNorm))
            for own, _ in part.named_parameters(recurse=False)
        }
        seen: set[int] = set()
        counted: Counter = Counter()
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            depth, count = holder.get_layer_depth(name, prefix)
            rate = self._rate if self._layers is None else self._rate ** ((self._layers + 1) / (count - 1))
            scale = rate ** (count - 1 - depth)
            counted[depth] += 1
            group = dict(params=[parameter], lr=self.base_lr * scale, lr_scale=scale, param_name=name, layer=depth)
            if self.base_wd is not None:
                group['weight_decay'] = self.base_wd * self._decay(name, parameter, norms)
            params.append(group)
        print_log(
            f'layer-wise decay {rate:.3g}: {len(counted)} depths learn, with '
            f'{min(group["lr"] for group in params):.3g} to {max(group["lr"] for group in params):.3g}',
            'current',
            logging.INFO,
        )

    def _decay(self, name: str, parameter: nn.Parameter, norms: set[str]) -> float:
        if name in norms:
            return self._factors['norm_decay_mult']
        if name.endswith('.bias'):
            return self._factors['bias_decay_mult']
        return self._factors['flat_decay_mult'] if parameter.ndim == 1 else 1.0


def _find(model: nn.Module) -> tuple[nn.Module, str]:
    """The backbone that tells depths, and the prefix of its parameters."""
    for prefix in ('backbone', 'detector.backbone'):
        try:
            backbone = model.get_submodule(prefix)
        except AttributeError:
            continue
        if hasattr(backbone, 'get_layer_depth'):
            return backbone, f'{prefix}.'
    raise UserError(f'{LAYER_DECAY} needs a backbone with get_layer_depth, such as NextViT')
