"""Configs with classes as types, and inheritance between the two styles."""

import importlib.util

import pytest
from mmengine.config import Config, read_base

from nextvit_mm.adapt import read_config
from nextvit_mm.errors import UserError
from nextvit_mm.training import config as cfgs
from nextvit_mm.training.changes import read_config_text

from ..conftest import ROOT

needs_mmdet = pytest.mark.skipif(importlib.util.find_spec('mmdet') is None, reason='mmdet is not installed')
HEAD = f'from mmengine.config import {read_base.__name__}\n'
FROM_OURS = (
    HEAD
    + """from mmengine.hooks import EMAHook
from mmengine.optim import AmpOptimWrapper
from nextvit_mm import NextViT
with read_base():
    from nextvit_mm.configs.detection.mask_rcnn_nextvit_s_1x import *
model.update(dict(backbone=dict(type=NextViT, drop_path_rate=0.3)))
optim_wrapper.update(dict(type=AmpOptimWrapper, loss_scale=512.0))
custom_hooks = [dict(type=EMAHook)]
"""
)
PURE = """from mmcv.ops import RoIAlign, nms
from mmcv.transforms import LoadImageFromFile, Resize as PlainResize
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import PackDetInputs, Resize
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.evaluation import CocoMetric
from mmdet.models import FPN, RetinaNet
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.optim import OptimWrapper
from nextvit_mm import NextViT
from torch.nn import GELU
from torch.optim import AdamW
import mmengine.runner as runners
default_scope = None
model = dict(type=RetinaNet, backbone=dict(type=NextViT, act_cfg=dict(type=GELU)), neck=dict(type=FPN),
             test_cfg=dict(nms=dict(type=nms), roi_layer=dict(type=RoIAlign)))
pipeline = [dict(type=LoadImageFromFile), dict(type=Resize, scale=(9, 9)), dict(type=PlainResize, scale=(9, 9)),
            dict(type=PackDetInputs)]
train_dataloader = dict(
    sampler=dict(type=DefaultSampler), collate_fn=dict(type=pseudo_collate),
    dataset=dict(type=CocoDataset, data_root='old', ann_file='a.json', pipeline=pipeline))
val_evaluator = dict(type=CocoMetric, ann_file='old/a.json')
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-4))
train_cfg = dict(type=runners.EpochBasedTrainLoop, max_epochs=3)
default_hooks = dict(visualization=dict(type=DetVisualizationHook))
"""


def write(folder, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@needs_mmdet
def test_a_new_config_inherits_from_ours(tmp_path):
    cfg = read_config(write(tmp_path, 'new.py', FROM_OURS))
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch, backbone.drop_path_rate) == ('NextViT', 'small', 0.3)
    assert cfg.model.type == 'MaskRCNN' and cfg.default_scope == 'mmdet' and cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.custom_hooks == [dict(type='EMAHook')] and 'EMAHook' not in cfg and 'NextViT' not in cfg
    assert Config.fromstring(cfg.pretty_text, '.py').model == cfg.model


@needs_mmdet
def test_classes_become_the_names_that_find_them(tmp_path):
    from mmcv.transforms import Resize as PlainResize
    from mmdet.datasets.transforms import Resize
    from mmdet.registry import TRANSFORMS

    cfg = read_config(write(tmp_path, 'pure.py', PURE))
    names = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert names == ['LoadImageFromFile', 'Resize', 'mmengine.Resize', 'PackDetInputs']
    assert [TRANSFORMS.get(name) for name in names[1:3]] == [Resize, PlainResize]  # two classes of one name
    assert (cfg.default_scope, cfg.model.type, cfg.model.neck.type) == ('mmdet', 'RetinaNet', 'FPN')
    assert (cfg.model.test_cfg.nms.type, cfg.model.test_cfg.roi_layer.type) == ('nms', 'RoIAlign')  # in no registry
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.type) == ('OptimWrapper', 'AdamW')
    assert (cfg.train_cfg.type, cfg.train_dataloader.collate_fn.type) == ('EpochBasedTrainLoop', 'pseudo_collate')
    # What the flags do works on names.
    cfgs.set_data_root(cfg, 'new')
    cfgs.use_amp(cfg)
    cfgs.draw_predictions(cfg, 'drawn')
    assert cfg.val_evaluator.ann_file == 'new/a.json' and cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.default_hooks.visualization.draw
    assert read_config_text(cfg.pretty_text)['model']['type'] == 'RetinaNet'  # and the text can be read again


