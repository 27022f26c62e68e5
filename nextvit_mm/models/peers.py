"""Other networks' blocks in the place of the NCB (Table 7): MMPretrain's, behind an adapter.

Each stands after the same PatchEmbed as the NCB, which alone changes width and size. Norm and activation are those of
the network that a block comes from; where both use the same, BN or ReLU, it is what the backbone is told to use.
"""

import importlib
from abc import ABC, abstractmethod
from collections import OrderedDict

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .arch import StageArch
from .blocks import BLOCKS, BlockOptions
from .layers import Mlp, PatchEmbed, build_norm


class Peer(nn.Module, ABC):
    """PatchEmbed, then a block (B, C, H, W) -> (B, C, H, W) that :meth:`make_block` makes.

    Args: As of :class:`.blocks.NCB`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        stage: StageArch,
        drop_path_rate: float,
        options: BlockOptions,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(in_channels, out_channels, stride, options.norm_cfg)
        self.block = self.make_block(out_channels, stage, drop_path_rate, options)

    @abstractmethod
    def make_block(self, channels: int, stage: StageArch, drop_path_rate: float, options: BlockOptions) -> nn.Module:
        """The block itself, at a width that stays."""

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.patch_embed(x))


@BLOCKS.register_module()
class Bottleneck(Peer):
    """ResNet's bottleneck: 1×1 to half the width, 3×3, 1×1 back.

    ResNet narrows to a quarter; seven such blocks would be needed for the work of one NCB.
    """

    def make_block(self, channels: int, stage: StageArch, drop_path_rate: float, options: BlockOptions) -> nn.Module:
        return _from_mmpretrain('resnet', 'Bottleneck')(
            channels,
            channels,
            expansion=2,
            norm_cfg=options.norm_cfg,
            act_cfg=options.act_cfg,
            drop_path_rate=drop_path_rate,
        )


@BLOCKS.register_module()
class ConvNeXt(Peer):
    """ConvNeXt's block: depthwise 7×7, LN, MLP of ratio 4 with GELU, layer scale."""

    def make_block(self, channels: int, stage: StageArch, drop_path_rate: float, options: BlockOptions) -> nn.Module:
        return _from_mmpretrain('convnext', 'ConvNeXtBlock')(
            channels, norm_cfg=dict(type='mmpretrain.LN2d', eps=1e-6), drop_path_rate=drop_path_rate
        )


@BLOCKS.register_module()
class PoolFormer(Peer):
    """PoolFormer's block: 3×3 average pooling less its input, GN of one group, MLP of ratio 4 with GELU."""

    def make_block(self, channels: int, stage: StageArch, drop_path_rate: float, options: BlockOptions) -> nn.Module:
        return _from_mmpretrain('poolformer', 'PoolFormerBlock')(
            channels, drop=options.drop_rate, drop_path=drop_path_rate
        )


@BLOCKS.register_module()
class LSA(Peer):
    """Twins' locally-grouped self-attention in 7×7 windows, LN, MLP of ratio 4 with GELU."""

    def make_block(self, channels: int, stage: StageArch, drop_path_rate: float, options: BlockOptions) -> nn.Module:
        return _OnTokens(
            _from_mmpretrain('twins', 'LSAEncoderLayer')(
                channels,
                num_heads=channels // stage.head_dim,
                feedforward_channels=4 * channels,
                window_size=7,
                drop_rate=options.drop_rate,
                attn_drop_rate=options.attn_drop_rate,
                drop_path_rate=drop_path_rate,
            )
        )


class _OnTokens(nn.Module):
    """A layer of tokens (B, N, C) and their map's size, on maps (B, C, H, W)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        size: tuple[int, int] = (x.shape[2], x.shape[3])
        tokens = self.layer(x.flatten(2).transpose(1, 2), size)  # (B, C, H, W) -> (B, H·W, C)
        return tokens.transpose(1, 2).unflatten(2, size)


@BLOCKS.register_module()
class LocalMHRA(Peer):
    """UniFormer's block of its shallow stages, which none of the MM packages nor timm has.

    Three residual steps: a depthwise 3×3 convolution for the position; BN, 1×1, depthwise 5×5 and 1×1 convolutions,
    the affinity of a 5×5 neighbourhood learnt for each channel; BN and an MLP of ratio 4 with GELU. Its BN is the
    backbone's norm.
    """

    def make_block(self, channels: int, stage: StageArch, drop_path_rate: float, options: BlockOptions) -> nn.Module:
        position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        # Named, because recipes exempt from weight decay what has `norm` in its name.
        relation = nn.Sequential(
            OrderedDict(
                norm=build_norm(options.norm_cfg, channels),
                value=nn.Conv2d(channels, channels, 1),
                affinity=nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
                projection=nn.Conv2d(channels, channels, 1),
            )
        )
        mlp = nn.Sequential(
            OrderedDict(
                norm=build_norm(options.norm_cfg, channels), mlp=Mlp(channels, 4, options.drop_rate, dict(type='GELU'))
            )
        )
        return nn.Sequential(_Residual(position), _Residual(relation, drop_path_rate), _Residual(mlp, drop_path_rate))


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.inner = inner
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.inner(x))


def _from_mmpretrain(module: str, name: str):
    """A class of MMPretrain's backbones, imported when it is needed.

    Raises:
        ImportError: MMPretrain is missing.
    """
    try:
        return getattr(importlib.import_module(f'mmpretrain.models.backbones.{module}'), name)
    except ImportError as error:
        raise ImportError(f"the block {name} is MMPretrain's: pip install mmpretrain ({error})") from error
