"""What a benchmark compares: our backbones and timm's networks by name, with random weights and published accuracy."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..models import NextViT
from ..published import load_table
from ..utils.norms import batch_norms, new_statistics
from ..utils.optional import need
from ..weights.keys import arch_depths, to_ours
from .flops import multiply_adds

ARCHS = dict(nextvit_s='small', nextvit_b='base', nextvit_l='large')
SETTLING_SIZE = (128, 128)  # of the images that give BN their statistics
# Networks of Tables 4 to 6 that timm has, and what Table 4 calls them.
TABLE_4 = {
    'resnet101': 'ResNet101',
    'resnet152': 'ResNet152',
    'resnext101_32x4d': 'ResNeXt101-32x4d',
    'resnext101_64x4d': 'ResNeXt101-64x4d',
    'regnety_080': 'RegNetY-8G',
    'regnety_160': 'RegNetY-16G',
    'resnest50d': 'ResNeSt50',
    'resnest101e': 'ResNeSt101',
    'efficientnet_b3': 'EfficientNet-B3',
    'efficientnet_b5': 'EfficientNet-B5',
    'mobilevitv2_100': 'MobileViTv2-1.0',
    'mobilevitv2_200': 'MobileViTv2-2.0',
    'convnext_tiny': 'ConvNeXt-T',
    'convnext_small': 'ConvNeXt-S',
    'convnext_base': 'ConvNeXt-B',
    'deit_tiny_patch16_224': 'DeiT-T',
    'deit_small_patch16_224': 'DeiT-S',
    'deit_base_patch16_224': 'DeiT-B',
    'swin_tiny_patch4_window7_224': 'Swin-T',
    'swin_small_patch4_window7_224': 'Swin-S',
    'swin_base_patch4_window7_224': 'Swin-B',
    'pvt_v2_b2': 'PVTv2-B2',
    'pvt_v2_b3': 'PVTv2-B3',
    'pvt_v2_b4': 'PVTv2-B4',
    'twins_svt_small': 'Twins-SVT-S',
    'twins_svt_base': 'Twins-SVT-B',
    'twins_svt_large': 'Twins-SVT-L',
    'poolformer_s24': 'PoolFormer-S24',
    'poolformer_s36': 'PoolFormer-S36',
    'poolformer_m36': 'PoolFormer-M36',
    'poolformer_m48': 'PoolFormer-M48',
    'coat_tiny': 'CoaT Tiny',
    'coat_mini': 'CoaT Mini',
    'coat_small': 'CoaT Small',
    'efficientformer_l7': 'EfficientFormer-L7',
    'nextvit_small': 'Next-ViT-S',
    'nextvit_base': 'Next-ViT-B',
    'nextvit_large': 'Next-ViT-L',
}


@dataclass(frozen=True)
class Candidate:
    """A network by name.

    Attributes:
        name: As written on the command line: ``nextvit_s``, ``timm:NAME``, with suffixes such as ``@channels_last``.
        timm_name: What timm calls it, or for ours the network of timm's with the same weights.
        ours: Whether it is this project's.
        channels_last: Memory format of the weights when PyTorch runs it.
        with_cp: Recompute blocks in the backward pass (ours, training only).
    """

    name: str
    timm_name: str
    ours: bool
    channels_last: bool
    with_cp: bool


def parse_candidate(name: str) -> Candidate:
    """A candidate by name: ``nextvit_s``, ``_b``, ``_l`` (channels-last unless ``@contiguous``, optionally
    ``@with_cp``), or ``timm:NAME`` (as timm ships it unless ``@channels_last``).

    Raises:
        UserError: There is no such network or suffix.
    """
    base, *suffixes = name.split('@')
    ours = base in ARCHS
    allowed = ('contiguous', 'channels_last', 'with_cp') if ours else ('contiguous', 'channels_last')
    if not ours and not base.startswith('timm:'):
        raise UserError(f'{name!r} is not a candidate: take {", ".join(ARCHS)}, or timm:NAME')
    for suffix in suffixes:
        if suffix not in allowed:
            raise UserError(f'{name!r}: @{suffix} is not among what {base} takes: @{", @".join(allowed)}')
    if 'contiguous' in suffixes and 'channels_last' in suffixes:
        raise UserError(f'{name!r}: @contiguous and @channels_last exclude each other')
    timm_name = f'nextvit_{ARCHS[base]}' if ours else base[len('timm:') :]
    if not _timm().is_model(timm_name):
        similar = ', '.join(_timm().list_models(f'*{timm_name}*')[:8])
        raise UserError(f'{name!r}: timm has no {timm_name}' + (f'; similar: {similar}' if similar else ''))
    return Candidate(
        name,
        timm_name,
        ours,
        'channels_last' in suffixes or ours and 'contiguous' not in suffixes,
        'with_cp' in suffixes,
    )


def build(
    candidate: Candidate, size: Sequence[int], seed: int = 0, device: str = 'cpu', theirs: nn.Module | None = None
) -> nn.Module:
    """A candidate's backbone in eval mode: image (B, 3, H, W) to feature maps, float32.

    Weights are random and the same for the same seed, also between ours and timm's Next-ViT. Nothing is downloaded.

    Args:
        candidate: Which network.
        size: Height and width that it will run at, for networks that are built for one.
        seed: Of the weights.
        device: Where to.
        theirs: timm's network of that name, size and seed, if it is there already; it is left as it is.

    Raises:
        UserError: timm cannot build it for that size.
    """
    if theirs is None:
        model = _build_timm(candidate.timm_name, size, seed)
    else:
        model = theirs if candidate.ours else copy.deepcopy(theirs)
    if candidate.ours:
        model = as_ours(candidate, model)
    layout = torch.channels_last if candidate.channels_last else torch.contiguous_format
    return model.eval().to(device, memory_format=layout)


@lru_cache(maxsize=1)
def build_timms(name: str, size: tuple[int, ...], seed: int, device: str) -> nn.Module:
    """timm's network by its name there, to be left as it is: ours and timm's are compared with one and the same."""
    return build(parse_candidate(f'timm:{name}'), size, seed, device)


def as_ours(candidate: Candidate, theirs: nn.Module) -> NextViT:
    """Our backbone with the weights of timm's, strictly all of them."""
    arch = ARCHS[candidate.name.split('@')[0]]
    with torch.device('meta'):  # weights of its own would only be overwritten
        ours = NextViT(arch, with_cp=candidate.with_cp)
    # timm's feature extractor flattens `stages.0` into `stages_0`.
    weights = {re.sub(r'^(stem|stages)_(\d+)\.', r'\1.\2.', name): value for name, value in theirs.state_dict().items()}
    ours.to_empty(device='cpu').load_state_dict(to_ours(weights, arch_depths(arch)), strict=True)
    return ours


