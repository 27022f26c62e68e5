"""Names of parameters in the three dialects: the authors' (``official``), timm's (``timm``) and ours (``mm``).

=================  ==========================  ==============================  ==============================
                   official                    timm                            mm
=================  ==========================  ==============================  ==============================
a block            ``features.{n}.…``          ``stages.{i}.blocks.{j}.…``     ``stages.{i}.blocks.{j}.…``
layers of an MLP   ``mlp.conv1``, ``conv2``    ``mlp.fc1``, ``fc2``            ``mlp.fc1``, ``fc2``
last norm          ``norm.…``                  ``norm.…``                      ``norm{last}.…``
other norms        ``extra_norm_list.{i}.…``   (timm has none) ``norm{i}.…``   ``norm{i}.…``
classifier         ``proj_head.0.…``           ``head.fc.…``                   ``head.fc.…``
=================  ==========================  ==============================  ==============================

The authors number all blocks in one row. Names that belong to none of this are kept as they are.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from ..models.arch import ARCHS, parse_arch

T = TypeVar('T')
DIALECTS = ('mm', 'timm', 'official')
PREFIX = 'backbone.'  # of the backbone in a detector, a segmentor or MMPretrain's classifier


def detect_dialect(names: Iterable[str]) -> str | None:
    """Which dialect names are in, without a prefix; None if they are not Next-ViT's.

    A backbone without its last norm has the same names in ``timm`` and ``mm``; that counts as ``mm``.
    """
    names = list(names)
    # Other networks have `features` and `stages` too; every stage of Next-ViT begins with a patch embedding.
    if any(re.match(r'features\.\d+\.patch_embed\.', name) for name in names):
        return 'official'
    if any(re.match(r'stages\.\d+\.blocks\.\d+\.patch_embed\.', name) for name in names):
        return 'timm' if any(name.startswith('norm.') for name in names) else 'mm'
    return None


def detect_prefix(names: Iterable[str]) -> str:
    """``'backbone.'`` where Next-ViT's blocks lie below it, else ``''``."""
    below = (name[len(PREFIX) :] for name in names if name.startswith(PREFIX))
    return PREFIX if detect_dialect(below) else ''


def count_blocks(names: Iterable[str]) -> tuple[int, ...]:
    """Blocks per stage in timm's or our names; in the authors', all blocks as one number; () if there are none."""
    found: dict[int, int] = {}
    for name in names:
        match = re.match(r'stages\.(\d+)\.blocks\.(\d+)\.|features\.(\d+)\.', name)
        if match:
            stage, block = (int(match[1]), int(match[2])) if match[1] else (0, int(match[3]))
            found[stage] = max(found.get(stage, 0), block + 1)
    return tuple(found[stage] for stage in sorted(found))


def detect_arch(names: Iterable[str]) -> str | None:
    """``'small'``, ``'base'`` or ``'large'``, from the number of blocks; None if it is none of them."""
    found = count_blocks(names)
    for arch in ARCHS:
        depths = arch_depths(arch)
        if found in (depths, (sum(depths),)):
            return arch
    return None


def arch_depths(arch: str) -> tuple[int, ...]:
    """Blocks per stage of a published size."""
    return tuple(len(stage.blocks) for stage in parse_arch(arch).stages)


def to_ours(state_dict: Mapping[str, T], depths: Sequence[int]) -> dict[str, T]:
    """A backbone's or classifier's state dict in our names.

    Args:
        state_dict: In any dialect, without a prefix.
        depths: Blocks per stage.

    Returns:
        dict: The same values. The authors' segmentors hold a norm that they never use, ``extra_norm_list.{last}``;
        it keeps its name.

    Raises:
        ValueError: Dialects are mixed, so that two names become one.
    """
    return _rename(state_dict, lambda name: _to_ours(name, depths))


def to_timm(state_dict: Mapping[str, T], depths: Sequence[int]) -> dict[str, T]:
    """A backbone's or classifier's state dict, in any dialect and without a prefix, in timm's names."""
    last = f'norm{len(depths) - 1}.'
    return _rename(
        to_ours(state_dict, depths), lambda name: f'norm.{name[len(last) :]}' if name.startswith(last) else name
    )


def to_official(state_dict: Mapping[str, T], depths: Sequence[int]) -> dict[str, T]:
    """A backbone's or classifier's state dict, in any dialect and without a prefix, in the authors' names."""
    return _rename(to_timm(state_dict, depths), lambda name: _to_official(name, depths))


CONVERSIONS = dict(mm=to_ours, timm=to_timm, official=to_official)


