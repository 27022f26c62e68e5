"""Parameters and multiply-adds of any MM config: what the model has, and as the paper counted."""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from ..adapt.look import norms_keep_shapes, without_weights
from ..errors import UserError
from ..models.layers import CeilAvgPool2d, TokenAvgPool
from ..utils.logs import quiet_log
from .flops import multiply_adds

# Images at which the paper counted (captions of Tables 5 and 6), and a classifier's usual one.
SIZES: dict[str, tuple[int, int]] = dict(mmdet=(800, 1280), mmseg=(512, 2048), mmpretrain=(224, 224))
NUM_BOXES, NUM_MASKS = 1000, 100  # regions that an RoI head's box and mask branches are counted on
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Part:
    """A part of a model: parameters and multiply-adds."""

    name: str
    params: int
    flops: int


@dataclass(frozen=True)
class Complexity:
    """What :func:`count_complexity` found.

    Attributes:
        size: Height and width of the image.
        params: Parameters.
        flops: Multiply-adds of every convolution, linear layer and matrix product, attention's included.
        published_params: As the paper's tables count. Dense models: the trainable parameters, and those of the
            ImageNet classifier that the authors' dense backbones still carried. Classifiers: all.
        published_flops: As the paper's tables count. Dense models: layer by layer, as mmcv 1.x does: convolutions
            and linear layers, the elements of norms twice, of activations and poolings once, no matrix products.
            Classifiers: every multiply-add and the elements of norms twice, as fvcore does.
        parts: What makes up ``params`` and ``flops``.
        not_run: Parts with convolutions or linear layers that inference on one image did not reach, and whose
            multiply-adds are not in ``flops``: heads that only train, and what :func:`count_complexity` cannot run.
    """

    size: tuple[int, int]
    params: int
    flops: int
    published_params: int
    published_flops: int
    parts: list[Part]
    not_run: list[str]


def count_complexity(config: Config, size: tuple[int, int] | None = None) -> Complexity:
    """Count the parameters and multiply-adds of a config's model for one image.

    Nothing is computed: the model runs on PyTorch's meta device, on shapes alone. A detector with an RoI head is
    counted on 1,000 boxes and 100 masks (their pooling, interpolation and NMS are not multiply-adds and not counted).

    Args:
        config: A config of MMDetection, MMSegmentation or MMPretrain; of the model, ``model`` and
            ``default_scope`` are read.
        size: Height and width. Default: 800 × 1280 for detection, 512 × 2048 for segmentation, 224 × 224 for
            classification.

    Returns:
        Complexity: Of an image of that size.

    Raises:
        UserError: The config has no model, or one that cannot run on shapes alone.
    """
    scope = config.get('default_scope')
    if 'model' not in config or scope not in SIZES:
        raise UserError(
            f'complexity needs a config with a model and default_scope of {", ".join(SIZES)}; '
            f'this one has default_scope={scope!r}'
        )
    init_default_scope(scope)
    sides = tuple(size or SIZES[scope])
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f'the size of the image must be a height and a width in pixels, not {sides}')
    height, width = sides
    # Weights are not needed, and SyncBN would refuse a device other than a GPU.
    model_cfg = without_weights(config.model)
    try:
        with warnings.catch_warnings(), quiet_log():
            warnings.simplefilter('ignore')  # of the MM libraries, about themselves
            model = _build(model_cfg)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        run = _OneImage(revert_sync_batchnorm(model).eval().to('meta'))
        image = torch.empty(1, model_cfg.get('backbone', {}).get('in_channels', 3), height, width, device='meta')
        by_module, by_layer, norms = _count(run, image)
    except Exception as error:  # any model of any library; whatever it raises, it is this model that cannot be counted
        raise UserError(
            f'{model_cfg.get("type")} cannot be counted at {height}×{width}: {type(error).__name__}: {error}'
        ) from error
    params = sum(p.numel() for p in model.parameters())
    dense = scope != 'mmpretrain'
    parts = _parts(model, by_module)
    return Complexity(
        size=(height, width),
        params=params,
        flops=by_module['total'],
        published_params=trainable + _carried_classifier(model) if dense else params,
        published_flops=by_layer if dense else by_module['total'] + norms,
        parts=parts,
        not_run=[part.name for part in parts if not part.flops and _multiplies(model.get_submodule(part.name))],
    )


def _build(model_cfg: dict) -> nn.Module:
    """The model on the meta device, where no weight is made; on the CPU if a constructor wants values of tensors."""
    try:
        with torch.device('meta'):
            return MODELS.build(copy.deepcopy(model_cfg))
    except Exception:  # Swin's, for one; what is wrong with the config itself is said by the second try
        return MODELS.build(model_cfg)


