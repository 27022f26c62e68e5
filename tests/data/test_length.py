"""Length, batch, rate and size: the recipe is rescaled, not only cut."""

import pytest

from nextvit_mm.data.length import FROM_SCRATCH, Length, raise_rate_from_scratch
from nextvit_mm.data.own import weaken_augmentation

from ..conftest import DETECTOR, ROOT, load_config
from .test_broken import CLASSIFIER, FPN, UPER


def test_epochs_move_milestones_and_warm_up():
    cfg = load_config(DETECTOR)
    Length(epochs=6).apply(cfg, None)
    warm_up, steps = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == steps.end == 6 and steps.milestones == [4, 5]
    assert warm_up.end == round(501 / 2)
    Length(epochs=24).apply(cfg, None)
    assert cfg.param_scheduler[1].milestones == [16, 20] and cfg.param_scheduler[1].end == 24


def test_a_warm_up_takes_a_tenth_at_most():
    cfg = load_config(DETECTOR)
    Length(epochs=12).apply(cfg, 100)  # 600 iterations
    assert cfg.param_scheduler[0].end == 60


@pytest.mark.parametrize('config, first', [(FPN, 40), (UPER, 40), (CLASSIFIER, None), (DETECTOR, 20)])
def test_own_data_begin_with_a_low_rate_in_every_recipe(config, first):
    """400 pictures: 400 iterations of a segmentor in batches of 8, and 200 of a detector in batches of 2."""
    cfg = load_config(config)
    recipe = [scheduler.type for scheduler in cfg.param_scheduler]
    Length(epochs=8 if config in (FPN, UPER) else 1).apply(cfg, 400, own_data=True)
    schedulers = cfg.param_scheduler
    assert [scheduler.type for scheduler in schedulers] == ['LinearLR'] * (config == FPN) + recipe
    if config == CLASSIFIER:
        assert 'warmup_epochs' in schedulers[0]
    else:
        assert schedulers[0].end == first and not schedulers[0].by_epoch
    before = len(schedulers)
    Length().apply(cfg, 400, own_data=True)  # the config of the run, given again
    assert len(cfg.param_scheduler) == before


def test_batches_of_own_data(monkeypatch):
    """A segmentor's batch norms learn of 8 pictures, in one process or in several; the others' batches stay."""
    for config, processes, batch in ((FPN, 1, 8), (FPN, 4, 2), (FPN, 8, 2), (DETECTOR, 1, 2), (CLASSIFIER, 1, 32)):
        monkeypatch.setenv('WORLD_SIZE', str(processes))
        cfg = load_config(config)
        Length().apply(cfg, 400, own_data=True)
        assert cfg.train_dataloader.batch_size == batch
    cfg = load_config(FPN)
    Length().apply(cfg, 5, own_data=True)
    assert cfg.train_dataloader.batch_size == 5
    Length(batch_size=3).apply(cfg, 5, own_data=True)
    assert cfg.train_dataloader.batch_size == 3


@pytest.mark.parametrize('config, end', [(FPN, 801), (UPER, 801)])
def test_iterations_move_the_end_of_the_decay(config, end):
    cfg = load_config(config)
    Length(iters=800).apply(cfg, None)
    assert cfg.train_cfg.max_iters == 800 and cfg.param_scheduler[-1].end == end
    assert cfg.train_cfg.val_interval <= 800 and cfg.default_hooks.checkpoint.interval <= 800
    if config == UPER:
        assert cfg.param_scheduler[0].end == 1501 * 800 // 160000


def test_each_unit_is_turned_into_the_other():
    cfg = load_config(DETECTOR)
    Length(iters=95).apply(cfg, 20)  # 10 iterations an epoch, of which none is cut
    assert cfg.train_cfg.max_epochs == 10
    cfg = load_config(FPN)
    Length(epochs=3).apply(cfg, 20)
    assert cfg.train_cfg.max_iters == 30


def test_the_classifiers_cosine_is_rescaled():
    cfg = load_config(CLASSIFIER)
    Length(epochs=30).apply(cfg, None)
    (cosine,) = cfg.param_scheduler
    assert (cosine.epochs, cosine.warmup_epochs) == (30, 2)
    Length(epochs=1).apply(cfg, None)
    assert (cfg.param_scheduler[0].epochs, cfg.param_scheduler[0].warmup_epochs) == (1, 0)


