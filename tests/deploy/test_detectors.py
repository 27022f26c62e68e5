"""Detectors of other kinds that a drop-in gives: boxes and scores are MMDetection's, or they are refused by name."""

import json
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from PIL import Image

from nextvit_mm.adapt.read import read_config
from nextvit_mm.deploy.backends import OPSET, SUFFIXES
from nextvit_mm.deploy.export import export
from nextvit_mm.deploy.graphs import make_graph
from nextvit_mm.deploy.reference import see
from nextvit_mm.deploy.steps import plan
from nextvit_mm.errors import UserError
from nextvit_mm.predict.predictor import Predictor, about_file
from tests.conftest import TINY, randomise

pytest.importorskip('mmdet')
CONFIGS = dict(
    retinanet='mmdet::retinanet/retinanet_r50_fpn_1x_coco',
    fcos='mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    fcos_giou='mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco',
    atss='mmdet::atss/atss_r50_fpn_1x_coco',
    dynamic_rcnn='mmdet::dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco',
    faster_rcnn='mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
    cascade_rcnn='mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco',
    cascade_mask_rcnn='mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco',
)
# Of the layers that score, so that scores differ: RetinaNet has no norm in its head, ATSS and FCOS have.
SCALES = {'bbox_head.retina_cls': 0.02, 'bbox_head.atss_cls': 1.0, 'bbox_head.conv_cls': 1.0}
GFL = 'mmdet::gfl/gfl_r50_fpn_1x_coco'
NARROW = {256: 32, 1024: 64, 80: 5}  # widths and the number of classes
WIDTHS = ('in_channels', 'out_channels', 'feat_channels', 'conv_out_channels', 'fc_out_channels', 'num_classes')


def narrow(part):
    """A part of a model's config with widths that take no time."""
    if isinstance(part, list):
        return [narrow(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    return ConfigDict(
        {
            key: NARROW.get(value, value) if key in WIDTHS and isinstance(value, int) else narrow(value)
            for key, value in (dict(part, num_groups=4) if part.get('type') == 'GN' else part).items()
        }
    )


def tiny_detector(name: str) -> Config:
    """MMDetection's config with a tiny Next-ViT and narrow heads."""
    cfg = read_config(CONFIGS.get(name, name))
    cfg.model = narrow(cfg.model)
    cfg.model.backbone = dict(type='nextvit_mm.NextViT', arch=TINY)
    (cfg.model.neck[0] if isinstance(cfg.model.neck, list) else cfg.model.neck).in_channels = [32, 64, 128, 128]
    for head in (cfg.model.get('bbox_head'), cfg.model.get('rpn_head')):
        if head and 'stacked_convs' in head:
            head.stacked_convs = 1
        if head and head.type in ('FCOSHead', 'ATSSHead'):  # theirs has as many groups as there are channels here
            head.norm_cfg = dict(type='GN', num_groups=4, requires_grad=True)
    if 'rpn' in cfg.model.test_cfg:
        cfg.model.test_cfg.rpn.max_per_img = 50
    cfg.test_dataloader.dataset.pipeline[1].scale = (120, 80)
    cfg.test_dataloader.dataset.pipeline[0].pop('backend_args', None)
    return cfg


def build(cfg: Config) -> torch.nn.Module:
    """The model with random weights that find things, no two of the same score."""
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = randomise(MODELS.build(cfg.model)).eval()
    for path, layer in model.named_modules():
        # Large random weights saturate sigmoid and softmax, and send boxes out of the picture.
        if re.search(r'(cls|reg|centerness)$', path) and hasattr(layer, 'weight'):
            layer.weight.data *= 0.05 if path.endswith('reg') else SCALES.get(path, 0.3)
        if path.endswith('conv_reg'):
            layer.bias.data.fill_(1.0)  # sides of boxes; one of FCOS's ways cuts off those below 0
        if path.endswith('conv_logits'):
            layer.weight.data *= 50  # small ones leave every pixel of a mask at the threshold
    return model


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(64, 64), (96, 72), (50, 90)]):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f'{i}.png')
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, to',
    [(name, 'onnx') for name in CONFIGS]
    + [(name, 'openvino') for name in ('retinanet', 'fcos', 'atss', 'cascade_rcnn')],
)
def test_what_is_found_is_what_mmdetection_finds(name, to, tmp_path, tmp_path_factory, pictures, capsys, monkeypatch):
    # OpenVINO's processes do without what takes seconds: importing it fails there.
    refused = tmp_path_factory.mktemp('refused')
    for package in ('torch', 'mmengine', 'mmcv', 'mmdet', 'openvino_telemetry'):
        (refused / f'{package}.py').write_text('raise RuntimeError("not for OpenVINO")')
    monkeypatch.setenv('PYTHONPATH', str(refused))
    cfg = tiny_detector(name)
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=build(cfg).state_dict(), meta={}), tmp_path / 'weights.pth')
    path = export(
        str(tmp_path / 'config.py'),
        str(tmp_path / 'weights.pth'),
        to=to,
        images=str(pictures),
        out=str(tmp_path / f'model{SUFFIXES[to]}'),
    )
    about = json.loads(about_file(path).read_text())
    assert about['input']['dynamic'] == ['size'] and about['compared']['images'] == 3
    assert about['compared']['detections'] > 20 and about['compared']['largest score difference'] < 1e-4
    assert about['outputs'][3:] == (['masks'] if 'mask' in name else [])
    written = f'ONNX: opset {OPSET}, IR version' if to == 'onnx' else 'OpenVINO IR: IR version'
    assert f'{written} {about["file"]["ir_version"]}' in capsys.readouterr().out
    assert about.get('tensorrt', {}).get('unlisted', []) == []