def convert(state_dict: Mapping[str, T], to: str) -> dict[str, T]:
    """A whole file's state dict in another dialect.

    Args:
        state_dict: A backbone or classifier in any dialect, or a detector, segmentor or classifier of an MM
            library, whose backbone lies below ``backbone.``.
        to: ``'mm'``, ``'timm'`` or ``'official'``.

    Returns:
        dict: A model with neck or heads stays one, with its backbone's names converted. A classifier becomes what
        the other side loads: MMPretrain's ``backbone.…`` and ``head.fc.…`` for ``'mm'``, names without a prefix else.

    Raises:
        ValueError: It is no Next-ViT of a published size, or mixes dialects.
    """
    prefix = detect_prefix(state_dict)
    inner = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    outer = {name: value for name, value in state_dict.items() if not name.startswith(prefix)}
    arch = detect_arch(inner)
    if arch is None:
        raise ValueError(f'no Next-ViT of a published size ({", ".join(ARCHS)}): {describe_weights(state_dict)}')
    depths = arch_depths(arch)
    if all(name.startswith('head.fc.') for name in outer):  # a backbone, or MMPretrain's classifier
        converted = CONVERSIONS[to]({**inner, **outer}, depths)
        return {
            name if name.startswith('head.fc.') or to != 'mm' else PREFIX + name: value
            for name, value in converted.items()
        }
    converted = CONVERSIONS[to](inner, depths)
    return {**{PREFIX + name: value for name, value in converted.items()}, **outer}


def describe_weights(names: Iterable[str]) -> str:
    """What the names seem to be of, in a few words."""
    names = list(names)
    prefix = detect_prefix(names)
    inner = [name[len(prefix) :] for name in names if name.startswith(prefix)]
    if detect_dialect(inner) is None:
        return f"names that are not Next-ViT's ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
    arch = detect_arch(inner)
    what = f'Next-ViT {arch}' if arch else f'a Next-ViT with {sum(count_blocks(inner))} blocks'
    return f'{what} in {detect_dialect(inner)} names' + (f' below {prefix!r}' if prefix else '')


def is_folded(names: Iterable[str]) -> bool:
    """Whether the names are of a Next-ViT whose BN were folded into its convolutions, without a prefix.

    The stem's convolutions have no bias until the BN after them are folded into them. Weights into which only the BN
    *before* linear layers were folded, which have a bias anyway, keep their names, and cannot be recognised.
    """
    names = set(names)
    return detect_dialect(names) is not None and 'stem.0.conv.bias' in names


def stale_names(names: Iterable[str], last: int, last_norm: bool) -> list[str]:
    """Names below the backbone of the authors' dense models that mean nothing there.

    Their dense backbones carried the unused classifier: ``head.fc`` (their ``proj_head``), and in detectors its norm,
    which in segmentors is the norm after the last stage. Segmentors hold another norm for that stage,
    ``extra_norm_list.{last}``, which is built and never run.

    Args:
        names: Our names without a prefix.
        last: Number of the last stage.
        last_norm: Whether the model that will take them has a norm after its last stage.
    """
    stale = ('head.fc.', f'extra_norm_list.{last}.') + (() if last_norm else (f'norm{last}.',))
    return [name for name in names if name.startswith(stale)]


def _rename(state_dict: Mapping[str, T], rename: Callable[[str], str]) -> dict[str, T]:
    renamed = {rename(name): value for name, value in state_dict.items()}
    if len(renamed) != len(state_dict):
        raise ValueError('names of several dialects, of which two become one')
    return renamed


def _to_ours(name: str, depths: Sequence[int]) -> str:
    match = re.match(r'features\.(\d+)\.(.*)', name)
    if match:
        stage, block = _locate(int(match[1]), depths)
        rest = re.sub(r'^mlp\.conv([12])\.', r'mlp.fc\1.', match[2])
        return f'stages.{stage}.blocks.{block}.{rest}'
    if name.startswith('norm.'):
        return f'norm{len(depths) - 1}.{name[len("norm.") :]}'
    match = re.match(r'extra_norm_list\.(\d+)\.(.*)', name)
    if match and int(match[1]) < len(depths) - 1:
        return f'norm{match[1]}.{match[2]}'
    return re.sub(r'^proj_head\.0\.', 'head.fc.', name)


def _to_official(name: str, depths: Sequence[int]) -> str:
    """From timm's names."""
    match = re.match(r'stages\.(\d+)\.blocks\.(\d+)\.(.*)', name)
    if match:
        number = sum(depths[: int(match[1])]) + int(match[2])
        rest = re.sub(r'^mlp\.fc([12])\.', r'mlp.conv\1.', match[3])
        return f'features.{number}.{rest}'
    name = re.sub(r'^norm(\d+)\.', r'extra_norm_list.\1.', name)
    return re.sub(r'^head\.fc\.', 'proj_head.0.', name)


def _locate(number: int, depths: Sequence[int]) -> tuple[int, int]:
    """(stage, block) of the block that the authors number ``number``; past the end it lands in a stage too many."""
    for stage, depth in enumerate(depths):
        if number < depth:
            return stage, number
        number -= depth
    return len(depths), number