def test_the_rate_follows_the_batch_by_its_root_unless_given():
    cfg = load_config(DETECTOR)
    Length(batch_size=4).apply(cfg, None)
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * (4 / 16) ** 0.5)
    Length(batch_size=4).apply(cfg, None)  # as when a run goes on from the config in its work dir
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * (4 / 16) ** 0.5)
    cfg = load_config(DETECTOR)
    Length(batch_size=4, lr=3e-4).apply(cfg, None)
    assert cfg.optim_wrapper.optimizer.lr == 3e-4
    cfg = load_config(DETECTOR)
    cfg.optim_wrapper.optimizer.type = 'SGD'
    Length(batch_size=4).apply(cfg, None)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * 4 / 16)


def test_random_weights_take_a_higher_rate_once():
    cfg = load_config(DETECTOR)
    raise_rate_from_scratch(cfg)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * FROM_SCRATCH)
    cfg.model.backbone.init_cfg = None  # as in the config of the run
    raise_rate_from_scratch(cfg)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * FROM_SCRATCH)
    cfg = load_config(CLASSIFIER)  # whose rate is one for random weights
    raise_rate_from_scratch(cfg)
    assert cfg.optim_wrapper.optimizer.lr == 2e-3


def test_random_weights_take_a_weaker_augmentation():
    cfg = load_config(CLASSIFIER)
    weaken_augmentation(cfg, True)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [step.type for step in pipeline] == ['LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'PackInputs']
    assert pipeline[1].crop_ratio_range == (0.5, 1.0)
    cfg = load_config(DETECTOR)
    before = cfg.pretty_text
    weaken_augmentation(cfg, True)
    assert cfg.pretty_text == before


def test_a_short_training_of_a_segmentor_takes_a_weaker_augmentation():
    cfg = load_config(FPN)
    before = cfg.pretty_text
    weaken_augmentation(cfg, False)
    assert cfg.pretty_text == before  # 80,000 iterations
    cfg.train_cfg.max_iters = 2000
    weaken_augmentation(cfg, False)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [step.type for step in pipeline][2:] == ['RandomResize', 'RandomCrop', 'RandomFlip', 'PackSegInputs']
    assert pipeline[2].ratio_range == (0.8, 1.25)
    cfg = load_config(CLASSIFIER)
    before = cfg.pretty_text
    weaken_augmentation(cfg, False)
    assert cfg.pretty_text == before  # of pretrained weights


def test_image_size_reaches_every_pipeline():
    cfg = load_config(DETECTOR)
    Length(image_size=[400]).apply(cfg, None)
    for loader in ('train', 'val', 'test'):
        (resize,) = [s for s in cfg[f'{loader}_dataloader'].dataset.pipeline if s.type == 'Resize']
        assert resize.scale in ((666, 400), (667, 400))
    cfg = load_config(FPN)
    Length(image_size=[256]).apply(cfg, None)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert (pipeline[2].scale, pipeline[3].crop_size) == ((1024, 256), (256, 256))
    assert tuple(cfg.model.data_preprocessor.size) == (256, 256)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (1024, 256)
    cfg = load_config(CLASSIFIER)
    Length(image_size=[112]).apply(cfg, None)
    assert cfg.train_dataloader.dataset.pipeline[1].scale == 112
    assert [cfg.val_dataloader.dataset.pipeline[i][k] for i, k in ((1, 'scale'), (2, 'crop_size'))] == [128, 112]


def test_multi_scale_training_is_scaled_with_its_crops():
    cfg = load_config(ROOT / 'configs/detection/mask_rcnn_nextvit_s_3x_released.py')
    Length(image_size=[400]).apply(cfg, None)
    choice = next(s for s in cfg.train_dataloader.dataset.pipeline if s.type == 'RandomChoice')
    assert choice.transforms[0][0].scales[-1][0] == 400
    assert choice.transforms[1][1].crop_size == (192, 300)


def test_few_pictures_get_a_length_and_reports_that_fit():
    cfg = load_config(DETECTOR)
    Length().apply(cfg, 40, own_data=True)
    assert cfg.train_cfg.max_epochs == 100 and cfg.train_cfg.val_interval == 10
    assert cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * (2 / 16) ** 0.5)
    cfg = load_config(DETECTOR)
    Length().apply(cfg, 20_000, own_data=True)
    assert cfg.train_cfg.max_epochs == 12
    cfg = load_config(CLASSIFIER)
    Length().apply(cfg, 33, own_data=True)
    assert cfg.train_dataloader.batch_size == 32 and cfg.train_dataloader.drop_last  # the last batch would be of one
