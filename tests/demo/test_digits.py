import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from nextvit_mm.demo import DigitsConfig, digits, make_digits
from nextvit_mm.demo.digits import draw_pictures, load_split

SMALL = DigitsConfig(train=3, val=2, size=64)


def digest(folder):
    files = sorted(p for p in Path(folder).rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        assert make_digits(tmp_path / name, DigitsConfig(train=3, val=2, size=64, seed=seed))
    assert digest(tmp_path / 'a') == digest(tmp_path / 'b')
    images = [{k: v for k, v in digest(tmp_path / n).items() if k.endswith('.jpg')} for n in 'ac']
    assert images[0].keys() == images[1].keys() and not set(images[0].values()) & set(images[1].values())


def test_coco_and_ade_say_the_same(tmp_path):
    make_digits(tmp_path / 'd', SMALL)
    for split, ade_split, name, count in (('train2017', 'training', 'train', 3), ('val2017', 'validation', 'val', 2)):
        coco = COCO(tmp_path / 'd' / 'coco' / 'annotations' / f'instances_{split}.json')
        assert [coco.cats[i]['name'] for i in sorted(coco.cats)] == list('0123456789')
        assert len(coco.imgs) == count
        for number, image in coco.imgs.items():
            file = tmp_path / 'd' / 'coco' / split / image['file_name']
            assert Image.open(file).size == (image['width'], image['height']) == (64, 64)
            ade = tmp_path / 'd' / 'ade'
            assert (ade / 'images' / ade_split / f'ADE_{name}_{number:08d}.jpg').read_bytes() == file.read_bytes()
            labels = np.asarray(Image.open(ade / 'annotations' / ade_split / f'ADE_{name}_{number:08d}.png'))
            expected = np.ones((64, 64), np.uint8)
            covered = np.zeros((64, 64), int)
            for annotation in coco.imgToAnns[number]:
                mask = coco.annToMask(annotation)
                covered += mask
                expected[mask > 0] = annotation['category_id'] + 1
                rows, columns = np.nonzero(mask)
                x, y, w, h = annotation['bbox']
                assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert annotation['area'] == mask.sum() > 0 and annotation['iscrowd'] == 0
            assert covered.max() == 1  # occlusion is resolved
            assert np.array_equal(labels, expected)
        ids = [a['id'] for a in coco.anns.values()]
        assert (
            len(ids)
            == len(set(ids))
            == len(
                json.loads((tmp_path / 'd' / 'coco' / 'annotations' / f'instances_{split}.json').read_text())[
                    'annotations'
                ]
            )
        )


def test_training_and_validation_use_different_digits():
    train, val = (load_split(split) for split in ('train', 'val'))
    assert len(train[0]) + len(val[0]) == 1797
    assert set(train[1]) == set(val[1]) == set(range(10))
    assert 0.18 < len(val[0]) / 1797 < 0.22
    # scikit-learn's 8×8 images are pairwise different but for a few, which must not lie on both sides.
    assert not {i.tobytes() for i in train[0]} & {i.tobytes() for i in val[0]}


def test_masks_are_where_the_ink_is():
    for picture in draw_pictures('val', SMALL):
        assert picture.image.shape == (64, 64, 3) and picture.image.dtype == np.uint8
        assert 1 <= len(picture.labels) == len(picture.masks) <= SMALL.max_digits
        assert picture.masks.sum(0).max() == 1
        for mask in picture.masks:
            assert picture.image[mask].std(0).mean() < picture.image.std((0, 1)).mean()  # one colour, nearly


def test_digits_hide_one_another_a_little(monkeypatch):
    areas, paint = [], digits.paint
    monkeypatch.setattr(
        digits, 'paint', lambda image, ink, colour: (areas.append((ink > 0.5).sum()), paint(image, ink, colour))
    )
    config = DigitsConfig(train=30, val=1, size=64, min_digits=4, max_digits=6)
    shown = [mask.sum() for picture in draw_pictures('train', config) for mask in picture.masks]
    shares = np.array(shown) / np.array(areas)
    assert shares.min() >= 0.8 and (shares < 1).any()


def test_made_once_and_never_over_something_else(tmp_path):
    assert make_digits(tmp_path / 'd', SMALL)
    before = digest(tmp_path / 'd')
    assert not make_digits(tmp_path / 'd', SMALL)
    with pytest.raises(FileExistsError, match='other settings .*remove it, or choose another folder'):
        make_digits(tmp_path / 'd', DigitsConfig(train=4, val=2, size=64))
    assert digest(tmp_path / 'd') == before
    (tmp_path / 'empty').mkdir()
    assert make_digits(tmp_path / 'empty', SMALL)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').touch()
    with pytest.raises(FileExistsError, match='mine'):
        make_digits(tmp_path / 'mine', SMALL)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr('nextvit_mm.demo.digits._coco_annotations', stop)
    with pytest.raises(KeyboardInterrupt):
        make_digits(tmp_path / 'd', SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'kwargs, word',
    [
        (dict(train=0), 'train'),
        (dict(size=16), 'size'),
        (dict(min_digits=3, max_digits=2), 'max_digits'),
        (dict(max_scale=1.5), 'max_scale'),
        (dict(seed=-1), 'seed'),
    ],
)
def test_settings_that_make_no_sense_are_refused(kwargs, word):
    with pytest.raises(ValueError, match=word):
        DigitsConfig(**kwargs)
