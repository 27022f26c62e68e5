"""Weights into a backbone: everything arrives, or training does not start."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from ..errors import WeightsError
from ..models import NextViT
from .channels import FIRST, fit_stem
from .checkpoint import load_state
from .keys import (
    arch_depths,
    count_blocks,
    describe_weights,
    detect_dialect,
    detect_prefix,
    is_folded,
    stale_names,
    to_ours,
)

# What a classifier's or detector's file has and a backbone need not take.
LEFTOVERS = r'(head|norm\d+|extra_norm_list\.\d+)\.'


@dataclass
class Coverage:
    """What of a file goes into a backbone, by the backbone's names.

    Attributes:
        loaded: Tensors that the backbone takes.
        missing: Those it has and the file lacks, except norms that dense models add.
        fresh: Those norms, where the file lacks them.
        unexpected: Those the file has and the backbone lacks, except what a use may leave behind.
        leftover: What is left behind: a classifier's head, norms, stages that ``out_indices`` leaves out.
        misshapen: Those of another shape, with both shapes.
    """

    loaded: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    leftover: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return bool(self.loaded) and not (self.missing or self.unexpected or self.misshapen)

    def report(self) -> str:
        """A line on what was loaded and what was not."""
        return (
            f'{len(self.loaded)} tensors of the backbone loaded, {_some("missing in the file", self.missing)}, '
            f'{_some("not in the model", self.unexpected)}, {_some("of another shape", self.misshapen)}; '
            f'left in the file: {_tops(self.leftover)}; not in the file: {_tops(self.fresh)}'
        )


@WEIGHT_INITIALIZERS.register_module()
class NextViTPretrained:
    """What ``init_cfg=dict(type='Pretrained', checkpoint=…)`` of a :class:`NextViT` does.

    Args:
        checkpoint: A file, an address, ``hf-hub:owner/name[@revision][:file]``, or the name of published weights
            (:func:`nextvit_mm.weights.list_models`), with the authors', timm's or our names, of a backbone, a
            classifier, or a whole detector or segmentor. Of several state dicts in it one is named after a ``#``.
        prefix: Where the backbone lies in the file. Default: found out, ``'backbone.'`` or none.
        strict: False loads what fits and warns of the rest; a file of which nothing fits is an error even so.
            Default True.
        map_location: As ``torch.load`` takes it. Default ``'cpu'``.

    Raises:
        WeightsError: The file lacks a parameter of the backbone, holds one that the backbone has not, or one of
            another shape, except classifier heads and output norms, which come and go with the use.
    """

    def __init__(
        self, checkpoint: str, prefix: str | None = None, strict: bool = True, map_location: str = 'cpu'
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.strict = strict
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        _, whole = load_state(self.checkpoint, self.map_location)
        prefix = detect_prefix(whole) if self.prefix is None else self.prefix
        whole = fit_stem(whole, module, prefix, self.checkpoint)
        state_dict = {name[len(prefix) :]: value for name, value in whole.items() if name.startswith(prefix)}
        coverage = cover(module, state_dict)
        if not coverage.loaded or is_folded(state_dict) or (self.strict and not coverage.whole):
            raise WeightsError(misfit(self.checkpoint, module, whole, prefix, coverage))
        module.load_state_dict({**module.state_dict(), **coverage.loaded})
        if hasattr(module, '_params_init_info'):  # MMEngine's own log of what initialised each parameter
            update_init_info(module, f'loaded from {self.checkpoint}')
        print_log(
            f'{self.checkpoint}: {coverage.report()}', 'current', logging.INFO if coverage.whole else logging.WARNING
        )


def cover(module: NextViT, state_dict: Mapping[str, Tensor]) -> Coverage:
    """Sort a state dict, in any dialect and without a prefix, by what a backbone can do with it."""
    depths = [len(stage.blocks) for stage in module.arch.stages]
    try:
        theirs = to_ours(state_dict, depths)
    except ValueError as error:
        raise WeightsError(f'the weights have {error}') from None
    own = module.state_dict()
    found = Coverage()
    for name, tensor in own.items():
        if name not in theirs:
            (found.fresh if _is_added(name, own, len(depths) - 1) else found.missing).append(name)
        elif theirs[name].shape != tensor.shape:
            found.misshapen.append(f'{name} {tuple(theirs[name].shape)} for {tuple(tensor.shape)}')
        else:
            found.loaded[name] = theirs[name]
    for name in theirs:
        if name not in own:
            left = re.match(LEFTOVERS, name) or _beyond(name, len(module.stages), len(depths))
            (found.leftover if left else found.unexpected).append(name)
    return found


def adapt_names(module: NextViT, state_dict: dict[str, Tensor], prefix: str) -> None:
    """Turn the authors' or timm's names below ``prefix`` into ours, in place, before a state dict is loaded.

    What the authors' dense models hold and never use is taken out by name, and the log says so.
    """
    inner = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    dialect = detect_dialect(inner)
    if dialect is None:
        return
    depths = [len(stage.blocks) for stage in module.arch.stages]
    try:
        ours = to_ours(inner, depths)
    except ValueError as error:
        raise WeightsError(f'the weights of the backbone have {error}') from None
    last = len(depths) - 1
    stale = stale_names(ours, last, f'norm{last}.weight' in module.state_dict())
    if dialect == 'mm' and not stale:
        return
    for name in inner:
        del state_dict[prefix + name]
    state_dict.update({prefix + name: value for name, value in ours.items() if name not in stale})
    print_log(f"backbone: {dialect} names read as this project's; unused and left out: {_tops(stale)}", 'current')


NextViT.load_adapters.append(adapt_names)


def misfit(checkpoint: str, module: NextViT, whole: Mapping[str, Tensor], prefix: str, coverage: Coverage) -> str:
    """Why weights do not go into a backbone: the names on both sides, and the likely cause.

    Args:
        checkpoint: Where they are from.
        module: The backbone.
        whole: All tensors of the file.
        prefix: Where in it the backbone was looked for.
        coverage: What was found there.
    """
    inner = {name[len(prefix) :]: value for name, value in whole.items() if name.startswith(prefix)}
    return '\n'.join(
        [
            f'{checkpoint} does not fit the backbone, and nothing was loaded:',
            f'  {_some("missing in the file", coverage.missing)}',
            f'  {_some("not in the model", coverage.unexpected)}',
            f'  {_some("of another shape", coverage.misshapen)}',
            _likely_cause(module, whole, inner, prefix),
        ]
    )


def _is_added(name: str, own: Mapping[str, Tensor], last: int) -> bool:
    """Whether a parameter is of a norm that dense models add: of any before the last stage, or where all have one."""
    match = re.match(r'norm(\d+)\.', name)
    return bool(match) and (int(match[1]) < last or 'norm0.weight' in own)


def _likely_cause(module: NextViT, whole: Iterable[str], inner: Mapping[str, Tensor], prefix: str) -> str:
    """What is probably wrong, and what to do."""
    if is_folded(inner):
        return (
            'Its BN are folded into the convolutions: such a file is for inference, and cannot be trained from. '
            'Take the weights from before folding.'
        )
    if not inner:
        return (
            f'It holds nothing below prefix={prefix!r}; it is {describe_weights(whole)}. '
            'Without a prefix in init_cfg the right one is found out.'
        )
    depths = tuple(len(stage.blocks) for stage in module.arch.stages)
    arch = next((arch for arch in ('small', 'base', 'large') if arch_depths(arch) == depths), None)
    wanted = f'Next-ViT {arch}' if arch else f'a Next-ViT with {sum(depths)} blocks'
    if count_blocks(inner) in (depths, (sum(depths),)):
        what = f'Both are {wanted}, built in another way: {_difference(inner, module)}'
    else:
        what = f'The file is of {describe_weights(whole)}; the model is {wanted}'
    return (
        f'{what}. Name other weights with --cfg-options model.backbone.init_cfg.checkpoint=…, or train from scratch '
        'with --no-pretrained.'
    )


def _difference(inner: Mapping[str, Tensor], module: NextViT) -> str:
    """Which argument makes two networks of the same depth differ, where it can be told."""
    own = module.stem[0].conv.weight
    theirs = inner.get(FIRST, own)
    if theirs.dim() == 4 and theirs.size(1) != own.size(1):
        return f'the file is for pictures of {theirs.size(1)} channels, and the model has in_channels={own.size(1)}'
    return 'compare arch, norm_cfg and out_norm of the model with those that the file was trained with'


def _beyond(name: str, built: int, num_stages: int) -> bool:
    """Whether the name belongs to a stage of the architecture that ``out_indices`` leaves out."""
    match = re.match(r'stages\.(\d+)\.', name)
    return bool(match) and built <= int(match[1]) < num_stages


def _some(what: str, names: list[str], most: int = 3) -> str:
    shown = ', '.join(names[:most]) + (', …' if len(names) > most else '')
    return f'{len(names)} {what}' + (f' ({shown})' if names else '')


def _tops(names: Iterable[str]) -> str:
    """The names' first parts, each once."""
    return ', '.join(dict.fromkeys(name.split('.')[0] for name in names)) or 'nothing'
