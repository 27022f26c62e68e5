"""Next-ViT as an MMEngine backbone."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from .arch import Arch, StageArch, linear_drop_path_rates, parse_arch
from .blocks import BLOCKS, BlockOptions
from .layers import EMHSA, ConvNormAct, build_norm
from .recompute import recomputed

OUT_NORMS = ('none', 'last', 'all')


@MODELS.register_module()
class NextViT(BaseModule):
    """Next-ViT (`arXiv 2207.05501 <https://arxiv.org/abs/2207.05501>`_) for detection, segmentation, classification.

    Maps an image batch (B, in_channels, H, W) to a tuple of feature maps (B, C_i, ⌈H/s_i⌉, ⌈W/s_i⌉), one for each
    of ``out_indices``: s = 4, 8, 16, 32 and, in the published variants, C = 96, 256, 512, 1024. Any height and
    width will do from 25 × 25 on (in the published variants). Channels-last input stays channels-last all the way,
    without a copy.

    Args:
        arch: ``'small'``, ``'base'``, ``'large'`` (Table 3), or a dict with the keys of
            :data:`nextvit_mm.models.arch.ARCHS`. Default ``'small'``.
        in_channels: Channels of the input image. Weights for three channels are adapted to others. Default 3.
        drop_path_rate: Largest stochastic-depth rate; grows linearly from 0 over the blocks. Published: detection
            0.1 / 0.2 / 0.2 for S / B / L, segmentation 0.2. Default 0.
        drop_rate: Dropout rate inside the MLPs and after attention. Default 0.
        attn_drop_rate: Dropout rate of the attention weights. Default 0.
        out_indices: Stages whose maps are returned, in ascending order of stage; negative numbers count from the
            end. Stages after the last one asked for are neither built nor run. Default (0, 1, 2, 3).
        out_norm: ``'none'`` (published detectors); ``'last'``: a norm after the network's last stage (classifiers);
            ``'all'``: a norm after every stage (segmentors). As in the release, a normed map is also what goes on
            to the next stage. Default ``'none'``.
        frozen_stages: -1 trains everything; 0 freezes the stem; k freezes the stem and stages 1 to k. A frozen
            part gets no gradient and stays in eval mode. With other than three input channels the stem learns in any
            case, because no published one has seen such pictures. Default -1.
        norm_eval: Keep every BN of the backbone in eval mode while training. Default False.
        sr_mode: What E-MHSA's spatial reduction averages over, ``'tokens'`` (released weights) or true 2-D
            ``'windows'``; see :class:`nextvit_mm.models.layers.EMHSA`. Default ``'tokens'``.
        with_cp: Recompute each block in the backward pass (gradient checkpointing) to save memory; running
            statistics are still updated once a step. Default False.
        norm_cfg: Config of the norm layers. Default ``dict(type='BN')``.
        act_cfg: Config of the activations. Default ``dict(type='ReLU', inplace=True)``.
        init_cfg: MMEngine initialisation. None takes the published one: every convolution and linear weight from a
            normal distribution of σ = 0.02 truncated at ±2, biases 0.

    Attributes:
        out_channels (tuple[int]): Channels of the returned maps, for a neck's ``in_channels``.
        strides (tuple[int]): Their strides in pixels of the input.

    Raises:
        ValueError: An argument that makes no sense, with its name; an input too small for E-MHSA's reduction.

    Example:
        >>> import torch
        >>> from nextvit_mm import NextViT
        >>> backbone = NextViT('small').eval()
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 224, 224))]
        [(1, 96, 56, 56), (1, 256, 28, 28), (1, 512, 14, 14), (1, 1024, 7, 7)]
    """

    # Called as f(backbone, state_dict, prefix) before weights are loaded. nextvit_mm.weights adds one that turns other
    # dialects' names into ours in place, so that the authors' detectors load wherever ours do.
    load_adapters: ClassVar[list[Callable[['NextViT', dict[str, Tensor], str], None]]] = []

    init_cfg: Any  # of MMEngine's BaseModule: a config, several, or None

    def __init__(
        self,
        arch: str | Mapping = 'small',
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_norm: str = 'none',
        frozen_stages: int = -1,
        norm_eval: bool = False,
        sr_mode: str = 'tokens',
        with_cp: bool = False,
        norm_cfg: Mapping = dict(type='BN'),
        act_cfg: Mapping = dict(type='ReLU', inplace=True),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02))
        self.arch: Arch = parse_arch(arch)
        num_stages = len(self.arch.stages)
        if not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f'in_channels={in_channels!r} must be an integer of at least 1')
        self.out_indices = _normalise_out_indices(out_indices, num_stages)
        for name, rate in (
            ('drop_path_rate', drop_path_rate),
            ('drop_rate', drop_rate),
            ('attn_drop_rate', attn_drop_rate),
        ):
            if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ValueError(f'{name}={rate!r} must lie in [0, 1)')
        _check_choice('out_norm', out_norm, OUT_NORMS)
        _check_choice('sr_mode', sr_mode, EMHSA.SR_MODES)
        if frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(f'frozen_stages={frozen_stages!r} must lie between -1 and {num_stages}')
        if out_norm == 'last' and self.out_indices[-1] != num_stages - 1:
            raise ValueError(
                f"out_norm='last' is a norm after stage {num_stages}, which out_indices={tuple(out_indices)} leaves out"
            )
        self.in_channels = in_channels
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

        self.stem = self._make_stem(in_channels, self.arch.stem_channels, norm_cfg, act_cfg)
        built = self.arch.stages[: self.out_indices[-1] + 1]
        rates = linear_drop_path_rates(self.arch, drop_path_rate)
        options = BlockOptions(norm_cfg, act_cfg, drop_rate, attn_drop_rate, sr_mode)
        self.stages = nn.ModuleList()
        channels = self.arch.stem_channels[-1]
        for i, stage in enumerate(built):
            self.stages.append(
                self._make_stage(stage, channels, stride=1 if i == 0 else 2, drop_path_rates=rates[i], options=options)
            )
            channels = stage.out_channels
            normed = out_norm == 'all' or (out_norm == 'last' and i == num_stages - 1)
            self.add_module(f'norm{i}', build_norm(norm_cfg, channels) if normed else nn.Identity())

        self.out_channels: tuple[int, ...] = tuple(built[i].out_channels for i in self.out_indices)
        self.strides: tuple[int, ...] = tuple(4 * 2**i for i in self.out_indices)
        self._token_reductions = _token_reductions(built) if sr_mode == 'tokens' else ()
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, H, W) -> the maps of ``out_indices``, each (B, C_i, ⌈H/s_i⌉, ⌈W/s_i⌉)."""
        self._check_size(*x.shape[-2:])
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = recomputed(block, x) if self.with_cp and x.requires_grad else block(x)
            x = getattr(self, f'norm{i}')(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; a ``Pretrained`` checkpoint fits or raises.

        MMEngine's own ``Pretrained`` would load what happens to match and start with random weights where nothing
        does; :class:`nextvit_mm.weights.NextViTPretrained` knows the published dialects and is strict.
        """
        given = self.init_cfg
        configs = given if isinstance(given, (list, tuple)) else [given]
        pretrained = [dict(c, type='NextViTPretrained') for c in configs if _is_pretrained(c)]
        # Last, as MMEngine orders its own, so that no other initialisation comes over the weights.
        self.init_cfg = [c for c in configs if not _is_pretrained(c)] + pretrained
        try:
            super().init_weights()
        finally:
            self.init_cfg = given

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
        for adapt in self.load_adapters:
            adapt(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> 'NextViT':
        """Set the mode; frozen parts, and with ``norm_eval`` every BN, stay in eval mode."""
        super().train(mode)
        if mode:
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
            self._freeze_stages()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for :class:`nextvit_mm.NextViTLayerDecayConstructor` and MMPretrain's own.

        The stem has depth 0, each block one more than the block before it, an output norm the depth of the block
        before it, and whatever lies outside the backbone the last depth.

        Returns:
            tuple[int, int]: The parameter's depth, and the number of depths.
        """
        depths = [len(stage.blocks) for stage in self.stages]
        last = sum(depths) + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        name = param_name[len(prefix) :].split('.')
        if name[0] == 'stem':
            depth = 0
        elif name[0] == 'stages':  # stages.{stage}.blocks.{block}.…
            depth = sum(depths[: int(name[1])]) + int(name[3]) + 1
        elif name[0].startswith('norm'):  # norm{stage}.…
            depth = sum(depths[: int(name[0][len('norm') :]) + 1])
        else:
            depth = last
        return depth, last + 1

    @staticmethod
    def _make_stem(
        in_channels: int, widths: tuple[int, int, int], norm_cfg: Mapping, act_cfg: Mapping
    ) -> nn.Sequential:
        """Four 3×3 convolutions, of which the first and the last halve the map (Table 3)."""
        c1, c2, c3 = widths
        layers = [(in_channels, c1, 2), (c1, c2, 1), (c2, c3, 1), (c3, c3, 2)]
        return nn.Sequential(*(ConvNormAct(*layer, norm_cfg, act_cfg) for layer in layers))

    @staticmethod
    def _make_stage(
        stage: StageArch, in_channels: int, stride: int, drop_path_rates: Sequence[float], options: BlockOptions
    ) -> nn.Sequential:
        """The blocks of one stage as ``stages.{i}.blocks.{j}``; the first one halves the map where stride is 2."""
        blocks = []
        for (kind, channels), rate in zip(stage.blocks, drop_path_rates):
            block = BLOCKS.get(kind)
            if block is None:
                raise ValueError(
                    f'conv_block={kind!r} is not a block: take one of '
                    f'{", ".join(sorted(BLOCKS.module_dict))}, or register yours in '
                    'nextvit_mm.models.blocks.BLOCKS'
                )
            blocks.append(block(in_channels, channels, stride, stage, rate, options))
            in_channels, stride = channels, 1
        return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = [self.stem] if self.in_channels == 3 else []
        for i in range(min(self.frozen_stages, len(self.stages))):
            frozen += [self.stages[i], getattr(self, f'norm{i}')]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def _check_size(self, height: int, width: int) -> None:
        """Refuse an input that leaves E-MHSA fewer tokens than one average takes.

        Sizes that a tracer or exporter holds as symbols are not plain integers and pass: what they will be is
        not known yet.
        """
        if not (isinstance(height, int) and isinstance(width, int)):
            return
        for stride, sr_ratio in self._token_reductions:
            rows, columns = -(-height // stride), -(-width // stride)
            if rows * columns < sr_ratio**2:
                least = max(s * (sr - 1) + 1 for s, sr in self._token_reductions)
                raise InputError(
                    f'an input of {height}×{width} is too small: at stride {stride} it leaves '
                    f'{rows}×{columns} tokens, and E-MHSA averages {sr_ratio**2} of them into one; the '
                    f'least square input is {least}×{least}'
                )


def _token_reductions(stages: Sequence[StageArch]) -> tuple[tuple[int, int], ...]:
    """(stride, s) of every stage whose E-MHSA averages runs of s² tokens."""
    return tuple(
        (4 * 2**i, stage.sr_ratio)
        for i, stage in enumerate(stages)
        if stage.num_ntb and stage.mix_ratio > 0 and stage.sr_ratio > 1
    )


def _normalise_out_indices(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    if not isinstance(out_indices, Sequence) or isinstance(out_indices, str) or not out_indices:
        raise ValueError(f'out_indices={out_indices!r} must be a sequence of stage numbers')
    for i in out_indices:
        if not isinstance(i, int) or not -num_stages <= i < num_stages:
            raise ValueError(
                f'out_indices={tuple(out_indices)}: {i!r} is not a stage, of which there are '
                f'{num_stages}, 0 to {num_stages - 1} (or -{num_stages} to -1)'
            )
    indices = sorted(i % num_stages for i in out_indices)
    if len(set(indices)) != len(indices):
        raise ValueError(f'out_indices={tuple(out_indices)} names a stage twice')
    return tuple(indices)


def _is_pretrained(init_cfg: dict) -> bool:
    """Whether MMEngine would load a checkpoint for it: ``'Pretrained'``, with or without scope, or the class."""
    kind = init_cfg['type']
    return kind.split('.')[-1] == 'Pretrained' if isinstance(kind, str) else issubclass(kind, PretrainedInit)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f'{name}={value!r} must be one of {", ".join(map(repr, choices))}')