def photographs(shape: Sequence[int], seed: int = 0) -> Tensor:
    """Seeded random images (B, 3, H, W) with the spectrum of photographs, coarse forms strongest; mean 0, deviation 1.

    No picture of anything: enough to drive and calibrate a network whose speed is measured, not to judge accuracy.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, channels, height, width = shape
    image = torch.zeros(batch, channels, height, width)
    for octave in range(2, 8):
        side = 2**octave
        noise = torch.randn(batch, channels, min(side, height), min(side, width), generator=generator)
        image += F.interpolate(noise, (height, width), mode='bilinear', align_corners=False) * 2.0 ** (2 - octave)
    return (image - image.mean()) / image.std()


def published_top1(candidate: Candidate, size: Sequence[int] = (224, 224)) -> float | None:
    """Top-1 accuracy on ImageNet-1K that Table 4 prints, %; None where it has none.

    Where Table 4 has several image sizes, that of ``size`` if there, else the smallest.
    """
    rows = {row['method']: row['top1'] for row in load_table(4) if row['backbone'] == TABLE_4.get(candidate.timm_name)}
    if not rows:
        return None
    return float(rows.get(f'ImageNet-1K {size[0]}', rows[min(rows)]))


def count_multiply_adds(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of convolutions, linear layers and matrix products, attention's included, of one forward pass.

    Args:
        model: Any module that takes one image tensor.
        shape: (B, C, H, W).
    """
    parameter = next(model.parameters())
    image = torch.zeros(*shape, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        return multiply_adds(lambda: model(image)).total


def settle_norms(model: nn.Module, size: Sequence[int], seed: int) -> None:
    """Give every BN affine parameters that are not the identity, and the statistics of a batch of its own.

    Freshly built, BN are so plain that a fold could get them wrong unseen, and after a few dozen blocks without
    trained statistics activations grow beyond what half precision and 8 bits hold.
    """
    norms = batch_norms(model)
    if not norms:
        return
    generator = torch.Generator().manual_seed(seed)
    for norm in norms:
        if norm.affine:
            # Zero where a residual branch ends: timm starts those small, and so they are left, or the errors of half
            # precision would grow from block to block beyond anything that a trained network shows.
            scale = 1.0 if norm.weight.detach().any() else 0.2
            nn.init.uniform_(norm.weight, 0.5 * scale, 1.5 * scale, generator=generator)
            nn.init.normal_(norm.bias, 0, 0.2, generator=generator)
    model.eval()
    with torch.no_grad(), new_statistics(model):
        model(photographs((4, 3, *size), seed))


def _build_timm(name: str, size: Sequence[int], seed: int) -> nn.Module:
    """timm's feature extractor where the network supports one, else its ``forward_features``; random weights."""
    timm = _timm()
    pretrained = timm.get_pretrained_cfg(name)
    keywords: dict[str, tuple[int, ...]] = {}
    if pretrained.fixed_input_size and tuple(size) != tuple(pretrained.input_size[1:]):
        keywords['img_size'] = tuple(size)
    torch.manual_seed(seed)
    try:
        try:
            model = timm.create_model(name, features_only=True, **keywords)
        except (RuntimeError, AttributeError):
            torch.manual_seed(seed)
            model = _ForwardFeatures(timm.create_model(name, num_classes=0, **keywords))
    except Exception as error:  # whatever a network of timm's raises, it cannot be had for this size
        raise UserError(f'timm cannot build {name} for {size[0]}×{size[1]}: {error}') from None
    for module in model.modules():
        if hasattr(module, 'drop_prob'):  # timm's DropPath: chance has no place in a comparison
            module.drop_prob = 0.0
    settle_norms(model, size if pretrained.fixed_input_size else SETTLING_SIZE, seed)
    return model.eval()


class _ForwardFeatures(nn.Module):
    """What comes before a classifier's pooling, as a tuple of one map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.model.forward_features(x),)


def _timm():
    return need('timm', 'the benchmark')
