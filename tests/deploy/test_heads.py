"""Heads of other kinds: what they predict is exported right, or they are refused by name."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from nextvit_mm.deploy.export import export
from nextvit_mm.deploy.graphs import make_graph
from nextvit_mm.errors import UserError
from nextvit_mm.predict.predictor import about_file
from tests.deploy.conftest import build, tiny_config

HEAD = dict(num_classes=5, in_channels=[32, 64, 128, 128], in_index=(0, 1, 2, 3), channels=16, align_corners=False)
CONCAT = dict(HEAD, input_transform='resize_concat', norm_cfg=dict(type='BN'), dropout_ratio=0)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Of many colors, some of them gray: a network of random weights gives them different classes."""
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(64, 64), (96, 72)]):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f'{i}.png')
    return folder


def exported(cfg: Config, folder, pictures, **flags) -> dict:
    """The ``.json`` of an export of a config with random weights, made whole."""
    cfg.dump(folder / 'config.py')
    torch.save(dict(state_dict=build(cfg).state_dict(), meta={}), folder / 'weights.pth')
    path = export(
        str(folder / 'config.py'),
        str(folder / 'weights.pth'),
        images=str(pictures),
        out=str(folder / 'model.onnx'),
        **flags,
    )
    return json.loads(about_file(path).read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    'head, many',
    [
        (dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=128), dict(threshold=0.5, top=None)),
        (dict(type='MultiLabelLinearClsHead', num_classes=1, in_channels=128, topk=1), dict(threshold=None, top=1)),
        (dict(type='ArcFaceClsHead', num_classes=10, in_channels=128, scale=8.0), None),
    ],
)
def test_classifiers_scores_are_those_that_mmpretrain_predicts(head, many, tmp_path, pictures):
    pytest.importorskip('mmpretrain')
    cfg = tiny_config('classification')
    cfg.model.head = head
    about = exported(cfg, tmp_path, pictures)
    assert about['compared']['largest score difference'] < 1e-4 and about.get('multi_label') == many


def test_a_classifier_of_one_class_is_refused():
    pytest.importorskip('mmpretrain')
    cfg = tiny_config('classification')
    cfg.model.head.num_classes = 1
    with pytest.raises(UserError, match='LinearClsHead has one class, whose score is 1'):
        make_graph(build(cfg), 'model')


def test_a_classifiers_preprocessor_pads():
    pytest.importorskip('mmpretrain')
    cfg = tiny_config('classification')
    cfg.model.data_preprocessor = dict(cfg.data_preprocessor, pad_size_divisor=48, pad_value=2)
    model = build(cfg)
    graph, image = make_graph(model, 'model'), torch.rand(3, 64, 70)
    colors = image * model.data_preprocessor.std + model.data_preprocessor.mean
    batch = model.data_preprocessor(dict(inputs=[colors.flip(0)]), False)['inputs']
    assert batch.shape == (1, 3, 96, 96) and torch.allclose(graph.padded(image[None]), batch, atol=1e-5)
    assert torch.equal(graph(image[None]), graph(graph.padded(image[None])))


def test_a_size_that_is_too_small_is_refused_before_anything_is_written(tmp_path, pictures):
    pytest.importorskip('mmseg')
    with pytest.raises(UserError, match='an input of 8×8 is too small'):
        exported(tiny_config('semantic_fpn'), tmp_path, pictures, size=(8,))
    assert {path.name for path in tmp_path.iterdir()} == {'config.py', 'weights.pth'}


@pytest.mark.slow
def test_a_cascade_of_decode_heads(tmp_path, pictures):
    pytest.importorskip('mmseg')
    cfg = tiny_config('semantic_fpn')
    cfg.model.update(type='CascadeEncoderDecoder', num_stages=2, neck=None)
    cfg.model.decode_head = [
        dict(CONCAT, type='FCNHead', num_convs=1, kernel_size=1, concat_input=False),
        dict(CONCAT, type='OCRHead', ocr_channels=8),
    ]
    assert exported(cfg, tmp_path, pictures, dynamic=('size',))['compared']['equal pixels'] > 0.999


@pytest.mark.slow
def test_a_segmentor_of_one_output_channel(tmp_path, pictures):
    pytest.importorskip('mmseg')
    cfg = tiny_config('semantic_fpn')
    cfg.model.decode_head.update(
        num_classes=2, out_channels=1, threshold=0.4, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)
    )
    assert exported(cfg, tmp_path, pictures, dynamic=('size',))['compared']['equal pixels'] > 0.999


def test_heads_that_predict_in_a_way_of_their_own_are_named():
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')
    model = build(tiny_config('semantic_fpn'))
    queries = type('QueryHead', (type(model.decode_head),), dict(predict=lambda self, *_: None))
    model.decode_head.__class__ = queries
    with pytest.raises(UserError, match='QueryHead predicts in a way of its own'):
        make_graph(model, 'model')
    pytest.importorskip('mmpretrain')
    model = build(tiny_config('classification'))
    model.head.__class__ = type('OwnHead', (type(model.head),), dict(_get_predictions=lambda self, *_: None))
    with pytest.raises(UserError, match='OwnHead predicts in a way of its own'):
        make_graph(model, 'model')


def test_padding_by_the_preprocessor_is_refused():
    pytest.importorskip('mmseg')
    model = build(tiny_config('semantic_fpn'))
    model.data_preprocessor.test_cfg = dict(size_divisor=32)
    with pytest.raises(UserError, match='data_preprocessor.test_cfg'):
        make_graph(model, 'model')
