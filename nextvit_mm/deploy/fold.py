"""From a trained model to its inference form: a copy in which no BN is left that algebra can remove."""

import copy
from collections import Counter

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.cnn.utils import fuse_conv_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError
from ..models import NextViT
from ..models.blocks import NCB, NTB
from ..models.layers import EMHSA, MHCA, ConvNormAct, PatchEmbed

Affine = tuple[Tensor, Tensor]  # y = scale · x + shift, per channel


class FoldedEMHSA(nn.Module):
    """E-MHSA (Eq. 4 and 5) without norms: what :func:`fold` puts in the place of the block's ``norm1`` and ``e_mhsa``.

    Maps (B, C, H, W) to (B, C, H, W). Both norms and 1/√d live in the weights, K and V are one product, and neither has
    a bias: a constant that is added to every key changes no softmax, and one that is added to every value passes it
    unchanged into the bias of ``proj``.
    """

    def __init__(self, source: EMHSA) -> None:
        super().__init__()
        self.head_dim = source.head_dim
        self.sr_ratio = source.sr_ratio
        self.sr_mode = source.sr_mode
        if source.sr_ratio > 1:
            self.pool = source.pool
        channels, like = source.q.in_features, dict(device=source.q.weight.device, dtype=source.q.weight.dtype)
        self.q = nn.Linear(channels, channels, **like)
        self.kv = nn.Linear(channels, 2 * channels, bias=False, **like)
        self.proj = nn.Linear(channels, channels, **like)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, N, C)
        k, v = self.kv(self.reduce(x, tokens)).chunk(2, dim=2)  # each (B, M, C)
        q, k, v = map(self.split_heads, (self.q(tokens), k, v))
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        out = self.proj(out.transpose(1, 2).flatten(2))  # (B, heads, N, head_dim) -> (B, N, C)
        return out.transpose(1, 2).reshape(B, C, H, W)

    def reduce(self, x: Tensor, tokens: Tensor) -> Tensor:
        """P_s: map (B, C, H, W) and its tokens (B, N, C) -> (B, M, C)."""
        if self.sr_ratio == 1:
            return tokens
        return self.pool(tokens) if self.sr_mode == 'tokens' else self.pool(x).flatten(2).transpose(1, 2)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.head_dim)).transpose(1, 2)  # (B, N, C) -> (B, heads, N, head_dim)


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """The inference form of a model: an eval-mode copy that computes the same with fewer operations.

    In every Next-ViT of the model, whatever its size, each BN goes into the linear map beside it: that of stem, MHCA
    and PatchEmbed into the convolution before it; that of the MLPs into the 1×1 convolution after it; those around
    E-MHSA's pooling into its queries, keys and values (pooling is linear, and averages of an affine map are the affine
    map of the averages); an output norm whose map only goes on to the next stage into that stage's PatchEmbed; that of
    a classifier into its linear head, behind the global average. Keys and values become one product, 1/√d and
    constants are absorbed (:class:`FoldedEMHSA`). mmcv's ``ConvModule`` of convolution and BN, of which necks and heads
    are made, goes through mmcv's ``fuse_conv_bn``.

    What stays, because it cannot be moved: an output norm whose map also leaves the network (``out_norm='all'``, and
    ``'last'`` of a backbone, or of a classifier with another neck or head). Its input is the sum of a residual branch,
    and whoever takes the map wants it normed. Norms other than BN stay too: they depend on their input. In heads, what
    is no ``ConvModule``, or shares its convolution among several BN, is left as it is.

    Args:
        model: A :class:`nextvit_mm.NextViT`, or a detector, segmentor or classifier with one. It is left as it is.

    Returns:
        nn.Module: A copy, on the same device, in eval mode, without gradients. It cannot be trained, and its weights
        fit folded models only.

    Raises:
        UserError: The model has no Next-ViT, or is folded already.
    """
    if any(isinstance(module, FoldedEMHSA) for module in model.modules()):
        raise UserError('this model is folded already: fold the trained model, once')
    if not any(isinstance(module, NextViT) for module in model.modules()):
        raise UserError(f'{type(model).__name__} has no Next-ViT to fold')
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if isinstance(module, NextViT):
            _fold_backbone(module)
    _fold_classifier(model)
    _fold_conv_modules(model)
    return model.requires_grad_(False)


def remaining_norms(model: nn.Module) -> list[str]:
    """Names of the BN layers that a model still has, those of :func:`fold`'s docstring in a folded one."""
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def _fold_backbone(backbone: NextViT) -> None:
    for module in list(backbone.modules()):
        if isinstance(module, (ConvNormAct, PatchEmbed)):
            _fold_after(module, 'conv', 'norm')
        elif isinstance(module, MHCA):
            _fold_after(module, 'group_conv3x3', 'norm')
        elif isinstance(module, NCB):
            _fold_before(module, 'norm', module.mlp, 'fc1')
        elif isinstance(module, NTB):
            _fold_before(module, 'norm2', module.mlp, 'fc1')
            if module.e_mhsa is not None:
                _fold_attention(module)
    for i in range(len(backbone.stages) - 1):
        if i not in backbone.out_indices:
            _fold_before(backbone, f'norm{i}', backbone.stages[i + 1].blocks[0].patch_embed, 'conv')