class _OneImage(nn.Module):
    """A model's inference on one image, without what is not multiply-adds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> None:
        model = self.model
        if not getattr(model, 'with_roi_head', False):
            model(image, mode='tensor')
            return
        features = model.extract_feat(image)
        if getattr(model, 'with_rpn', False):
            model.rpn_head(features)
        self._run_heads(NUM_BOXES, model.roi_head.bbox_roi_extractor, model.roi_head.bbox_head)
        if model.roi_head.with_mask:
            self._run_heads(NUM_MASKS, model.roi_head.mask_roi_extractor, model.roi_head.mask_head)

    @staticmethod
    def _run_heads(regions: int, extractors: nn.Module, heads: nn.Module) -> None:
        """Run one head, or each of a cascade, on pooled regions of the right shape."""
        cascade = isinstance(heads, nn.ModuleList)
        for extractor, head in zip(extractors, heads) if cascade else [(extractors, heads)]:
            pooled = extractor.roi_layers[0].output_size
            head(torch.empty(regions, extractor.out_channels, *pooled, device='meta'))


def _count(run: nn.Module, image: Tensor) -> tuple[dict[str, int], int, int]:
    """Multiply-adds by module; the layer-by-layer count; elements of the norms, twice."""
    layers: list[tuple[nn.Module, int]] = []

    def record(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        layers.append((module, _layer_flops(module, inputs[0], output)))

    norms_keep_shapes(run)
    handles = [module.register_forward_hook(record) for module in run.modules() if _rule(module)]
    try:
        with torch.no_grad():
            found = multiply_adds(lambda: run(image), run)
    finally:
        for handle in handles:
            handle.remove()
    root = f'{type(run).__name__}.model.'
    by_module = {name[len(root) :]: count for name, count in found.by_module.items() if name.startswith(root)}
    by_module['total'] = found.total
    norms = sum(flops for module, flops in layers if isinstance(module, NORMS))
    return by_module, sum(flops for _, flops in layers), norms


CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
DECONVS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)
ACTIVATIONS = (nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6)
POOLS = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    CeilAvgPool2d,
    TokenAvgPool,
)


def _conv(module: nn.Module, x: Tensor, y: Tensor) -> int:
    macs = y.numel() * module.in_channels // module.groups * math.prod(module.kernel_size)
    return macs + (y.numel() if module.bias is not None else 0)


def _deconv(module: nn.Module, x: Tensor, y: Tensor) -> int:
    macs = x.numel() * module.out_channels // module.groups * math.prod(module.kernel_size)
    return macs + (y.numel() if module.bias is not None else 0)


def _linear(module: nn.Module, x: Tensor, y: Tensor) -> int:
    return x.numel() * y.shape[-1]


def _norm(module: nn.Module, x: Tensor, y: Tensor) -> int:
    affine = getattr(module, 'affine', getattr(module, 'elementwise_affine', False))
    return x.numel() * (2 if affine else 1)


def _elements(module: nn.Module, x: Tensor, y: Tensor) -> int:
    return x.numel()


RULES: list[tuple[tuple, Callable[[nn.Module, Tensor, Tensor], int]]] = [
    (CONVS, _conv),
    (DECONVS, _deconv),
    ((nn.Linear,), _linear),
    (NORMS, _norm),
    (ACTIVATIONS + POOLS, _elements),
]


def _multiplies(module: nn.Module) -> bool:
    return any(isinstance(inner, (*CONVS, *DECONVS, nn.Linear)) for inner in module.modules())


def _rule(module: nn.Module) -> Callable[[nn.Module, Tensor, Tensor], int] | None:
    return next((rule for kinds, rule in RULES if isinstance(module, kinds)), None)


def _layer_flops(module: nn.Module, x: Tensor, y: Tensor) -> int:
    rule = _rule(module)
    assert rule is not None  # hooks are on layers that have one
    return rule(module, x, y)


def _carried_classifier(model: nn.Module) -> int:
    """Parameters of ``proj_head``, and of ``norm`` where there is none after the last stage, in the authors' models."""
    if type(getattr(model, 'backbone', None)).__name__ != 'NextViT':
        return 0
    channels = model.backbone.out_channels[-1]
    norm = getattr(model.backbone, f'norm{len(model.backbone.stages) - 1}')
    return (channels + 1) * IMAGENET_CLASSES + (2 * channels if isinstance(norm, nn.Identity) else 0)


def _parts(model: nn.Module, by_module: dict[str, int]) -> list[Part]:
    """The model's children, the backbone's and the RoI head's in turn by theirs."""
    names = []
    for name, child in model.named_children():
        if name not in ('backbone', 'roi_head'):
            names.append(name)
            continue
        for inner, module in child.named_children():
            numbered = range(len(module)) if isinstance(module, nn.ModuleList) else ()
            names += [f'{name}.{inner}.{i}' for i in numbered] or [f'{name}.{inner}']
    parts = [
        Part(
            name, sum(p.numel() for p in model.get_submodule(name).parameters()), _module_flops(model, name, by_module)
        )
        for name in names
    ]
    return [part for part in parts if part.params]


def _module_flops(model: nn.Module, name: str, by_module: dict[str, int]) -> int:
    """A module's multiply-adds; one whose ``forward`` is not called as a module's has those of its children."""
    if name in by_module:
        return by_module[name]
    return sum(
        _module_flops(model, f'{name}.{child}', by_module) for child, _ in model.get_submodule(name).named_children()
    )
