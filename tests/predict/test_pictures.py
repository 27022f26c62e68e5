"""Training, testing and the exported file of a recipe read the same pixels, for all tasks and formats."""

from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from nextvit_mm.deploy.steps import plan
from nextvit_mm.errors import UserError
from nextvit_mm.predict.predictor import read_picture, swap_colors
from nextvit_mm.training.channels import read_as
from tests.conftest import ROOT

RNG = np.random.default_rng(0)
COLORS = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((37, 29), Image.Resampling.BICUBIC)
)
DEPTH16 = np.linspace(0, 65535, 29 * 37).reshape(29, 37).astype(np.uint16)
TASKS = dict(
    mmdet='detection/mask_rcnn_nextvit_s_1x.py',
    mmseg='segmentation/upernet_nextvit_s_160k.py',
    mmpretrain='classification/nextvit_s_224.py',
)


def _with_alpha(mode: str) -> Image.Image:
    image = Image.fromarray(COLORS).convert(mode)
    image.putalpha(Image.fromarray(RNG.integers(0, 256, (29, 37), dtype=np.uint8)))
    return image


def _turned(orientation: int) -> dict:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return dict(exif=exif)


KINDS = {
    'rgb.png': (lambda: Image.fromarray(COLORS), {}),
    'rgb.jpg': (lambda: Image.fromarray(COLORS), {}),
    'rgb.bmp': (lambda: Image.fromarray(COLORS), {}),
    'rgb.webp': (lambda: Image.fromarray(COLORS), dict(lossless=True)),
    'rgb.tif': (lambda: Image.fromarray(COLORS), {}),
    'gray.png': (lambda: Image.fromarray(COLORS).convert('L'), {}),
    'gray.jpg': (lambda: Image.fromarray(COLORS).convert('L'), {}),
    'gray_alpha.png': (lambda: _with_alpha('L'), {}),
    'bits.png': (lambda: Image.fromarray(COLORS).convert('1'), {}),
    'rgba.png': (lambda: _with_alpha('RGB'), {}),
    'rgba.webp': (lambda: _with_alpha('RGB'), dict(lossless=True)),
    'rgba.tif': (lambda: _with_alpha('RGB'), {}),
    'palette.png': (lambda: Image.fromarray(COLORS).convert('P'), {}),
    'palette_transparent.png': (lambda: Image.fromarray(COLORS).convert('P'), dict(transparency=3)),
    'cmyk.jpg': (lambda: Image.fromarray(COLORS).convert('CMYK'), {}),
    'cmyk.tif': (lambda: Image.fromarray(COLORS).convert('CMYK'), {}),
    'gray16.png': (lambda: Image.fromarray(DEPTH16), {}),
    'gray16.tif': (lambda: Image.fromarray(DEPTH16), {}),
    **{f'turned{i}.jpg': (lambda: Image.fromarray(COLORS), _turned(i)) for i in range(1, 9)},
    'turned6.png': (lambda: Image.fromarray(COLORS), _turned(6)),
    'turned8.tif': (lambda: Image.fromarray(COLORS), _turned(8)),
}


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('kinds')
    for name, (make, how) in KINDS.items():
        make().save(folder / name, **how)
    return folder


def _loaders(scope: str) -> tuple[list, dict]:
    """What loads pictures in the training and in the test pipeline of a recipe, and the rule of its exported file."""
    cfg = Config.fromfile(ROOT / 'configs' / TASKS[scope])
    init_default_scope(scope)
    datasets = [cfg.train_dataloader.dataset, cfg.test_dataloader.dataset]
    return [Compose([dataset.pipeline[0]]) for dataset in datasets], plan(cfg, 'backbone', None, ('size',)).read


@pytest.mark.parametrize('scope', TASKS)
def test_training_testing_and_the_exported_file_read_the_same_pixels(scope, files):
    pytest.importorskip(scope)
    loaders, rule = _loaders(scope)
    refused = set()
    for name in KINDS:
        try:
            ours = read_picture(files / name, rule)
        except ValueError as error:
            assert name in str(error)
            refused.add(name)
            continue
        for load in loaders:
            theirs = load(dict(img_path=str(files / name)))['img'][..., ::-1]
            assert ours.dtype == np.uint8 and ours.shape == theirs.shape, name
            assert (ours == theirs).all(), (name, abs(ours.astype(int) - theirs).max())
    # The published classifiers are read with Pillow, as in timm: what it makes white or fills is refused.
    assert refused == ({'gray_alpha.png', 'gray16.png', 'gray16.tif'} if rule['backend'] == 'pillow' else set())
    assert (rule['backend'] == 'pillow') == (scope == 'mmpretrain')


