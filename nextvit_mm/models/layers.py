"""The layers that Next-ViT's blocks are made of.

Every layer maps (B, C, H, W) to (B, C', H', W') and keeps the memory format that it gets: in channels-last the
tokens of attention, (B, H·W, C), are a view of the feature map, so that no transpose is ever copied.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn


def build_norm(norm_cfg: Mapping, channels: int) -> nn.Module:
    """A norm layer over the channels of a (B, C, H, W) tensor."""
    return build_norm_layer(norm_cfg, channels)[1]


class ConvNormAct(nn.Module):
    """3×3 convolution without bias, norm, activation: the layer of the stem (Table 3)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm_cfg: Mapping, act_cfg: Mapping) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = build_norm(norm_cfg, out_channels)
        self.act = build_activation_layer(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class CeilAvgPool2d(nn.AvgPool2d):
    """Average over s × s windows with stride s; sizes round up, and at the edge a window averages what is there.

    (B, C, H, W) -> (B, C, ⌈H/s⌉, ⌈W/s⌉).
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__(kernel_size, stride=kernel_size, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        if any(isinstance(size, torch.SymInt) for size in x.shape[2:]):
            return self._symbolic_forward(x)
        return super().forward(x)

    def _symbolic_forward(self, x: Tensor) -> Tensor:
        """The same for ``torch.export`` with dynamic sizes, where torch's pooling pins H and W to even or odd."""
        s = self.kernel_size
        H, W = x.shape[2:]
        rows, columns = (H + s - 1) // s, (W + s - 1) // s
        x = F.pad(x, (0, columns * s - W, 0, rows * s - H))
        sums = x.unfold(2, s, s).unfold(3, s, s).sum((4, 5))  # (B, C, rows, columns, s, s) -> (B, C, rows, columns)
        heights = (H - s * torch.arange(rows, device=x.device)).clamp(max=s)
        widths = (W - s * torch.arange(columns, device=x.device)).clamp(max=s)
        return sums / (heights[:, None] * widths).to(x.dtype)


class PatchEmbed(nn.Module):
    """2×2 average pooling where ``stride`` is 2, then 1×1 convolution and norm where anything changes (Table 3).

    Odd sizes are rounded up, and the window that hangs over the edge averages only what is there. With stride 1
    and equal widths the layer passes its input through.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm_cfg: Mapping) -> None:
        super().__init__()
        self.pool = self.conv = self.norm = nn.Identity()
        if stride == 2:
            self.pool = CeilAvgPool2d(2)
        if stride == 2 or in_channels != out_channels:
            self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.norm = build_norm(norm_cfg, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.pool(x)))


class Mlp(nn.Module):
    """Two 1×1 convolutions with an activation between them, C → ratio · C → C."""

    def __init__(self, channels: int, ratio: float, drop_rate: float, act_cfg: Mapping) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class MHCA(nn.Module):
    """Multi-Head Convolutional Attention (Eq. 2 and 3): a 3×3 convolution per head, norm, activation, projection."""

    def __init__(self, channels: int, head_dim: int, norm_cfg: Mapping, act_cfg: Mapping) -> None:
        super().__init__()
        self.group_conv3x3 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels // head_dim, bias=False)
        self.norm = build_norm(norm_cfg, channels)
        self.act = build_activation_layer(act_cfg)
        self.projection = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.act(self.norm(self.group_conv3x3(x))))


class TokenAvgPool(nn.Module):
    """Average over runs of s² consecutive tokens in row-major order; a tail of fewer is dropped.

    (B, N, C) -> (B, ⌊N / s²⌋, C). What AvgPool1d does, as a mean over a view of the tokens, which is many times
    faster than either pooling operator.
    """

    def __init__(self, run: int) -> None:
        super().__init__()
        self.run = run

    def forward(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1] // self.run
        return tokens.narrow(1, 0, count * self.run).unflatten(1, (count, self.run)).mean(2)

    def extra_repr(self) -> str:
        return f'run={self.run}'


class EMHSA(nn.Module):
    """Efficient Multi-Head Self-Attention (Eq. 4 and 5): queries from every token, keys and values from averages.

    Args:
        channels: Width C of input and output.
        head_dim: Channels of a head.
        sr_ratio: s; each key and value stands for s² tokens. With 1 there is neither pooling nor norm.
        sr_mode: What P_s averages over. ``'tokens'``: s² consecutive tokens in row-major order, where a tail of
            fewer is dropped; every released weight was trained so. ``'windows'``: s × s windows of the map, those
            at the edge over what is there.
        attn_drop_rate: Dropout rate of the attention weights.
        drop_rate: Dropout rate of the output.
        norm_cfg: Norm after P_s.
    """

    SR_MODES = ('tokens', 'windows')

    def __init__(
        self,
        channels: int,
        head_dim: int,
        sr_ratio: int,
        sr_mode: str,
        attn_drop_rate: float,
        drop_rate: float,
        norm_cfg: Mapping,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.sr_ratio = sr_ratio
        self.sr_mode = sr_mode
        self.attn_drop_rate = attn_drop_rate
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        if sr_ratio > 1:
            self.pool = TokenAvgPool(sr_ratio**2) if sr_mode == 'tokens' else CeilAvgPool2d(sr_ratio)
            self.norm = build_norm(norm_cfg, channels)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, N, C), N = H·W
        reduced = tokens if self.sr_ratio == 1 else self.reduce(x, tokens)  # (B, M, C)
        out = F.scaled_dot_product_attention(
            self.split_heads(self.q(tokens)),  # (B, heads, N, head_dim)
            self.split_heads(self.k(reduced)),  # (B, heads, M, head_dim)
            self.split_heads(self.v(reduced)),
            dropout_p=self.attn_drop_rate if self.training else 0.0,
        )
        out = out.transpose(1, 2).flatten(2)  # (B, heads, N, head_dim) -> (B, N, C)
        out = self.proj_drop(self.proj(out))
        return out.transpose(1, 2).reshape(B, C, H, W)

    def reduce(self, x: Tensor, tokens: Tensor) -> Tensor:
        """P_s and its norm: map (B, C, H, W) and its tokens (B, N, C) -> (B, M, C); M = ⌊N/s²⌋, or ⌈H/s⌉·⌈W/s⌉."""
        tokens = self.pool(x).flatten(2).transpose(1, 2) if self.sr_mode == 'windows' else self.pool(tokens)
        B, M, C = tokens.shape
        # The norm is over channels; one token a sample is the shape in which every norm layer sees it so.
        return self.norm(tokens.reshape(B * M, C, 1, 1)).reshape(B, M, C)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.head_dim)).transpose(1, 2)  # (B, N, C) -> (B, heads, N, head_dim)
