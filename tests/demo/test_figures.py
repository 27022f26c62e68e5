import json

import matplotlib.image
import numpy as np
import pytest

from nextvit_mm.demo.figures import draw_classifications, draw_detections, draw_losses
from nextvit_mm.errors import UserError
from nextvit_mm.utils.logs import read_scalars


def write_log(folder, name, records):
    path = folder / name / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, records)))


def test_a_resumed_run_is_one_curve(tmp_path):
    write_log(
        tmp_path,
        '20260101_000000',
        [dict(iter=i, loss=10.0 - i, lr=1e-4) for i in (1, 2, 3)] + [{'step': 1, 'coco/bbox_mAP': 0.1}],
    )
    write_log(
        tmp_path,
        '20260101_010000',
        [dict(iter=i, loss=20.0 - i, lr=1e-4) for i in (3, 4)] + [{'step': 2, 'coco/bbox_mAP': 0.2}],
    )
    train, val = read_scalars(tmp_path)
    assert [(r['iter'], r['loss']) for r in train] == [(1, 9.0), (2, 8.0), (3, 17.0), (4, 16.0)]
    assert [r['coco/bbox_mAP'] for r in val] == [0.1, 0.2]
    draw_losses(tmp_path, tmp_path / 'out' / 'losses.png')
    assert matplotlib.image.imread(tmp_path / 'out' / 'losses.png').std() > 0.02


def test_a_new_run_in_an_old_folder_is_only_itself(tmp_path):
    write_log(
        tmp_path,
        '20260101_000000',
        [dict(iter=i, loss=1.0, lr=1e-4) for i in (1, 2, 3)] + [{'step': 2, 'coco/bbox_mAP': 0.9}],
    )
    write_log(tmp_path, '20260101_010000', [dict(iter=1, loss=5.0, lr=1e-4), {'step': 1, 'coco/bbox_mAP': 0.1}])
    train, val = read_scalars(tmp_path)
    assert [r['loss'] for r in train] == [5.0] and [r['coco/bbox_mAP'] for r in val] == [0.1]


def test_a_folder_without_log(tmp_path):
    with pytest.raises(UserError, match='holds no log'):
        read_scalars(tmp_path)


def test_detections_are_drawn_where_they_are(tmp_path):
    image = np.zeros((40, 40, 3), np.uint8)
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 5:20, 5:20] = True
    some = dict(boxes=np.array([[5, 5, 20, 20]]), labels=np.array([3]), masks=mask)
    none = dict(boxes=np.zeros((0, 4)), labels=np.zeros(0, int), masks=np.zeros((0, 40, 40), bool), scores=np.zeros(0))
    draw_detections([image], [some], [none], list('0123456789'), tmp_path / 'a.png', columns=1)
    draw_detections(
        [image], [some], [dict(some, scores=np.array([0.9]))], list('0123456789'), tmp_path / 'b.png', columns=1
    )
    a, b = (matplotlib.image.imread(tmp_path / f'{n}.png') for n in 'ab')
    assert a.shape == b.shape
    changed = np.abs(a - b).sum(-1).max(0) > 0.1  # columns of the sheet
    assert not changed[: a.shape[1] // 2].any() and changed[a.shape[1] // 2 :].any()


@pytest.mark.slow
def test_wrong_classes_are_red(tmp_path):
    """The same pictures, once with a wrong prediction: the sheets differ by red writing."""
    images = [np.full((32, 32, 3), 60, np.uint8) for _ in range(12)]
    labels = [i % 3 for i in range(12)]
    for name, predictions in (('right', labels), ('wrong', [2] + labels[1:])):
        draw_classifications(images, labels, predictions, [0.9] * 12, ('a', 'b', 'c'), tmp_path / f'{name}.png', 'x')
    red = [
        np.count_nonzero((picture[..., 0] > 0.7) & (picture[..., 1] < 0.4))
        for picture in (matplotlib.image.imread(tmp_path / f'{name}.png') for name in ('right', 'wrong'))
    ]
    assert red[0] == 0 < red[1]
