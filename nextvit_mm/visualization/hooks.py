"""Feature maps from inside a backbone: of every stage, of every block, and of the two branches of every NTB."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..models import NextViT
from ..models.blocks import NTB

# How stages are called in this project, in the MM libraries (ResNet: layer1, Swin: stages.0) and in timm, whose feature
# extractors write stages_0 or layers_0.
STAGE = re.compile(r'^(?:model\.)?(?:stages|layers|layer|blocks)[._]?\d+$')
# A map's stride where it comes as tokens, without its height and width.
STRIDES = (4, 8, 16, 32, 14, 2, 1)


class Block(NamedTuple):
    """A block of a backbone: its stage and its place in it, both from 1, and the module."""

    stage: int
    number: int
    module: nn.Module


class Branches(NamedTuple):
    """What happens inside one NTB, each (B, C, H, W), or None where the block has no such branch.

    Attributes:
        low: What comes from the E-MHSA branch: the first part of the concatenation in Eq. 6.
        high: … and from the MHCA branch: the second part.
        mhsa: What E-MHSA itself computes, before its input is added to it.
        mhca: What MHCA itself computes, before its input is added to it.
    """

    low: Tensor | None
    high: Tensor | None
    mhsa: Tensor | None
    mhca: Tensor | None


def find_blocks(backbone: nn.Module) -> list[Block]:
    """The blocks of a backbone, from the first to the last: of a stage's ``blocks``, else of its children.

    A stage whose inside is not known is one block; where that is so of all, they are the blocks of one stage. A
    backbone without stages that can be told by their names has no blocks.
    """
    stages = [module for name, module in backbone.named_modules() if STAGE.match(name)]
    insides = [getattr(stage, 'blocks', stage) for stage in stages]
    insides = [list(inside) if isinstance(inside, (nn.Sequential, nn.ModuleList)) else [inside] for inside in insides]
    if insides and all(inside == [stage] for inside, stage in zip(insides, stages)):
        insides = [stages]  # a plain network, such as ViT: what is numbered are its blocks
    return [
        Block(stage, index, module)
        for stage, inside in enumerate(insides, start=1)
        for index, module in enumerate(inside, start=1)
    ]


def find_ntbs(backbone: nn.Module) -> list[Block]:
    """The blocks that are Next Transformer Blocks."""
    return [block for block in find_blocks(backbone) if isinstance(block.module, NTB)]


@contextmanager
def watch(modules: dict[Any, nn.Module], see: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call ``see(key, output)`` whenever a module has run, until the context ends; the outputs go on as they are."""
    handles = []
    try:
        for key, module in modules.items():
            handles.append(module.register_forward_hook(_forward_hook(see, key)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watch_branches(ntbs: list[Block], see: Callable[[Block, Branches], None]) -> Iterator[None]:
    """Call ``see(block, branches)`` whenever an NTB of ``ntbs`` runs, until the context ends.

    The concatenation of both branches is what ``norm2`` takes; its first channels, as many as E-MHSA has, are the
    E-MHSA branch.
    """
    seen: dict[int, dict[str, Tensor]] = {}
    modules = {
        (i, name): getattr(block.module, name)
        for i, block in enumerate(ntbs)
        for name in ('e_mhsa', 'mhca')
        if getattr(block.module, name, None) is not None
    }

    def remember(key: tuple[int, str], output: Tensor) -> None:
        seen.setdefault(key[0], {})[key[1]] = output

    def split(number: int, mixed: Tensor) -> None:
        own = seen.pop(number, {})
        width = own['e_mhsa'].shape[1] if 'e_mhsa' in own else 0
        see(
            ntbs[number],
            Branches(
                low=mixed[:, :width] if width else None,
                high=mixed[:, width:] if width < mixed.shape[1] else None,
                mhsa=own.get('e_mhsa'),
                mhca=own.get('mhca'),
            ),
        )

    handles = []
    try:
        for i, block in enumerate(ntbs):
            handles.append(block.module.norm2.register_forward_pre_hook(_input_hook(split, i)))
        with watch(modules, remember):
            yield
    finally:
        for handle in handles:
            handle.remove()


def run(
    backbone: nn.Module, image: Tensor, channels_last: bool = False, see: Callable[[Block, Tensor], None] | None = None
) -> dict[int, Tensor]:
    """Run a backbone and look at what its stages and blocks make of an image.

    Args:
        backbone: Next-ViT, or another one of an MM library or timm.
        image: (B, 3, H, W), normalised.
        channels_last: Whether the backbone's maps are (B, h, w, C), as those of timm's Swin.
        see: Called with each block and its map (B, C, h, w), in the order of the blocks.

    Returns:
        dict[int, Tensor]: Each stage's map (B, C, h, w) by the stage's number, from 1. Of Next-ViT, after the norm that
        ``out_norm`` puts there; of others, what the backbone returns where it returns every stage, else the map of the
        stage's last block.
    """
    ends: dict[int, Tensor] = {}

    def block_ran(block: Block, output: Any) -> None:
        found = as_map(output, tuple(image.shape[2:]), channels_last)
        if found is not None:
            ends[block.stage] = found
            if see is not None:
                see(block, found)

    blocks = find_blocks(backbone)
    stages = stage_modules(backbone)
    normed: dict[int, Tensor] = {}
    with watch({block: block.module for block in blocks}, block_ran), watch(stages, normed.__setitem__):
        returned = backbone(image)
    if stages:
        return normed
    maps = [
        as_map(out, tuple(image.shape[2:]), channels_last)
        for out in (returned if isinstance(returned, (tuple, list)) else (returned,))
    ]
    maps = [found for found in maps if found is not None]
    count = len(ends) or len(maps)
    # timm's ResNets also return the stem's map, before the stages'.
    return dict(enumerate(maps[-count:], start=1)) if len(maps) >= count else ends


def stage_modules(backbone: nn.Module) -> dict[int, nn.Module]:
    """The modules whose outputs are Next-ViT's stages, by number from 1; none of other backbones."""
    if not isinstance(backbone, NextViT):
        return {}
    return {i + 1: getattr(backbone, f'norm{i}') for i in range(len(backbone.stages))}


@contextmanager
def stage_layers(backbone: nn.Module) -> Iterator[dict[int, nn.Module]]:
    """Modules that return a stage's map each, by the stage's number from 1, until the context ends.

    Of other backbones than Next-ViT only what they return can be had: their outputs are sent through modules that leave
    them as they are, numbered in the order of ``out_indices`` where the backbone has them, else from 1.
    """
    stages = stage_modules(backbone)
    if stages:
        yield stages
        return
    indices = [i + 1 for i in getattr(backbone, 'out_indices', range(4))]
    outputs = {i: nn.Identity() for i in indices}
    handle = backbone.register_forward_hook(
        lambda m, args, out: (
            tuple(same(x) for same, x in zip(outputs.values(), out))
            if isinstance(out, (tuple, list))
            else outputs[indices[0]](out)
        )
    )
    try:
        yield outputs
    finally:
        handle.remove()


def as_map(output: Any, size: tuple[int, int], channels_last: bool = False) -> Tensor | None:
    """What a module of some backbone returned as a map (B, C, h, w), or None where it is not one.

    Args:
        output: A map, tokens (B, h·w, C) with or without a class token before them, or a tuple that begins with either.
        size: Height and width of the image.
        channels_last: Whether maps come as (B, h, w, C).
    """
    if isinstance(output, (tuple, list)):
        output = output[0] if len(output) else None
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return None
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if channels_last else output
    for extra in (0, 1):
        for stride in STRIDES:
            height, width = (-(-side // stride) for side in size)
            if height * width + extra == output.shape[1]:
                tokens = output[:, extra:].transpose(1, 2)
                return tokens.reshape(len(output), -1, height, width)
    return None


def _forward_hook(see: Callable[[Any, Any], None], key: Any) -> Callable[[nn.Module, tuple, Any], None]:
    """``see(key, output)`` as a hook; one that returns None leaves the output as it is."""

    def hook(module: nn.Module, args: tuple, output: Any) -> None:
        see(key, output)

    return hook


def _input_hook(see: Callable[[Any, Any], None], key: Any) -> Callable[[nn.Module, tuple], None]:
    """``see(key, input)`` as a hook that is called before a module runs."""

    def hook(module: nn.Module, args: tuple) -> None:
        see(key, args[0])

    return hook
