"""Table 3 of the Next-ViT paper as data, and the Next Hybrid Strategy as a pure function."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, NamedTuple

HEAD_DIM = 32  # channels per head of every MHCA and E-MHSA of the paper (Sec. 3.5)


def _stages(stage3_repeats: int) -> list[dict]:
    """The four stages of Table 3; the published variants differ only in L of stage 3."""
    return [
        dict(num_ncb=3, num_ntb=0, ncb_channels=96, sr_ratio=8),
        dict(num_ncb=3, num_ntb=1, ncb_channels=192, ntb_channels=256, sr_ratio=4),
        dict(num_ncb=4, num_ntb=1, repeats=stage3_repeats, ncb_channels=384, ntb_channels=512, sr_ratio=2),
        dict(num_ncb=2, num_ntb=1, ncb_channels=768, ntb_channels=1024, sr_ratio=1),
    ]


ARCHS = {
    'small': dict(stem_channels=(64, 32, 64), stages=_stages(stage3_repeats=2)),
    'base': dict(stem_channels=(64, 32, 64), stages=_stages(stage3_repeats=4)),
    'large': dict(stem_channels=(64, 32, 64), stages=_stages(stage3_repeats=6)),
}


class BlockArch(NamedTuple):
    """One block of a stage: ``kind`` is its name in :data:`.blocks.BLOCKS`, ``channels`` its output width."""

    kind: str
    channels: int


@dataclass(frozen=True)
class StageArch:
    """One stage, (NCB × N + NTB × M) × L (Eq. 7; the paper uses M = 1, and M = 0 in stage 1).

    Attributes:
        num_ncb: N, the convolution blocks of a group (0 for a stage of transformer blocks alone).
        num_ntb: M, the transformer blocks that close a group.
        ncb_channels: Output width of every NCB.
        ntb_channels: Output width of every NTB. Table 3 prints only the NCB's width; in the released
            model the NTB is wider (256, 512, 1024).
        repeats: L, the number of groups. Default 1.
        sr_ratio: Spatial reduction s of E-MHSA: keys and values are averages over s² tokens (Eq. 5). Default 1.
        head_dim: Channels per head, of MHCA and E-MHSA alike; heads = width / head_dim. Default 32.
        ncb_mlp_ratio: Hidden width of an NCB's MLP over its width. The paper prints 2, the released
            model (and its 31.7 M parameters) has 3. Default 3.
        ntb_mlp_ratio: The same for an NTB. Default 2.
        mix_ratio: r, the share of an NTB's width that E-MHSA gets; MHCA gets the rest. 0 is MHCA alone, 1 E-MHSA
            alone. Default 0.75.
        conv_block: What stands in the place of the NCB, a name of :data:`.blocks.BLOCKS`, such as ``'ConvNeXt'``
            (Table 7). Default ``'NCB'``.
    """

    num_ncb: int
    num_ntb: int
    ncb_channels: int | None = None
    ntb_channels: int | None = None
    repeats: int = 1
    sr_ratio: int = 1
    head_dim: int = HEAD_DIM
    ncb_mlp_ratio: float = 3.0
    ntb_mlp_ratio: float = 2.0
    mix_ratio: float = 0.75
    conv_block: str = 'NCB'

    @property
    def blocks(self) -> tuple[BlockArch, ...]:
        """The blocks in the order in which they run: the Next Hybrid Strategy."""
        group = (BlockArch(self.conv_block, self.ncb_channels),) * self.num_ncb
        group += (BlockArch('NTB', self.ntb_channels),) * self.num_ntb
        return group * self.repeats

    @property
    def out_channels(self) -> int:
        return self.blocks[-1].channels


@dataclass(frozen=True)
class Arch:
    """The whole network: widths of the stem's convolutions (the last one is used twice), and its stages."""

    stem_channels: tuple[int, int, int]
    stages: tuple[StageArch, ...]


