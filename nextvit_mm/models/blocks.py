"""The blocks of a stage: Next Convolution Block, Next Transformer Block, and the registry in which stages find them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.registry import Registry
from torch import Tensor, nn

from .arch import StageArch, split_ntb_channels
from .layers import EMHSA, MHCA, Mlp, PatchEmbed, build_norm

# What `conv_block` in an arch names, and NTB. A block is built as Block(in_channels, out_channels, stride, stage,
# drop_path_rate, options) and maps (B, in_channels, H, W) to (B, out_channels, ⌈H/stride⌉, ⌈W/stride⌉).
BLOCKS = Registry('Next-ViT block', locations=['nextvit_mm.models.peers'])


class BlockOptions(NamedTuple):
    """What all blocks of a network share.

    Attributes:
        norm_cfg, act_cfg: Norm and activation layers.
        drop_rate: Dropout rate inside the MLPs and after E-MHSA.
        attn_drop_rate: Dropout rate of the attention weights.
        sr_mode: See :class:`.layers.EMHSA`.
    """

    norm_cfg: Mapping
    act_cfg: Mapping
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    sr_mode: str = 'tokens'


@BLOCKS.register_module()
class NCB(nn.Module):
    """Next Convolution Block (Eq. 1): z̃ = MHCA(z) + z, then MLP(z̃) + z̃.

    Args:
        in_channels: Width of the input; where it differs from ``out_channels`` a PatchEmbed projects first.
        out_channels: Width of the block.
        stride: 2 halves height and width (rounding up) in that PatchEmbed, 1 keeps them.
        stage: The stage's head width and MLP ratio.
        drop_path_rate: Stochastic-depth rate of both branches.
        options: Norm, activation and dropout.
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
        self.mhca = MHCA(out_channels, stage.head_dim, options.norm_cfg, options.act_cfg)
        self.norm = build_norm(options.norm_cfg, out_channels)
        self.mlp = Mlp(out_channels, stage.ncb_mlp_ratio, options.drop_rate, options.act_cfg)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.drop_path(self.mhca(x))
        return x + self.drop_path(self.mlp(self.norm(x)))


@BLOCKS.register_module()
class NTB(nn.Module):
    """Next Transformer Block (Eq. 6): E-MHSA for low frequencies, MHCA for high ones, an MLP that mixes both.

    The input is projected to r · C channels for E-MHSA; its result is projected to the other (1 − r) · C for
    MHCA; both are concatenated to C channels for the MLP. Stochastic depth falls on the branches in proportion
    to their width: r of the block's rate on E-MHSA, 1 − r of it on MHCA, all of it on the MLP. With r = 1 there is
    E-MHSA alone, with r = 0 MHCA alone (Table 8); the other branch is None.

    Args:
        in_channels, out_channels, stride, options: As in :class:`NCB`.
        stage: The stage's head width, MLP ratio, mix ratio r and spatial reduction s.
        drop_path_rate: Stochastic-depth rate of the block.
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
        norm_cfg = options.norm_cfg
        mhsa_channels, mhca_channels = split_ntb_channels(out_channels, stage.mix_ratio, stage.head_dim)
        channels = mhsa_channels or mhca_channels  # of the first branch that there is
        self.patch_embed = PatchEmbed(in_channels, channels, stride, norm_cfg)
        self.e_mhsa = self.mhca = None
        if mhsa_channels:
            self.norm1 = build_norm(norm_cfg, mhsa_channels)
            self.e_mhsa = EMHSA(
                mhsa_channels,
                stage.head_dim,
                stage.sr_ratio,
                options.sr_mode,
                options.attn_drop_rate,
                options.drop_rate,
                norm_cfg,
            )
            self.mhsa_drop_path = DropPath(drop_path_rate * stage.mix_ratio)
        if mhca_channels:
            self.projection = PatchEmbed(channels, mhca_channels, 1, norm_cfg)
            self.mhca = MHCA(mhca_channels, stage.head_dim, norm_cfg, options.act_cfg)
            self.mhca_drop_path = DropPath(drop_path_rate * (1 - stage.mix_ratio))

        self.norm2 = build_norm(norm_cfg, out_channels)
        self.mlp = Mlp(out_channels, stage.ntb_mlp_ratio, options.drop_rate, options.act_cfg)
        self.mlp_drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)  # (B, C_in, H, W) -> (B, r·C, H', W')
        if self.e_mhsa is not None:
            x = x + self.mhsa_drop_path(self.e_mhsa(self.norm1(x)))
        if self.mhca is not None:
            high = self.projection(x)  # (B, (1-r)·C, H', W')
            high = high + self.mhca_drop_path(self.mhca(high))
            x = high if self.e_mhsa is None else torch.cat((x, high), dim=1)  # (B, C, H', W')
        return x + self.mlp_drop_path(self.mlp(self.norm2(x)))