@pytest.mark.slow
@pytest.mark.parametrize('name, to', [('fcos', 'onnx'), ('retinanet', 'openvino'), ('atss', 'openvino')])
def test_one_session_finds_something_after_nothing_and_at_any_size(name, to, tmp_path, pictures):
    cfg = tiny_detector(name)
    model = build(cfg)
    least, most = 0.0, 1.0
    for _ in range(40):  # a threshold that some of the pictures do not reach
        cfg.model.test_cfg.score_thr = model.bbox_head.test_cfg.score_thr = (least + most) / 2
        planned = plan(cfg, 'detection', None, ('size',))
        counts = [len(see(model, 'detection', planned, path).results['scores']) for path in sorted(pictures.iterdir())]
        if min(counts) == 0 < max(counts):
            break
        least, most = ((least + most) / 2, most) if max(counts) else (least, (least + most) / 2)
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'weights.pth')
    flags = dict(to=to, images=str(pictures), out=str(tmp_path / f'model{SUFFIXES[to]}'))
    predictor = Predictor(export(str(tmp_path / 'config.py'), str(tmp_path / 'weights.pth'), **flags))
    for _ in range(2):
        assert [len(predictor(path)['scores']) for path in sorted(pictures.iterdir())] == counts
        for shape in ((1, 1), (300, 40)):
            assert predictor(np.zeros((*shape, 3), np.uint8))['boxes'].shape[1:] == (4,)


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, change, words',
    [
        ('retinanet', dict(test_cfg=dict(nms=dict(type='soft_nms', iou_threshold=0.5))), 'test_cfg.nms.type=soft_nms'),
        ('fcos', dict(test_cfg=dict(nms=dict(type='nms', iou_threshold=0.5, class_agnostic=True))), 'class_agnostic'),
        ('fcos', dict(test_cfg=dict(nms=dict(type='nms', iou_threshold=0.5, offset=1))), 'test_cfg.nms.offset=1'),
        ('retinanet', dict(test_cfg=dict(min_bbox_size=8)), 'min_bbox_size=8 is of pixels of the picture'),
        ('retinanet', dict(bbox_head=dict(bbox_coder=dict(clip_border=False))), 'bbox_head.bbox_coder.clip_border'),
        ('faster_rcnn', dict(rpn_head=dict(loss_cls=dict(use_sigmoid=False))), 'rpn_head.loss_cls.use_sigmoid=False'),
        (
            'faster_rcnn',
            dict(roi_head=dict(bbox_roi_extractor=dict(roi_layer=dict(_delete_=True, type='RoIPool', output_size=7)))),
            'has RoIPool as roi_head.bbox_roi_extractor.roi_layer',
        ),
        ('atss', dict(test_cfg=dict(nms_pre=-1)), 'test_cfg.nms_pre must be above 0'),
        ('cascade_rcnn', dict(test_cfg=dict(rcnn=dict(max_per_img=-1))), 'test_cfg.rcnn.max_per_img must be above 0'),
        (
            'faster_rcnn',
            dict(test_cfg=dict(rcnn=dict(_delete_=True, nms=dict(iou_threshold=0.5), max_per_img=9))),
            'test_cfg.rcnn has no score_thr',
        ),
    ],
)
def test_settings_without_a_standard_operator_are_named(name, change, words):
    cfg = tiny_detector(name)
    cfg.merge_from_dict(dict(model=change))
    with pytest.raises(UserError, match=words):
        make_graph(build(cfg), 'model')


@pytest.mark.slow
def test_what_the_preprocessor_pads_with_is_padded_with(tmp_path, pictures):
    cfg = tiny_detector('retinanet')
    cfg.model.data_preprocessor.pad_value = 1
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=build(cfg).state_dict(), meta={}), tmp_path / 'weights.pth')
    flags = dict(images=str(pictures), out=str(tmp_path / 'model.onnx'))
    path = export(str(tmp_path / 'config.py'), str(tmp_path / 'weights.pth'), **flags)
    compared = json.loads(about_file(path).read_text())['compared']
    assert compared['detections'] > 20 and compared['largest score difference'] < 1e-4


def test_detectors_of_another_test_path_are_named():
    cfg = tiny_detector(GFL)
    with pytest.raises(UserError, match='GFLHead finds objects in a way of its own .*_predict_by_feat_single'):
        make_graph(build(cfg), 'model')
    cfg = tiny_detector('faster_rcnn')
    cfg.model.type = 'FastRCNN'
    cfg.model.pop('rpn_head')
    with pytest.raises(UserError, match='FastRCNN takes its boxes from a file'):
        make_graph(build(cfg), 'model')
    model = build(tiny_detector('cascade_rcnn'))
    model.roi_head.__class__ = type('OwnRoIHead', (type(model.roi_head),), dict(_refine_roi=lambda self, *_: None))
    with pytest.raises(UserError, match='OwnRoIHead finds objects in a way of its own ._refine_roi'):
        make_graph(model, 'model')
    model = build(tiny_detector('fcos'))
    model.__class__ = type('Masks', (type(model),), dict(predict=lambda self, *_: None))
    with pytest.raises(UserError, match='Masks finds objects in a way of its own .predict'):
        make_graph(model, 'model')
