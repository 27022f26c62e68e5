import functools
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from nextvit_mm.demo import DigitClassesConfig, DigitsConfig, make_digit_classes, make_digits
from nextvit_mm.demo.digit_classes import _in_turn, draw_labelled
from nextvit_mm.demo.digits import load_split

from ..conftest import ROOT, call_tool
from .test_digits import digest

SMALL = DigitClassesConfig(train=25, val=12, size=32)


def test_imagenets_layout_with_every_class(tmp_path):
    assert make_digit_classes(tmp_path / 'd', SMALL) and not make_digit_classes(tmp_path / 'd', SMALL)
    for split, count in (('train', 25), ('val', 12)):
        folders = sorted((tmp_path / 'd' / split).iterdir())
        assert [folder.name for folder in folders] == list('0123456789')
        counts = [len(list(folder.glob(f'{split}_*.jpg'))) for folder in folders]
        assert sum(counts) == count and max(counts) - min(counts) == 1
    assert Image.open(next((tmp_path / 'd' / 'val' / '3').iterdir())).size == (32, 32)
    with pytest.raises(FileExistsError, match='other settings .*remove it, or choose another folder'):
        make_digit_classes(tmp_path / 'd', DigitClassesConfig(train=26, val=12, size=32))


def test_mmpretrain_reads_it(tmp_path):
    datasets = pytest.importorskip('mmpretrain.datasets')
    make_digit_classes(tmp_path / 'd', SMALL)
    found = datasets.ImageNet(data_root=str(tmp_path / 'd'), split='val', metainfo=dict(classes=tuple('0123456789')))
    for i in range(len(found)):
        info = found.get_data_info(i)
        assert info['img_path'].split('/')[-2] == str(info['gt_label'])


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        make_digit_classes(tmp_path / name, DigitClassesConfig(train=10, val=10, size=32, seed=seed))
    assert digest(tmp_path / 'a') == digest(tmp_path / 'b')
    images = [{v for k, v in digest(tmp_path / n).items() if k.endswith('.jpg')} for n in 'ac']
    assert len(images[0]) == 20 and not images[0] & images[1]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_every_digit_is_drawn_equally_often(split):
    labels = load_split(split)[1]
    turn = _in_turn(labels, np.random.default_rng(0))
    assert sorted(turn) == list(range(len(labels)))
    assert Counter(labels[turn[:10]]) == Counter(range(10)) and not np.array_equal(turn, np.sort(turn))
    assert not np.array_equal(turn, _in_turn(labels, np.random.default_rng(1)))


def test_a_picture_shows_its_digit():
    """The brightest pixels are where the digit is large; what is drawn differs from the bare background."""
    digits, labels = load_split('val')
    means = np.stack([digits[labels == label].mean(0) for label in range(10)])
    right = 0
    for picture in draw_labelled('val', DigitClassesConfig(train=10, val=60, size=32, min_scale=1, max_scale=1)):
        assert picture.image.shape == (32, 32, 3) and picture.image.dtype == np.uint8
        ink = np.asarray(Image.fromarray(picture.image.min(2)).resize((8, 8), Image.Resampling.BOX), float)
        similar = [np.corrcoef(ink.ravel(), mean.ravel())[0, 1] for mean in means]
        right += int(np.argmax(similar)) == picture.label
    assert right > 40  # of 60; 6 by chance


def test_the_other_layouts_are_what_they_were(tmp_path):
    """Bytes of before there was a classification set; the classes lie beside them in the folder."""
    make_digits(tmp_path / 'd', DigitsConfig(train=3, val=2, size=64))
    before = digest(tmp_path / 'd')
    make_digit_classes(tmp_path / 'd' / 'imagenet', SMALL)
    assert not make_digits(tmp_path / 'd', DigitsConfig(train=3, val=2, size=64))
    after = digest(tmp_path / 'd')
    assert {name: value for name, value in after.items() if not name.startswith('imagenet')} == before


@pytest.mark.slow
def test_all_layouts_from_the_command_line(tmp_path, monkeypatch):
    """The classification set is of its usual size, but for the pictures to train on."""
    monkeypatch.setattr('nextvit_mm.demo.DigitClassesConfig', functools.partial(DigitClassesConfig, train=30))
    for said in ('made', 'already there'):
        result = call_tool(ROOT / 'tools' / 'make_digits.py', tmp_path / 'd', '--train', 2, '--val', 2)
        assert said in result.stdout
    assert sorted(path.name for path in (tmp_path / 'd').iterdir()) == ['ade', 'coco', 'digits.json', 'imagenet']
    assert len(list((tmp_path / 'd' / 'imagenet' / 'val').rglob('*.jpg'))) == 360
    assert len(list((tmp_path / 'd' / 'imagenet' / 'train').rglob('*.jpg'))) == 30


@pytest.mark.parametrize(
    'kwargs, word',
    [
        (dict(train=9), 'train'),
        (dict(val=0), 'val'),
        (dict(size=16), 'size'),
        (dict(min_scale=0.9, max_scale=0.5), 'min_scale'),
        (dict(seed=-1), 'seed'),
    ],
)
def test_settings_that_make_no_sense_are_refused(kwargs, word):
    with pytest.raises(ValueError, match=word):
        DigitClassesConfig(**kwargs)
