"""The comparison finds every kind of difference that it is there for."""

import numpy as np
import pytest

from nextvit_mm.deploy.verify import (
    broken_limits,
    color_difference,
    compare,
    equal_but_for_edges,
    match,
    not_finite,
    worst,
    wrong_pixels,
)

SIZE = (60, 60)


def detections():
    """Two detections, as the exported model's results and as the trained one's."""
    masks = np.zeros((2, *SIZE), bool)
    masks[0, 2:22, 2:22] = masks[1, 30:58, 30:50] = True
    ours = dict(
        boxes=np.array([[2, 2, 22, 22], [30, 30, 50, 58]], np.float32),
        scores=np.array([0.9, 0.5], np.float32),
        labels=np.array([1, 0]),
        masks=masks,
    )
    return ours, dict({name: value.copy() for name, value in ours.items()}, masks=masks.astype(np.uint8) * 255)


def broken(ours, theirs):
    return ' '.join(broken_limits('detection', compare('detection', ours, theirs)))


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
        (lambda d: d['masks'].__setitem__((0, 10, 10), False), 'wrong mask pixels is 1'),
        (lambda d: d['masks'].__setitem__(0, d['masks'][0][:, ::-1]), 'wrong mask pixels'),
        (lambda d: d['scores'].__setitem__(1, np.nan), 'largest score difference is nan'),
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
    ],
)
def test_detections_are_held_to_the_documented_limits(change, within, beyond):
    for amount, passes in ((within, True), (beyond, False)):
        ours, theirs = detections()
        change(ours, amount)
        assert (broken(ours, theirs) == '') == passes, (amount, broken(ours, theirs))


@pytest.mark.parametrize(
    'task, figures, passes',
    [
        ('detection', {'wrong mask pixels': 0}, True),
        ('detection', {'wrong mask pixels': 1}, False),
        ('detection', {'largest color difference': 1.0}, True),
        ('segmentation', {'largest color difference': 2.0}, False),
        ('classification', {'values that are not finite': 1}, False),
        ('backbone', {'largest relative error': float('nan')}, False),
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
    assert (compare('detection', ours, theirs, limits)['unmatched detections'] == 0) == excused


def test_no_detections():
    empty = dict(boxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, int), masks=np.zeros((0, *SIZE), bool))
    assert broken(empty, empty) == ''
    assert 'unmatched' in broken(empty, dict(detections()[1], scores=np.array([0.9, 0.5])))


@pytest.mark.parametrize('shift, pairs', [(3.2, 1), (3.5, 0)])  # of ten pixels: IoU 0.515 and 0.48
def test_boxes_that_overlap_by_less_than_half_are_no_pair(shift, pairs):
    box = np.array([[0, 0, 10, 10]], np.float32)
    assert len(match(box, np.zeros(1), box + [shift, 0, shift, 0], np.zeros(1))) == pairs


def test_pairs_are_one_to_one():
    box = np.array([[0, 0, 10, 10]], np.float32)
    assert match(np.repeat(box, 3, 0), np.zeros(3), box, np.zeros(1)) == [(0, 0, 1.0)]


@pytest.mark.parametrize('shift, pairs', [(0.009, 1), (0.011, 0)])
def test_a_box_of_which_the_edge_leaves_no_area_has_itself_as_partner(shift, pairs):
    sliver = np.array([[60, 10, 60, 20]], np.float32)
    assert len(match(sliver, np.zeros(1), sliver + [0, shift, 0, shift], np.zeros(1))) == pairs


def maps(*values):
    return dict(maps=[np.full((1, 2, 3, 3), value) for value in values])


def segments(class_map):
    return dict(class_map=class_map, input_map=class_map)


@pytest.mark.parametrize(
    'task, right, wrong',
    [
        ('segmentation', segments(np.zeros((50, 50))), segments(np.eye(50))),
        ('backbone', maps(1.0, 1.0), maps(1.0, 1.001)),
        ('backbone', maps(1.0, 1.0), maps(1.0, np.nan)),
        ('backbone', maps(1.0, 1.0), maps(np.nan, 1.0)),
        ('backbone', maps(1.0), dict(maps=[np.ones((1, 2, 3, 4))])),
        ('classification', dict(scores=np.array([0.4, 0.6])), dict(scores=np.array([0.4002, 0.5998]))),
        ('classification', dict(scores=np.array([0.49999, 0.50001])), dict(scores=np.array([0.50001, 0.49999]))),
        ('classification', dict(scores=np.array([0.4, 0.6])), dict(scores=np.array([0.4, np.nan]))),
    ],
)
def test_other_tasks(task, right, wrong):
    assert broken_limits(task, compare(task, right, right)) == []
    assert broken_limits(task, compare(task, wrong, right))


@pytest.mark.parametrize('first', [0, 1])
def test_what_is_no_number_stays_so_over_several_images(first):
    figures = [{'largest relative error': 0.0}, {'largest relative error': float('nan')}]
    found = worst('backbone', figures[first:] + figures[:first])
    assert broken_limits('backbone', found) == ['largest relative error is nan and must be at most 0.0001']


def test_values_that_are_not_finite_are_counted():
    assert not_finite([np.array([1.0, np.nan, np.inf]), np.array([1, 2])]) == 2


def test_a_mirrored_or_smaller_input_is_another_one():
    picture = np.arange(2 * 3 * 4, dtype=float).reshape(2, 3, 4)
    padded = np.pad(picture, ((0, 0), (0, 2), (0, 1)))
    assert color_difference(padded, picture) == 0
    assert color_difference(picture[..., ::-1], picture) == 3 and color_difference(picture[:, :2], picture) == np.inf


def test_pixels_of_masks_count_where_the_trained_model_is_sure():
    """One pixel of a small mask of a detector trained for a few iterations is at the threshold."""
    likely = np.full((8, 8), 255, np.uint8)
    likely[0, 0], likely[0, 1] = 127, 140
    mask = likely >= 128
    for pixel, wrong in (((0, 0), 0), ((0, 1), 1), ((4, 4), 1)):
        other = mask.copy()
        other[pixel] ^= True
        assert wrong_pixels(other, likely, 0.5) == wrong
    assert wrong_pixels(np.roll(mask, 1, 0), likely, 0.5) > 0


def test_edges_of_classes_may_differ_by_what_a_pixel_of_the_input_is_in_the_picture():
    theirs = np.zeros((40, 60), int)
    theirs[:, 31:] = 1
    shifted, far = np.roll(theirs, 1, 1), np.roll(theirs, 6, 1)
    shifted[:, 0] = far[:, :6] = 0
    assert equal_but_for_edges(shifted, theirs, (20, 30)) == 1 and equal_but_for_edges(far, theirs, (20, 30)) < 0.95
    assert equal_but_for_edges(shifted, theirs, (40, 60)) < 0.999
    assert equal_but_for_edges(theirs[:, ::-1], theirs, (20, 30)) < 0.95


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
