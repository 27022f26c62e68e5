import numpy as np
import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.published import load_run
from nextvit_mm.reproduction.compare import (
    Comparison,
    loss_is_outside,
    mean_curve,
    metrics_outside,
    plan_comparison,
    published_evaluation,
    rate_is_published,
    same_schedule_iteration,
)

COCO = load_run('mask_rcnn_1x_nextvit_small')
ADE = load_run('fpn_80k_nextvit_small')


def test_the_published_recipe_is_compared_as_it_is():
    assert plan_comparison(COCO, 16, 12 * 7330, 117266) == Comparison(COCO.name, 1.0)


@pytest.mark.parametrize('images, iters', [(16, 80000), (8, 160000), (64, 20000)])
def test_another_batch_that_sees_as_many_images_rescales_the_axis(images, iters):
    found = plan_comparison(ADE, images, iters, 20210)
    assert found.scale == iters / 40000
    assert len(found.remarks) == 1 and f'{images} images' in found.remarks[0]


def test_epochs_of_a_smaller_batch():
    """One GPU of two images: an epoch has 58,633 iterations, not exactly 8 × 7,330."""
    assert plan_comparison(COCO, 2, 12 * 58633, 117266).scale == 8


@pytest.mark.parametrize(
    'kwargs, word',
    [
        (dict(images_per_iter=16, max_iters=6 * 7330), '703,680'),
        (dict(images_per_iter=4, max_iters=12 * 7330), '87,960 × 4'),
        (dict(images_per_iter=16, max_iters=12 * 7330, train_images=5000), '5,000'),
        (dict(images_per_iter=16, max_iters=12 * 7330, start_problem='it starts from nothing'), 'starts from nothing'),
    ],
)
def test_what_cannot_be_compared_says_why(kwargs, word):
    found = plan_comparison(COCO, **kwargs)
    assert found.scale is None and any(word in remark for remark in found.remarks)


def test_published_means_are_interpolated_between_the_middles_of_their_windows():
    first, second = ADE.train[0]['loss'], ADE.train[1]['loss']
    curve = mean_curve(ADE, 'loss')
    assert np.interp(1, *curve) == np.interp(250, *curve) == first
    assert np.interp(500, *curve) == pytest.approx((first + second) / 2)
    assert np.interp(10**6, *curve) == ADE.train[-1]['loss']


def test_evaluations_are_found_at_their_place():
    assert published_evaluation(ADE, 4000)['mIoU'] == pytest.approx(30.61)
    assert published_evaluation(COCO, 58633 * 3 / 8)['iter'] == 3 * 7330
    assert published_evaluation(ADE, 6000) is None


@pytest.mark.parametrize(
    'rate, printed, same',
    [(9.98e-5, 9.98e-5, True), (9.9796e-5, 9.98e-5, True), (9.978e-5, 9.98e-5, False), (2e-4, 1e-4, False)],
)
def test_rates(rate, printed, same):
    assert rate_is_published(rate, printed) is same


@pytest.mark.parametrize('scale, expected', [(1, 500), (2, 999), (0.25, 126), (8, 3993)])
def test_a_stretched_schedule_starts_at_its_first_iteration(scale, expected):
    assert same_schedule_iteration(500, scale) == expected and same_schedule_iteration(1, scale) == 1


def test_bands():
    assert not loss_is_outside(1.09, 1.0) and loss_is_outside(1.11, 1.0) and loss_is_outside(float('nan'), 1.0)
    published = {'coco/bbox_mAP': 0.45, 'coco/segm_mAP': None, 'mIoU': 40.0}
    assert metrics_outside({'coco/bbox_mAP': 0.44, 'mIoU': 38.0}, published) == []
    assert metrics_outside({'coco/bbox_mAP': 0.43, 'coco/segm_mAP': 0.1, 'mIoU': 37.0}, published) == [
        'coco/bbox_mAP',
        'mIoU',
    ]


def test_a_comparison_is_kept_in_the_work_dir(tmp_path):
    assert Comparison.load(tmp_path) is None
    kept = Comparison(ADE.name, None, ['why'], 'it starts from nothing')
    kept.save(tmp_path)
    assert Comparison.load(tmp_path) == kept
    (tmp_path / 'published_run.json').write_text('{')
    with pytest.raises(UserError, match='published_run.json'):
        Comparison.load(tmp_path)