def parse_arch(arch: str | Mapping) -> Arch:
    """Turn a variant's name, or a dict with the keys of :data:`ARCHS`, into a checked :class:`Arch`.

    Raises:
        ValueError: A name that is not known, or a dict with a missing, unknown or impossible value; the
            message names the key, as in ``arch['stages'][2]['sr_ratio']``.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'arch={arch!r} is not a Next-ViT variant: take one of {sorted(ARCHS)}, or a dict')
        arch = ARCHS[arch]
    if not isinstance(arch, Mapping):
        raise ValueError(f'arch must be one of {sorted(ARCHS)} or a dict, not {type(arch).__name__}')
    _check_keys('arch', arch, required=('stem_channels', 'stages'), known=('stem_channels', 'stages'))
    stem, stages = arch['stem_channels'], arch['stages']
    if not _is_sequence(stem) or len(stem) != 3:
        raise ValueError(f"arch['stem_channels'] must be three widths, such as (64, 32, 64), not {stem!r}")
    for i, width in enumerate(stem):
        _check_int(f"arch['stem_channels'][{i}]", width, least=1)
    if not _is_sequence(stages) or not stages:
        raise ValueError(f"arch['stages'] must be a list of dicts, one a stage, not {stages!r}")
    return Arch(tuple(stem), tuple(_parse_stage(f"arch['stages'][{i}]", s) for i, s in enumerate(stages)))


def linear_drop_path_rates(arch: Arch, drop_path_rate: float) -> list[list[float]]:
    """Stochastic-depth rates per stage and block: linear from 0 to the maximum over all blocks of the network."""
    depths = [len(stage.blocks) for stage in arch.stages]
    steps = max(sum(depths) - 1, 1)
    rates = [drop_path_rate * i / steps for i in range(sum(depths))]
    return [rates[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(len(depths))]


def split_ntb_channels(channels: int, mix_ratio: float, head_dim: int) -> tuple[int, int]:
    """Widths of an NTB's two branches, (E-MHSA, MHCA): r · channels to whole heads, and the rest.

    Rounds to the nearest whole head, at least one, and up where that would take more than a tenth away,
    as the released model does. r = 0 and r = 1 leave the whole width to one branch.
    """
    if mix_ratio in (0, 1):
        return int(channels * mix_ratio), int(channels * (1 - mix_ratio))
    wanted = int(channels * mix_ratio)
    mhsa = max(head_dim, int(wanted + head_dim / 2) // head_dim * head_dim)
    if mhsa < 0.9 * wanted:
        mhsa += head_dim
    return mhsa, channels - mhsa


def _parse_stage(path: str, stage: Any) -> StageArch:
    if isinstance(stage, StageArch):
        stage = {f.name: getattr(stage, f.name) for f in fields(StageArch)}
    if not isinstance(stage, Mapping):
        raise ValueError(f'{path} must be a dict, not {stage!r}')
    required = [f.name for f in fields(StageArch) if f.default is MISSING]
    _check_keys(path, stage, required, known=[f.name for f in fields(StageArch)])
    spec = StageArch(**stage)
    for key, least in (('num_ncb', 0), ('num_ntb', 0), ('repeats', 1), ('sr_ratio', 1), ('head_dim', 1)):
        _check_int(f'{path}[{key!r}]', getattr(spec, key), least)
    if not isinstance(spec.conv_block, str):
        raise ValueError(f"{path}['conv_block'] must be a block's name, such as 'NCB', not {spec.conv_block!r}")
    if spec.num_ncb + spec.num_ntb == 0:
        raise ValueError(f"{path}['num_ncb'] and ['num_ntb'] are both 0: a stage needs a block")
    for kind, count in (('ncb', spec.num_ncb), ('ntb', spec.num_ntb)):
        if count:
            _check_block(path, spec, kind)
    return spec


def _check_block(path: str, spec: StageArch, kind: str) -> None:
    """Check what only matters where the stage has a block of this kind."""
    key, channels = f'{kind}_channels', getattr(spec, f'{kind}_channels')
    _check_int(f'{path}[{key!r}]', channels, least=1)
    if channels % spec.head_dim:
        raise ValueError(f'{path}[{key!r}] = {channels} is not a multiple of head_dim = {spec.head_dim}')
    ratio = getattr(spec, f'{kind}_mlp_ratio')
    if not _is_number(ratio) or int(channels * ratio) < 1:
        raise ValueError(f"{path}['{kind}_mlp_ratio'] must be a positive number, not {ratio!r}")
    if kind == 'ntb':
        r = spec.mix_ratio
        if not _is_number(r) or not 0 <= r <= 1 or (r < 1 and split_ntb_channels(channels, r, spec.head_dim)[1] < 1):
            raise ValueError(
                f"{path}['mix_ratio'] = {r!r} must be 0, 1, or between them and leave both E-MHSA and "
                f'MHCA at least one head of {spec.head_dim} of the {channels} channels'
            )


def _check_keys(path: str, mapping: Mapping, required: Sequence[str], known: Sequence[str]) -> None:
    for key in mapping:
        if key not in known:
            raise ValueError(f'{path}[{key!r}] is not a key of this dict; known keys: {", ".join(known)}')
    for key in required:
        if key not in mapping:
            raise ValueError(f'{path}[{key!r}] is missing')


def _check_int(path: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f'{path} must be an integer of at least {least}, not {value!r}')


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple))
