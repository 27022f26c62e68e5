"""Whole models small enough to export in a test, as config files with checkpoints beside them."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from tests.conftest import ROOT, TINY, randomise

KINDS = ('detection', 'semantic_fpn', 'upernet', 'classification')
BASES = dict(
    detection='demo/mask_rcnn_nextvit_s_digits.py',
    semantic_fpn='demo/semantic_fpn_nextvit_s_digits.py',
    upernet='demo/upernet_nextvit_s_digits.py',
    classification='_base_/models/nextvit_classifier.py',
)
SCOPES = dict(detection='mmdet', semantic_fpn='mmseg', upernet='mmseg', classification='mmpretrain')


class Case(NamedTuple):
    config: str
    checkpoint: str
    cfg: Config


def tiny_config(kind: str, digits: Path = None, arch: dict = TINY) -> Config:
    """A config of a kind of model with the smallest backbone, and with data where a folder of digits is given."""
    cfg = Config.fromfile(ROOT / 'configs' / BASES[kind])
    widths = [32, 64, 128, 128]
    cfg.model.backbone.update(arch=arch, init_cfg=None)
    if kind == 'detection':
        cfg.model.neck.update(in_channels=widths, out_channels=32)
        cfg.model.rpn_head.update(in_channels=32, feat_channels=32)
        cfg.model.test_cfg.rpn.max_per_img = 50
        for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
            cfg.model.roi_head[name].out_channels = 32
        cfg.model.roi_head.bbox_head.update(in_channels=32, fc_out_channels=64)
        cfg.model.roi_head.mask_head.update(in_channels=32, conv_out_channels=32)
    elif kind == 'semantic_fpn':
        cfg.model.neck.update(in_channels=widths, out_channels=32)
        cfg.model.decode_head.update(in_channels=[32] * 4, channels=32)
    elif kind == 'upernet':
        cfg.model.decode_head.update(in_channels=widths, channels=32)
        cfg.model.auxiliary_head.update(in_channels=128, channels=16)
    else:
        cfg.model.head.update(in_channels=128, num_classes=10)
        # At the top level, as in MMPretrain's own configs.
        cfg.data_preprocessor = dict(
            type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
        )
        cfg.test_dataloader = dict(
            dataset=dict(
                type='ImageNet',
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='ResizeEdge', scale=72, edge='short', backend='pillow', interpolation='bicubic'),
                    dict(type='CenterCrop', crop_size=64),
                    dict(type='PackInputs'),
                ],
            )
        )
    cfg.default_scope = SCOPES[kind]
    cfg.work_dir = 'unused'
    if digits is not None and kind != 'classification':
        from nextvit_mm.training.config import set_data_root

        set_data_root(cfg, str(digits / ('coco' if kind == 'detection' else 'ade')))
    return cfg


def build(cfg: Config) -> torch.nn.Module:
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)  # of the layers that are left as they are built
    model = randomise(MODELS.build(cfg.model)).eval()
    if cfg.default_scope == 'mmdet':
        # Large random weights saturate sigmoid and softmax, and which of equal scores comes first is nobody's to say.
        for layer in (
            model.rpn_head.rpn_cls,
            model.rpn_head.rpn_reg,
            model.roi_head.bbox_head.fc_cls,
            model.roi_head.bbox_head.fc_reg,
        ):
            layer.weight.data *= 0.05
        if model.with_mask:  # small ones leave every pixel of a mask at the threshold
            model.roi_head.mask_head.conv_logits.weight.data *= 50
    return model


def make_case(kind: str, folder: Path, digits: Path, arch: dict = TINY) -> Case:
    cfg = tiny_config(kind, digits, arch)
    cfg.dump(folder / f'{kind}.py')
    torch.save(dict(state_dict=build(cfg).state_dict(), meta={}), folder / f'{kind}.pth')
    return Case(str(folder / f'{kind}.py'), str(folder / f'{kind}.pth'), cfg)


@pytest.fixture(scope='session')
def cases(tmp_path_factory, digits):
    """A config file and a checkpoint of every kind."""
    folder = tmp_path_factory.mktemp('cases')
    return {kind: make_case(kind, folder, digits) for kind in KINDS}
