"""Models of one and of four channels: exported, run, drawn and looked into as those of three."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from nextvit_mm.deploy.export import export
from nextvit_mm.errors import UserError
from nextvit_mm.inference import load_predictor
from nextvit_mm.predict.predictor import Predictor, about_file
from nextvit_mm.visualization.networks import load_beside, load_network, read_config, take_pictures

from .conftest import build, tiny_config

MODES = {1: 'L', 4: 'RGBA'}


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Smooth pictures of one and of four channels."""
    rng = np.random.default_rng(0)
    found = {}
    for channels, mode in MODES.items():
        found[channels] = tmp_path_factory.mktemp(f'channels{channels}')
        for i, size in enumerate([(96, 64), (70, 101)]):
            shape = (9, 9, channels) if channels > 1 else (9, 9)
            coarse = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)
            coarse.resize(size, Image.Resampling.BICUBIC).save(found[channels] / f'{i}.png')
    return found


def write_case(kind: str, channels: int, folder):
    cfg = tiny_config(kind)
    pre = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    each = 1 if kind == 'detection' else channels
    pre.update(mean=[120.0 + i for i in range(each)], std=[60.0 + i for i in range(each)])
    for key in ('bgr_to_rgb', 'to_rgb'):
        if key in pre and kind == 'detection':
            pre[key] = False
    cfg.model.backbone.in_channels = channels
    cfg.dump(folder / f'{kind}.py')
    torch.save(dict(state_dict=build(cfg).state_dict(), meta={}), folder / f'{kind}.pth')
    return str(folder / f'{kind}.py'), str(folder / f'{kind}.pth')


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, channels, flags',
    [
        ('detection', 1, dict(dynamic=('size',))),
        ('detection', 4, dict(size=(64, 96), normalize_inside=True)),
        ('semantic_fpn', 4, dict(dynamic=('size',))),
        ('classification', 1, dict()),
    ],
)
def test_what_is_written_and_what_predicts_agree(kind, channels, flags, folders, tmp_path):
    config, checkpoint = write_case(kind, channels, tmp_path)
    path = export(config, checkpoint, images=str(folders[channels]), out=str(tmp_path / 'model.onnx'), **flags)
    about = json.loads(about_file(path).read_text())
    assert about['input']['channels'] == channels and about['read']['channels'] == channels
    exported, trained = Predictor(path), load_predictor(config, checkpoint, 'cpu')
    picture = folders[channels] / '0.png'
    one, two = exported(picture), trained(picture)
    key = dict(detection='scores', semantic_fpn='class_map', classification='scores')[kind]
    if 'size' not in flags:  # which fits the picture into another size than the config's
        assert np.abs(one[key].astype(float) - two[key]).max() < 1e-3 and len(one[key])
    if kind == 'detection':
        assert len(one['boxes']) > 0
    for predictor, result in ((exported, one), (trained, two)):
        drawn = predictor.draw(picture, result)
        assert drawn.mode == 'RGB' and drawn.size >= (96, 64)
    if channels == 1:  # a frame of a video is in color
        assert exported(np.zeros((64, 96, 3), np.uint8)).keys() == one.keys()


@pytest.mark.slow
def test_without_pictures_noise_of_as_many_channels_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no data/digits, as after `make demo`
    config, checkpoint = write_case('semantic_fpn', 4, tmp_path)
    path = export(config, checkpoint, out=str(tmp_path / 'model.onnx'), what='backbone', size=(64,))
    about = json.loads(about_file(path).read_text())
    assert about['pictures']['test'] == 'noise' and about['compared']['largest relative error'] <= 1e-4


def test_it_is_looked_into(folders, tmp_path):
    config, checkpoint = write_case('semantic_fpn', 1, tmp_path)
    cfg = read_config(config)
    (picture,) = take_pictures(cfg, str(folders[1]), 1)
    network = load_network(cfg, checkpoint)
    assert network.prepare(picture).shape[:2] == (1, 1)
    assert network.shown(picture).shape[2] == 3
    with pytest.raises(UserError, match='has in_channels=1: only --beside random takes as many'):
        load_beside('timm:resnet18', cfg, network, (64, 64))


def test_a_config_that_reads_colors_is_refused_by_its_key(tmp_path):
    config, checkpoint = write_case('classification', 1, tmp_path)
    pipeline = [dict(type='LoadImageFromFile', color_type='color'), dict(type='CenterCrop', crop_size=64)]
    with pytest.raises(UserError, match="LoadImageFromFile with color_type='color' gives pictures of 3"):
        export(
            config,
            checkpoint,
            out=str(tmp_path / 'model.onnx'),
            cfg_options={'test_dataloader.dataset.pipeline': pipeline},
        )