def _fold_classifier(model: nn.Module) -> None:
    """The norm after the last stage into ``head.fc``, where nothing but a global average lies between them."""
    backbone, neck, head = (getattr(model, name, None) for name in ('backbone', 'neck', 'head'))
    averaged = type(neck).__name__ == 'GlobalAveragePooling' and isinstance(
        getattr(neck, 'gap', None), nn.AdaptiveAvgPool2d
    )
    if not (averaged and isinstance(backbone, NextViT) and type(head).__name__ == 'LinearClsHead'):
        return
    last = len(backbone.stages) - 1
    if backbone.out_indices == (last,):
        _fold_before(backbone, f'norm{last}', head, 'fc')


def _fold_conv_modules(model: nn.Module) -> None:
    """Convolution and BN of every ConvModule, by mmcv's function.

    On a whole model that function joins any BN to whichever convolution was registered before it, also where they are
    no pair, and rescales a shared convolution once for each BN.
    """
    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for module in list(model.modules()):
        if isinstance(module, ConvModule) and module.order[:2] == ('conv', 'norm') and module.with_norm:
            norm = module.norm
            foldable = isinstance(norm, _BatchNorm) and norm.affine and norm.running_var is not None
            once = uses[id(module.conv)] == uses[id(norm)] == 1
            if foldable and once and type(module.conv) is nn.Conv2d:
                fuse_conv_bn(module)


def _fold_after(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    """norm(conv(x)): scale · (W x + b) + shift."""
    conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
    if not isinstance(norm, _BatchNorm):
        return
    scale, shift = _affine(norm)
    weight, bias = _weight_and_bias(conv)
    _set(conv, weight * scale.view(-1, *[1] * (weight.dim() - 1)), bias * scale + shift)
    setattr(parent, norm_name, nn.Identity())


def _fold_before(norm_parent: nn.Module, norm_name: str, linear_parent: nn.Module, linear_name: str) -> None:
    """linear(norm(x)) of a 1×1 convolution or linear layer: W (scale · x + shift) + b."""
    norm, linear = getattr(norm_parent, norm_name), getattr(linear_parent, linear_name)
    if not isinstance(norm, _BatchNorm):
        return
    _set(linear, *_absorb(*_weight_and_bias(linear), _affine(norm)))
    setattr(norm_parent, norm_name, nn.Identity())


def _fold_attention(block: NTB) -> None:
    """norm1, E-MHSA's own norm, 1/√d and the constants into q, kv and proj."""
    source = block.e_mhsa
    norms = [block.norm1] + ([source.norm] if source.sr_ratio > 1 else [])
    if not all(isinstance(norm, _BatchNorm) for norm in norms):
        return
    folded = FoldedEMHSA(source)
    before = _affine(block.norm1)
    q_weight, q_bias = _absorb(*_weight_and_bias(source.q), before)
    _set(folded.q, q_weight * source.head_dim**-0.5, q_bias * source.head_dim**-0.5)
    # Channels pass the pooling apart from each other, so that both norms are one: scale₂ (scale₁ x + shift₁) + shift₂.
    for norm in norms[1:]:
        scale, shift = _affine(norm)
        before = before[0] * scale, before[1] * scale + shift
    k_weight, _ = _absorb(*_weight_and_bias(source.k), before)
    v_weight, v_bias = _absorb(*_weight_and_bias(source.v), before)
    folded.kv.weight = nn.Parameter(torch.cat((k_weight, v_weight)).to(source.k.weight.dtype))
    weight, bias = _weight_and_bias(source.proj)
    _set(folded.proj, weight, bias + weight @ v_bias)
    block.norm1, block.e_mhsa = nn.Identity(), folded.eval()


def _affine(norm: _BatchNorm) -> Affine:
    """What a BN computes in eval mode, in double precision."""
    if norm.running_var is None:
        raise UserError("a BN without running statistics cannot be folded: it needs each batch's own")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _absorb(weight: Tensor, bias: Tensor, affine: Affine) -> Affine:
    """Weight and bias of W (scale · x + shift) + b, where W is (out, in) or (out, in, 1, 1)."""
    scale, shift = affine
    new_bias = bias + weight.flatten(1) @ shift
    return weight * scale.view(1, -1, *[1] * (weight.dim() - 2)), new_bias


def _weight_and_bias(linear: nn.Module) -> Affine:
    weight = linear.weight.double()
    return weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.double()


def _set(linear: nn.Module, weight: Tensor, bias: Tensor) -> None:
    dtype = linear.weight.dtype
    linear.weight = nn.Parameter(weight.to(dtype))
    linear.bias = nn.Parameter(bias.to(dtype))
