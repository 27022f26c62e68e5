"""Next Convolution Block and Next Transformer Block."""
import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .arch import StageArch, split_ntb_channels
from .layers import EMHSA, MHCA, Mlp, PatchEmbed, build_norm


class NCB(nn.Module):
    """Next Convolution Block (Eq. 1): z̃ = MHCA(z) + z, then MLP(z̃) + z̃.

    Args:
        in_channels: Width of the input; where it differs from ``out_channels`` a PatchEmbed projects first.
        out_channels: Width of the block.
        stride: 2 halves height and width (rounding up) in that PatchEmbed, 1 keeps them.
        stage: The stage's head width and MLP ratio.
        drop_path_rate: Stochastic-depth rate of both branches.
        drop_rate: Dropout rate inside the MLP.
        norm_cfg, act_cfg: Norm and activation layers.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, stage: StageArch, drop_path_rate: float,
                 drop_rate: float, norm_cfg: dict, act_cfg: dict) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(in_channels, out_channels, stride, norm_cfg)
        self.mhca = MHCA(out_channels, stage.head_dim, norm_cfg, act_cfg)
        self.norm = build_norm(norm_cfg, out_channels)
        self.mlp = Mlp(out_channels, stage.ncb_mlp_ratio, drop_rate, act_cfg)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.drop_path(self.mhca(x))
        return x + self.drop_path(self.mlp(self.norm(x)))


class NTB(nn.Module):
    """Next Transformer Block (Eq. 6): E-MHSA for low frequencies, MHCA for high ones, an MLP that mixes both.

    The input is projected to r · C channels for E-MHSA; its result is projected to the other (1 − r) · C for
    MHCA; both are concatenated to C channels for the MLP. Stochastic depth falls on the branches in proportion
    to their width: r of the block's rate on E-MHSA, 1 − r of it on MHCA, all of it on the MLP.

    Args:
        in_channels, out_channels, stride, norm_cfg, act_cfg: As in :class:`NCB`.
        stage: The stage's head width, MLP ratio, mix ratio r and spatial reduction s.
        sr_mode: See :class:`EMHSA`.
        drop_path_rate: Stochastic-depth rate of the block.
        drop_rate: Dropout rate inside the MLP and after E-MHSA.
        attn_drop_rate: Dropout rate of the attention weights.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, stage: StageArch, sr_mode: str,
                 drop_path_rate: float, drop_rate: float, attn_drop_rate: float, norm_cfg: dict,
                 act_cfg: dict) -> None:
        super().__init__()
        mhsa_channels, mhca_channels = split_ntb_channels(out_channels, stage.mix_ratio, stage.head_dim)
        self.patch_embed = PatchEmbed(in_channels, mhsa_channels, stride, norm_cfg)
        self.norm1 = build_norm(norm_cfg, mhsa_channels)
        self.e_mhsa = EMHSA(mhsa_channels, stage.head_dim, stage.sr_ratio, sr_mode, attn_drop_rate, drop_rate,
                            norm_cfg)
        self.mhsa_drop_path = DropPath(drop_path_rate * stage.mix_ratio)

        self.projection = PatchEmbed(mhsa_channels, mhca_channels, 1, norm_cfg)
        self.mhca = MHCA(mhca_channels, stage.head_dim, norm_cfg, act_cfg)
        self.mhca_drop_path = DropPath(drop_path_rate * (1 - stage.mix_ratio))

        self.norm2 = build_norm(norm_cfg, out_channels)
        self.mlp = Mlp(out_channels, stage.ntb_mlp_ratio, drop_rate, act_cfg)
        self.mlp_drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        low = self.patch_embed(x)  # (B, C_in, H, W) -> (B, r·C, H', W')
        low = low + self.mhsa_drop_path(self.e_mhsa(self.norm1(low)))
        high = self.projection(low)  # (B, (1-r)·C, H', W')
        high = high + self.mhca_drop_path(self.mhca(high))
        x = torch.cat((low, high), dim=1)  # (B, C, H', W')
        return x + self.mlp_drop_path(self.mlp(self.norm2(x)))
