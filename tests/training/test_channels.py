"""Pictures of one and of four channels, from the file to the metrics; and what is said where a config forgets them."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from nextvit_mm.errors import UserError
from nextvit_mm.training.channels import fit_channels
from nextvit_mm.weights.channels import FIRST, adapt_input

from ..conftest import tiny
from .runs import ITERATIONS, run, same, weights, write_config

COLORS = {1: ('L', 'grayscale'), 4: ('RGBA', 'unchanged')}


def pictures_of(folder, channels: int) -> None:
    rng = np.random.default_rng(0)
    for path in folder.rglob('*.png'):
        size = (32, 32) if channels == 1 else (32, 32, channels)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8), COLORS[channels][0]).save(path)


@pytest.mark.slow
@pytest.mark.parametrize('channels', [1, 4])
def test_train_test_draw_and_resume(tmp_path, channels):
    pytest.importorskip('mmpretrain')
    from nextvit_mm.training.launch import evaluate

    torch.save(tiny(out_norm='last').state_dict(), tmp_path / 'three.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'three.pth'))
    pipeline = [dict(type='LoadImageFromFile', color_type=COLORS[channels][1]), dict(type='PackInputs')]
    loader = dict(dataset=dict(pipeline=pipeline))
    config = write_config(
        tmp_path,
        model=dict(
            data_preprocessor=dict(mean=[120.0] * channels, std=[60.0] * channels),
            backbone=dict(in_channels=channels, frozen_stages=1, norm_eval=True, init_cfg=init_cfg),
        ),
        val_dataloader=loader,
        test_dataloader=loader,
        **{
            **ITERATIONS,
            'train_dataloader': dict(loader, sampler=dict(type='InfiniteSampler')),
            'default_hooks': dict(
                checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=-1),
                visualization=dict(type='VisualizationHook'),
            ),
            'visualizer': dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        },
    )
    pictures_of(tmp_path / 'pictures', channels)
    options = {'train_cfg.max_iters': 3}
    run(config, tmp_path / 'w', cfg_options=options)
    stem, given = f'backbone.{FIRST}', torch.load(tmp_path / 'three.pth')
    trained = weights(tmp_path / 'w' / 'iter_3.pth')
    start = adapt_input(given[FIRST], channels)
    assert trained[stem].shape[1] == channels and not torch.equal(trained[stem], start)
    assert torch.allclose(trained[stem], start, atol=0.01)  # a few steps away from it
    frozen = [name for name in given if name.startswith('stages.0.')]
    assert frozen and all(torch.equal(trained[f'backbone.{name}'], given[name]) for name in frozen)
    run(config, tmp_path / 'r', resume=str(tmp_path / 'w' / 'iter_2.pth'), cfg_options=options)
    assert same(tmp_path / 'w' / 'iter_3.pth', tmp_path / 'r' / 'iter_3.pth')
    metrics = evaluate(
        config, str(tmp_path / 'w' / 'iter_3.pth'), str(tmp_path / 't'), show_dir=str(tmp_path / 'drawn')
    )
    assert metrics and len(list((tmp_path / 'drawn').rglob('*.png'))) == 6


def config(channels: int, scope: str, preprocessor: dict, color: str = 'unchanged') -> Config:
    step = dict(type='LoadImageFromFile', color_type=color)
    model = dict(data_preprocessor=preprocessor, backbone=dict(type='NextViT', in_channels=channels))
    loader = dict(dataset=dict(type='X', pipeline=[step]))
    return Config(dict(model=model, default_scope=scope, train_dataloader=loader))


DET, SEG = 'DetDataPreprocessor', 'SegDataPreProcessor'


@pytest.mark.parametrize(
    'given, words',
    [
        ((1, 'mmdet', dict(type=DET, mean=[1, 2, 3])), 'mean has 3 values; give one, or one for each channel, and the'),
        ((4, 'mmdet', dict(type=DET, mean=[1] * 4)), "MMDetection's preprocessor takes three, or one for all channels"),
        ((4, 'mmdet', dict(type=DET, bgr_to_rgb=True)), 'bgr_to_rgb=True would pick three channels; set it to False'),
        ((4, 'mmseg', dict(type=SEG, mean=[1] * 4, std=[1] * 3)), 'data_preprocessor.std has 3 values'),
        ((1, 'mmseg', dict(type=SEG), 'color'), "gives pictures of 3 channels, .*: set color_type='grayscale'"),
        ((4, 'mmseg', dict(type=SEG), 'color'), "set color_type='unchanged' for files with as many"),
        ((4, 'mmpretrain', dict(mean=[1] * 3), 'grayscale'), 'mean has 3 values'),
        ((4, 'mmseg', dict(type=SEG, mean=[1] * 4, std=[1], bgr_to_rgb=True)), None),
        ((1, 'mmdet', dict(type=DET, mean=[1], std=[1]), 'grayscale'), None),
        ((3, 'mmdet', dict(type=DET, mean=[1, 2, 3], bgr_to_rgb=True), 'color'), None),
    ],
)
def test_what_does_not_go_with_the_channels_is_named_by_its_key(given, words):
    cfg = config(*given)
    if words is None:
        fit_channels(cfg, ('train',))
    else:
        with pytest.raises(UserError, match=words):
            fit_channels(cfg, ('train', 'val'))


@pytest.mark.parametrize('channels, kind', [(1, 'grayscale'), (4, 'unchanged')])
def test_a_loading_step_that_names_no_colors_follows_the_backbone(channels, kind):
    cfg = config(channels, 'mmseg', dict(type=SEG))
    (step,) = cfg.train_dataloader.dataset.pipeline
    del step['color_type']
    fit_channels(cfg, ('train',))
    assert step.color_type == kind
