"""Test pipelines: what is understood becomes the same picture, all else is refused by name."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from nextvit_mm.deploy.info import describe_input
from nextvit_mm.deploy.steps import plan
from nextvit_mm.errors import UserError
from nextvit_mm.predict.predictor import place, read_picture
from tests.conftest import ROOT

SIZES = ((333, 500), (640, 427), (100, 100), (7, 49))
SCOPES = dict(detection='mmdet', segmentation='mmseg', classification='mmpretrain')


def config(*steps) -> Config:
    pipeline = [dict(type='LoadImageFromFile'), *steps]
    return Config(dict(test_dataloader=dict(dataset=dict(type='Any', pipeline=pipeline))))


@pytest.mark.parametrize(
    'task, steps',
    [
        ('detection', [dict(type='Resize', scale=(1333, 800), keep_ratio=True)]),
        ('detection', [dict(type='Resize', scale_factor=0.5)]),
        ('detection', [dict(type='Resize', scale_factor=(0.5, 0.7), keep_ratio=True)]),
        ('detection', [dict(type='Resize', scale=(120, 90))]),
        ('detection', [dict(type='FixScaleResize', scale=(256, 256), keep_ratio=True)]),
        ('detection', [dict(type='FixScaleResize', scale=(130, 70), keep_ratio=False)]),
        (
            'detection',
            [
                dict(type='Resize', scale=(256, 256), keep_ratio=True),
                dict(type='Pad', size=(320, 300), pad_val=dict(img=114)),
            ],
        ),
        (
            'detection',
            [
                dict(type='Resize', scale=(250, 250), keep_ratio=True),
                dict(type='Pad', size_divisor=32, pad_val=dict(img=(1, 2, 3))),
            ],
        ),
        ('detection', [dict(type='Resize', scale=(250, 250), keep_ratio=True), dict(type='Pad', pad_to_square=True)]),
        ('segmentation', [dict(type='ResizeShortestEdge', scale=256, max_size=2048)]),
        ('segmentation', [dict(type='ResizeShortestEdge', scale=256, max_size=300)]),
        ('segmentation', [dict(type='ResizeToMultiple', size_divisor=32)]),
        (
            'segmentation',
            [dict(type='Resize', scale=(512, 128), keep_ratio=True), dict(type='ResizeToMultiple', size_divisor=32)],
        ),
        (
            'classification',
            [dict(type='ResizeEdge', scale=72, edge='short'), dict(type='CenterCrop', crop_size=(64, 48))],
        ),
        ('classification', [dict(type='ResizeEdge', scale=72, edge='long'), dict(type='CenterCrop', crop_size=64)]),
        ('classification', [dict(type='Resize', scale=(64, 48), backend='pillow', interpolation='lanczos')]),
    ],
)
def test_steps_make_mms_pictures(task, steps, tmp_path):
    pytest.importorskip(SCOPES[task])
    init_default_scope(SCOPES[task])
    planned = plan(config(*steps), task, None, ('size',))
    about = dict(
        steps=planned.steps, input=dict(color='BGR', mean=[0] * 3, std=[1] * 3, normalized_inside=True, size=None)
    )
    rng = np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        path = str(tmp_path / f'{i}.png')
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        theirs = Compose(planned.pipeline_of(size))(dict(img_path=path))
        ours = place(read_picture(path, planned.read), about)
        assert ours.tensor.shape[2:] == theirs['img'].shape[:2]
        assert (ours.tensor[0].transpose(1, 2, 0) == theirs['img']).all()
        if task == 'detection':
            assert ours.scale[::-1] == pytest.approx(theirs['scale_factor'])


@pytest.mark.parametrize(
    'task, steps, words',
    [
        ('detection', [dict(type='RandomFlip', prob=0.0)], 'has the step RandomFlip'),
        ('detection', [dict(type='TestTimeAug', transforms=[])], 'has the step TestTimeAug'),
        ('detection', [dict(type='LoadProposals')], 'has the step LoadProposals'),
        ('segmentation', [dict(type='Pad', size=(64, 64))], 'Pad: MMSegmentation stretches'),
        ('detection', [dict(type='Resize', scale_factor=1.0)] * 2, 'one resizing only'),
        ('detection', [dict(type='Pad', size=(64, 64), padding_mode='reflect')], "Pad has padding_mode='reflect'"),
        ('detection', [dict(type='Resize', scale=(9, 9), own=1)], 'Resize has own=1'),
        ('detection', [dict(type='Resize', scale=(9, 9), interpolation='nearest')], 'nearest of cv2'),
        (
            'detection',
            [dict(type='Normalize', mean=[0] * 3, std=[1] * 3), dict(type='Resize', scale=(9, 9))],
            'Resize after Normalize',
        ),
        ('classification', [dict(type='CenterCrop', crop_size=8, auto_pad=True)], 'CenterCrop has auto_pad=True'),
        ('classification', [dict(type='CenterCrop')], 'CenterCrop has no crop_size'),
        ('detection', [dict(type='Normalize', mean=[0] * 3)], 'Normalize has no std'),
        ('detection', [dict(scale=(9, 9))], 'a step without type: .*scale'),
    ],
)
def test_what_is_not_understood_is_named(task, steps, words):
    with pytest.raises(UserError, match=words):
        plan(config(*steps), task, None, ('size',))


@pytest.mark.parametrize(
    'loader, words',
    [
        (dict(type='LoadImageFromFile', to_float32=True), 'LoadImageFromFile has to_float32=True'),
        (dict(type='LoadImageFromFile', color_type='grayscale'), 'gives gray pictures, and the backbone takes'),
        (dict(type='Resize', scale=(9, 9)), 'begins with Resize: it must begin with LoadImageFromFile'),
        (dict(type='LoadMultiChannelImageFromFiles'), 'has the step LoadMultiChannelImageFromFiles'),
    ],
)
def test_loaders_that_are_not_understood_are_named(loader, words):
    cfg = config()
    cfg.test_dataloader.dataset.pipeline = [loader]
    with pytest.raises(UserError, match=words):
        plan(cfg, 'detection', None, ('size',))


def test_a_pipeline_of_data_that_are_no_files_reads_files_too():
    cfg = config()
    cfg.test_dataloader.dataset.pipeline = [dict(type='PackInputs')]
    planned = plan(cfg, 'classification', None, ('size',))
    assert [step['type'] for step in planned.pipeline] == ['LoadImageFromFile', 'PackInputs'] and planned.steps == []


def test_recipes_say_how_pictures_are_resized():
    recipe = Config.fromfile(ROOT / 'configs' / 'detection' / 'mask_rcnn_nextvit_s_1x.py')
    assert plan(recipe, 'detection', None, ('size',)).steps[0]['to'] == dict(long_short=[1333, 800])
    fixed = plan(recipe, 'detection', None, ())
    assert fixed.size == fixed.canvas == [800, 1333] and fixed.steps[0]['to'] == dict(fit=[800, 1333])
    assert fixed.pipeline_of((640, 427))[1]['scale'] == (534, 800)
    ade = Config.fromfile(ROOT / 'configs' / 'segmentation' / 'upernet_nextvit_s_160k.py')
    assert plan(ade, 'segmentation', None, ('size',)).steps[0]['to'] == dict(long_short=[2048, 512])
    assert plan(ade, 'segmentation', (512, 512), ()).canvas == [512, 512]
    with pytest.raises(UserError, match='pictures of many shapes'):
        plan(ade, 'segmentation', None, ())
    crops = config(dict(type='ResizeEdge', scale=72), dict(type='CenterCrop', crop_size=64))
    assert plan(crops, 'classification', None, ()).size == [64, 64]
    assert plan(crops, 'classification', (128, 128), ()).steps[0]['to'] == dict(edge='short', length=144)


def test_normalize_in_the_pipeline():
    found = plan(config(dict(type='Normalize', mean=[1, 2, 3], std=[4, 5, 6])), 'detection', None, ('size',))
    assert found.normalize == dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], color='RGB')


def test_a_network_of_unchanged_pixels():
    """Neither the pipeline nor the preprocessor normalises: the network takes 0 to 255."""
    cfg = config()
    cfg.model = dict(backbone=dict(type='NextViT'))
    planned = plan(cfg, 'detection', None, ('size',))
    about = describe_input(cfg, SimpleNamespace(data_preprocessor=nn.Identity()), planned, ('size',))
    assert (about['input']['mean'], about['input']['std'], about['input']['color']) == ([0.0] * 3, [1.0] * 3, 'BGR')
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(place(picture, about).tensor[0].transpose(1, 2, 0)[..., ::-1], picture)
