"""The comparison finds every kind of difference that it is there for."""

import numpy as np
import pytest

from nextvit_mm.deploy.verify import broken_limits, compare, match, worst

SIZE = (60, 60)


def detections():
    boxes = np.array([[2, 2, 22, 22], [30, 30, 50, 58]], np.float32)
    ours = dict(
        boxes=boxes,
        scores=np.array([0.9, 0.5], np.float32),
        labels=np.array([1, 0]),
        masks=np.ones((2, 8, 8), np.float32),
    )
    masks = np.zeros((2, *SIZE), bool)
    masks[0, 2:22, 2:22] = masks[1, 30:58, 30:50] = True
    return ours, dict(boxes=boxes.copy(), scores=ours['scores'].copy(), labels=ours['labels'].copy(), masks=masks)


def broken(ours, theirs):
    return ' '.join(broken_limits('detection', compare('detection', ours, theirs, SIZE)))


def test_equal_detections_in_any_order_are_equal():
    ours, theirs = detections()
    assert broken(ours, theirs) == ''
    assert broken({name: value[::-1] for name, value in ours.items()}, theirs) == ''


def drop_first(ours):
    for name in ours:
        ours[name] = ours[name][1:]


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda d: d['boxes'].__setitem__((0, 0), 2.5), 'least box IoU'),
        (lambda d: d['scores'].__setitem__(0, 0.902), 'largest score difference'),
        (lambda d: d['labels'].__setitem__(0, 0), 'unmatched detections is 2'),
        (lambda d: d['masks'].__setitem__((0, slice(0, 4)), 0), 'least mask IoU'),
        (drop_first, 'unmatched detections is 1'),
    ],
)
def test_every_difference_is_found(change, words):
    ours, theirs = detections()
    change(ours)
    assert words in broken(ours, theirs)


@pytest.mark.parametrize(
    'change, within, beyond',
    [
        (
            lambda d, n: d['boxes'].__setitem__((0, 2), 22 + 20 * n),
            0.009,
            0.0115,
        ),  # of the 20 pixels that the box is wide
        (lambda d, n: d['scores'].__setitem__(0, 0.9 + n), 9e-4, 1.1e-3),
        (lambda d, n: d['masks'][0].flat.__setitem__(slice(n), 0), 3, 5),  # of the 400 pixels of the first mask
    ],
)
def test_detections_are_held_to_the_documented_limits(change, within, beyond):
    for amount, passes in ((within, True), (beyond, False)):
        ours, theirs = detections()
        ours['masks'] = np.ones((2, 20, 20), np.float32)
        ours['masks'][1] = 1
        change(ours, amount)
        assert (broken(ours, theirs) == '') == passes, (amount, broken(ours, theirs))


@pytest.mark.parametrize(
    'task, figures, passes',
    [
        ('segmentation', {'equal pixels': 0.9991}, True),
        ('segmentation', {'equal pixels': 0.9989}, False),
        ('backbone', {'largest relative error': 0.9e-4}, True),
        ('backbone', {'largest relative error': 1.1e-4}, False),
        ('classification', {'largest score difference': 0.9e-4, 'equal best classes': 1.0}, True),
        ('classification', {'largest score difference': 1.1e-4, 'equal best classes': 1.0}, False),
        ('classification', {'largest score difference': 0.0, 'equal best classes': 0.99}, False),
    ],
)
def test_other_tasks_are_held_to_the_documented_limits(task, figures, passes):
    assert (broken_limits(task, figures) == []) == passes


@pytest.mark.parametrize(
    'limits, excused',
    [(dict(score_thr=0.4), False), (dict(score_thr=0.4995), True), (dict(score_thr=0.4, max_per_img=2), True)],
)
def test_a_detection_at_a_limit_may_fall_on_either_side(limits, excused):
    ours, theirs = detections()
    ours = {name: value[:1] for name, value in ours.items()}  # the second, of score 0.5, is missing
    assert (compare('detection', ours, theirs, SIZE, limits)['unmatched detections'] == 0) == excused


def test_no_detections():
    empty = dict(boxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, int), masks=np.zeros((0, 8, 8)))
    assert broken(empty, dict(empty, masks=np.zeros((0, *SIZE), bool))) == ''
    assert 'unmatched' in broken(empty, dict(detections()[1], scores=np.array([0.9, 0.5])))


@pytest.mark.parametrize('shift, pairs', [(3.2, 1), (3.5, 0)])  # of ten pixels: IoU 0.515 and 0.48
def test_boxes_that_overlap_by_less_than_half_are_no_pair(shift, pairs):
    box = np.array([[0, 0, 10, 10]], np.float32)
    assert len(match(box, np.zeros(1), box + [shift, 0, shift, 0], np.zeros(1))) == pairs


def test_pairs_are_one_to_one():
    box = np.array([[0, 0, 10, 10]], np.float32)
    assert match(np.repeat(box, 3, 0), np.zeros(3), box, np.zeros(1)) == [(0, 0, 1.0)]


@pytest.mark.parametrize(
    'task, name, right, wrong',
    [
        ('segmentation', 'class_map', np.zeros((1, 50, 50)), np.eye(50)[None]),
        ('backbone', 'stage1', np.ones((1, 2, 3, 3)), np.full((1, 2, 3, 3), 1.001)),
        ('backbone', 'stage1', np.ones((1, 2, 3, 3)), np.ones((1, 2, 3, 4))),
        ('classification', 'scores', np.array([[0.4, 0.6]]), np.array([[0.4002, 0.5998]])),
        ('classification', 'scores', np.array([[0.49999, 0.50001]]), np.array([[0.50001, 0.49999]])),
    ],
)
def test_other_tasks(task, name, right, wrong):
    assert broken_limits(task, compare(task, {name: right}, {name: right}, SIZE)) == []
    assert broken_limits(task, compare(task, {name: wrong}, {name: right}, SIZE))


def test_the_worst_of_several_images_counts():
    figures = worst(
        'detection',
        [
            {'detections': 3, 'unmatched detections': 0, 'least box IoU': 0.999, 'largest score difference': 1e-6},
            {'detections': 4, 'unmatched detections': 1, 'least box IoU': 1.0, 'largest score difference': 1e-4},
        ],
    )
    assert figures == {
        'images': 2,
        'detections': 7,
        'unmatched detections': 1,
        'least box IoU': 0.999,
        'largest score difference': 1e-4,
    }