@needs_mmdet
def test_an_older_config_inherits_from_a_new_one_and_a_new_one_from_that(tmp_path):
    write(tmp_path, 'pure.py', PURE)
    old = write(tmp_path, 'old.py', "_base_ = 'pure.py'\nmodel = dict(backbone=dict(arch='base'))\n")
    newest = HEAD + 'with read_base():\n    from .old import *\nmodel.backbone.update(dict(drop_path_rate=0.1))\n'
    for path in (old, write(tmp_path, 'newest.py', newest)):
        cfg = read_config(path)
        assert (cfg.model.type, cfg.model.backbone.type, cfg.model.backbone.arch) == ('RetinaNet', 'NextViT', 'base')
        assert cfg.default_scope == 'mmdet' and cfg.train_dataloader.dataset.type == 'CocoDataset'
    assert cfg.model.backbone.drop_path_rate == 0.1


@needs_mmdet
def test_an_older_config_may_import_classes(tmp_path):
    base = ROOT / 'configs' / 'detection' / 'mask_rcnn_nextvit_s_1x.py'
    text = f"from mmengine.hooks import EMAHook\n_base_ = '{base}'\ncustom_hooks = [dict(type=EMAHook)]\n"
    cfg = read_config(write(tmp_path, 'x.py', text))
    assert cfg.custom_hooks == [dict(type='EMAHook')] and 'EMAHook' not in cfg and cfg.model.type == 'MaskRCNN'


@needs_mmdet
def test_configs_of_another_package_by_its_name(tmp_path):
    text = HEAD + 'with read_base():\n    from mmdet.configs.retinanet.retinanet_r50_fpn_1x_coco import *\n'
    assert read_config(write(tmp_path, 'x.py', text)).model.type == 'RetinaNet'


@needs_mmdet
def test_our_configs_by_name_for_any_script(tmp_path):
    for name in ('detection/mask_rcnn_nextvit_s_1x.py', 'detection/mask_rcnn_nextvit_s_1x'):
        path = write(tmp_path, 'x.py', f"_base_ = 'nextvit_mm::{name}'\nmodel = dict(backbone=dict(arch='base'))\n")
        for read in (read_config, Config.fromfile):
            assert (read(path).model.type, read(path).model.backbone.arch) == ('MaskRCNN', 'base')
    with pytest.raises(UserError, match='nextvit_mm::detection/none.py is none of the configs of nextvit_mm'):
        read_config(write(tmp_path, 'x.py', "_base_ = 'nextvit_mm::detection/none.py'\n"))


def test_mmengine_is_left_as_it_was(tmp_path):
    before = {name: vars(Config)[name] for name in ('_is_lazy_import', '_parse_lazy_import', '_file2dict')}
    read_config(write(tmp_path, 'x.py', 'a = 1\n'))
    with pytest.raises(UserError):
        read_config(write(tmp_path, 'y.py', '1/0\n'))
    assert all(vars(Config)[name] is value for name, value in before.items())


ERRORS = [
    ({'x.py': 'a = 1\nb = a / 0\n'}, r'x.py cannot be read as a config: line 2: ZeroDivisionError: division by zero'),
    ({'x.py': "_base_ = 'y.py'\n", 'y.py': '1/0\n'}, r'x.py cannot .*: \S*y.py, line 1: ZeroDivisionError'),
    ({'x.py': HEAD + 'with read_base():\n    from .y import *\n', 'y.py': '1/0\n'}, r'y.py, line 1: ZeroDivisionError'),
    ({'x.py': "_base_ = 'none.py'\n"}, r'x.py cannot .*FileNotFoundError: file "\S*none.py" does not exist'),
    ({'x.py': HEAD + 'with read_base():\n    from .none import *\n'}, r'x.py cannot .*none.py not found'),
    ({'x.py': 'a = (\n'}, r"x.py cannot .*SyntaxError: '\(' was never closed \(x.py, line 1\)"),
    ({'x.py': "_base_ = 'y.py'\n", 'y.py': 'a = (\n'}, r'x.py cannot .*SyntaxError: .*y.py'),
    (
        {'x.py': 'from mmengine.hooks import Nothing\na = dict(type=Nothing)\n'},
        r'Failed to import Nothing .*x.py, line 1',
    ),
    ({'x.py': 'from mmnothing import A\na = dict(type=A)\n'}, r'Failed to import mmnothing in \S*x.py, line 1'),
    ({'x.py': "custom_imports = dict(imports=['no_such'])\n"}, r'x.py cannot .*ImportError: .*no_such'),
    ({'x.py': "_base_ = '/no/such/base.py'\n"}, r'x.py cannot .*/no/such/base.py'),
    ({'x.py': "_base_ = 'mmnothing::a/b.py'\n"}, r'x.py cannot .*mmnothing'),
    ({'x.py': "_base_ = 'y.py'\na = {{_base_.gone}}\n", 'y.py': 'b = 1\n'}, r'x.py cannot .*gone'),
]


@pytest.mark.parametrize('files, words', ERRORS, ids=range(len(ERRORS)))
def test_a_config_with_an_error_of_its_own_is_one_line(tmp_path, files, words):
    for name, text in files.items():
        write(tmp_path, name, text)
    with pytest.raises(UserError, match=words) as caught:
        read_config(tmp_path / 'x.py')
    assert '\n' not in str(caught.value)