@pytest.mark.parametrize('kind', ['grayscale', 'grayscale_ignore_orientation', 'unchanged'])
def test_other_channels_are_read_as_mm_reads_them(kind, files):
    load, refused = LoadImageFromFile(color_type=kind), set()
    for name in KINDS:
        theirs = np.atleast_3d(load(dict(img_path=str(files / name)))['img'])
        channels = theirs.shape[2]
        step = dict(type='LoadImageFromFile', color_type=kind)
        try:
            ours = read_picture(files / name, read_as(step, 'here', channels))
        except ValueError as error:
            assert f'{name} has more than 8 bits a channel' in str(error) or f'{name} has channels: 3' in str(error)
            refused.add(name)
            continue
        # OpenCV's decoders round the brightness of a colored picture in ways of their own.
        assert ours.shape == theirs.shape, name
        assert abs(swap_colors(ours).astype(int) - theirs).max() <= (kind != 'unchanged'), name
        if kind != 'unchanged' and name.startswith('rgb.'):
            assert abs(read_picture(COLORS, read_as(step, 'here', 1)).astype(int) - ours).mean() < 3  # of a frame
    assert refused == ({'gray16.png', 'gray16.tif', 'cmyk.tif'} if kind == 'unchanged' else set())


def test_gray_by_pillow_is_mms(files):
    load = LoadImageFromFile(color_type='grayscale', imdecode_backend='pillow')
    for name in ('rgb.png', 'rgba.png', 'palette.png', 'turned6.jpg', 'gray.jpg'):
        ours = read_picture(files / name, dict(backend='pillow', color='gray', channels=1))
        assert (ours[..., 0] == load(dict(img_path=str(files / name)))['img']).all()


def test_a_picture_of_another_number_of_channels_is_named(files):
    rule = read_as(dict(color_type='unchanged'), 'here', 4)
    with pytest.raises(ValueError, match='rgb.png has channels: 3. The model takes 4'):
        read_picture(files / 'rgb.png', rule)
    with pytest.raises(ValueError, match=r'a picture must be \(H, W, 4\) of uint8'):
        read_picture(COLORS, rule)


@pytest.mark.parametrize(
    'step, channels, words',
    [
        (dict(color_type='grayscale'), 3, 'here: LoadImageFromFile gives gray pictures, and the backbone takes in_ch'),
        (dict(color_type='unchanged', imdecode_backend='pillow'), 4, 'reads unchanged with pillow. What is known here'),
        (dict(color_type='unchanged'), 6, 'only pictures of 1, 3 or 4 channels can be read here, and in_channels=6'),
        (dict(color_type='anycolor'), 3, 'reads anycolor with cv2'),
    ],
)
def test_reading_that_is_not_known_is_named(step, channels, words):
    with pytest.raises(UserError, match=words):
        read_as(step, 'here', channels)


def test_sixteen_bits_are_their_upper_eight(files):
    assert (read_picture(files / 'gray16.png') == (DEPTH16 >> 8)[..., None]).all()


@pytest.mark.parametrize('kind', [np.float32, np.int32])
def test_thirty_two_bits_are_refused_by_name(kind, tmp_path):
    Image.fromarray((RNG.random((5, 6)) * 100).astype(kind)).save(tmp_path / 'deep.tif')
    with pytest.raises(ValueError, match='deep.tif has 32 bits a channel'):
        read_picture(tmp_path / 'deep.tif')


def test_a_model_tested_with_other_loaders_is_fed_by_their_rule(files):
    plain = read_picture(files / 'turned6.jpg', dict(backend='cv2', orientation=False))
    assert plain.shape == COLORS.shape and read_picture(files / 'turned6.jpg').shape == (37, 29, 3)
    with pytest.raises(ValueError, match='gray16.png has the mode I;16'):
        read_picture(files / 'gray16.png', dict(backend='pillow'))
    assert (read_picture(files / 'rgba.png', dict(backend='pillow')) == read_picture(files / 'rgba.png')).all()
