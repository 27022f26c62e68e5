"""Whole models by name: the same heads on different backbones, each as its MM library or this project ships it."""

from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from ..errors import UserError
from ..training.config import config_file, load_config

# timm's network in the place of ours, as MMDetection's own example takes one.
TIMM = dict(
    _delete_=True,
    type='mmpretrain.TIMMBackbone',
    model_name='nextvit_small',
    features_only=True,
    pretrained=False,
    out_indices=(0, 1, 2, 3),
)
REFERENCE = 'resnet101'  # what the ratios are to, within the same heads
# By heads and backbone: a config of this project by its name, or PACKAGE::PATH.
MODELS: dict[str, dict[str, str]] = dict(
    mask_rcnn=dict(
        nextvit_s='detection/mask_rcnn_nextvit_s_1x',
        nextvit_b='detection/mask_rcnn_nextvit_b_1x',
        timm_nextvit_s='detection/mask_rcnn_nextvit_s_1x',
        resnet50='mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
        resnet101='mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco',
        swin_t='mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco',
        convnext_t='mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco',
    ),
    upernet=dict(
        nextvit_s='segmentation/upernet_nextvit_s_160k',
        nextvit_b='segmentation/upernet_nextvit_b_160k',
        timm_nextvit_s='segmentation/upernet_nextvit_s_160k',
        resnet50='mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512',
        resnet101='mmseg::upernet/upernet_r101_4xb4-160k_ade20k-512x512',
        swin_t='mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512',
        convnext_t='mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512',
    ),
)
NAMES = tuple(f'{heads}_{backbone}' for heads, of in MODELS.items() for backbone in of)


@dataclass(frozen=True)
class WholeModel:
    """A model by name.

    Attributes:
        name: As on the command line: one of :data:`NAMES`, or a config's path.
        config: The config's path, or ``package::path``.
        heads: What models are compared within; of a config by path, the type of the model.
        changes: What is merged into the config.
    """

    name: str
    config: str
    heads: str
    changes: dict[str, Any]

    @property
    def reference(self) -> str:
        """The model that its ratios are to."""
        return f'{self.heads}_{REFERENCE}'


def parse_model(name: str) -> WholeModel:
    """A model by name.

    Args:
        name: One of :data:`NAMES`, the path of a config, or ``package::path``.

    Raises:
        UserError: It is none of them.
    """
    for heads, backbones in MODELS.items():
        for backbone, config in backbones.items():
            if name == f'{heads}_{backbone}':
                path = config if '::' in config else str(config_file(config))
                return WholeModel(
                    name, path, heads, dict(model=dict(backbone=TIMM)) if backbone.startswith('timm_') else {}
                )
    if '::' in name or name.endswith('.py'):
        return WholeModel(name, name, 'config', {})
    raise UserError(f'{name!r} is not a model: take one of {", ".join(NAMES)}, a config, or PACKAGE::PATH of one')


def load(model: WholeModel) -> Config:
    """Its config.

    Raises:
        UserError: There is none, it cannot be read, or its library is missing.
    """
    cfg = load_config(model.config)
    cfg.merge_from_dict(model.changes)
    return cfg
