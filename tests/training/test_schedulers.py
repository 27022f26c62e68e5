"""The scheduler of the published classifiers, by itself and in MMEngine's runner."""

import math
import uuid

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from timm.scheduler import CosineLRScheduler

from nextvit_mm import WarmupCosineEpochLR

from ..reproduction.test_hook import Toy

PUBLISHED = dict(epochs=300, warmup_epochs=20, warmup_lr=1e-6, min_lr=1e-5)


def optimizer(*rates):
    return torch.optim.SGD([dict(params=[torch.zeros(1, requires_grad=True)], lr=rate) for rate in rates])


def drive(scheduler, steps):
    """The rates of the first group, before each of so many steps."""
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]['lr'])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_it_is_registered_and_counts_epochs():
    scheduler = PARAM_SCHEDULERS.build(dict(type='WarmupCosineEpochLR', optimizer=optimizer(0.1), epochs=10))
    assert isinstance(scheduler, WarmupCosineEpochLR) and scheduler.by_epoch


@pytest.mark.parametrize(
    'settings', [PUBLISHED, dict(epochs=7), dict(epochs=10, warmup_epochs=3, warmup_lr=0.02, min_lr=0.001)], ids=str
)
def test_rates_are_timms_an_epoch_late(settings):
    """Published runs ask timm's scheduler for the rate of step e after epoch e."""
    epochs = settings['epochs']
    ours = drive(WarmupCosineEpochLR(optimizer(2e-3), **settings), epochs + 3)
    theirs = optimizer(2e-3)
    reference = CosineLRScheduler(
        theirs,
        t_initial=epochs,
        lr_min=settings.get('min_lr', 0),
        cycle_limit=1,
        warmup_t=settings.get('warmup_epochs', 0),
        warmup_lr_init=settings.get('warmup_lr', 0),
    )
    expected = []
    for epoch in range(epochs + 3):
        expected.append(theirs.param_groups[0]['lr'])
        reference.step(epoch)
    assert ours == pytest.approx(expected, rel=1e-12)


def test_every_group_has_a_rate_of_its_own():
    scheduler = WarmupCosineEpochLR(optimizer(2e-3, 2e-4), epochs=10, min_lr=1e-5)
    drive(scheduler, 6)  # t = 5, half way
    assert [group['lr'] for group in scheduler.optimizer.param_groups] == pytest.approx([1.005e-3, 1.05e-4])


def test_a_saved_scheduler_goes_on_where_it_was():
    whole = drive(WarmupCosineEpochLR(optimizer(2e-3), **PUBLISHED), 60)
    first = WarmupCosineEpochLR(optimizer(2e-3), **PUBLISHED)
    rates = drive(first, 23)
    second = WarmupCosineEpochLR(optimizer(2e-3), **PUBLISHED)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert rates + drive(second, 37) == whole
    assert 'optimizer' not in first.state_dict()


class Rates(Hook):
    """Notes the rate of every iteration, and stops the run at one of them."""

    def __init__(self, stop=None):
        self.stop, self.rates = stop, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise KeyboardInterrupt
        self.rates.append((runner.iter, runner.optim_wrapper.param_groups[0]['lr']))


def run(work_dir, stop=None, resume=False):
    """Six epochs of five iterations in MMEngine's runner, as a config would have them."""
    spy = Rates(stop)
    runner = Runner(
        Toy(),
        str(work_dir),
        resume=resume,
        custom_hooks=[spy],
        experiment_name=uuid.uuid4().hex,
        train_dataloader=dict(
            dataset=[torch.zeros(1) for _ in range(20)],
            batch_size=4,
            sampler=dict(type='DefaultSampler'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=6),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        param_scheduler=[dict(type='WarmupCosineEpochLR', epochs=6, warmup_epochs=2, warmup_lr=1e-4, min_lr=1e-3)],
    )
    runner.model.data_preprocessor.forward = lambda data, training=False: dict(inputs=data)
    try:
        runner.train()
    except KeyboardInterrupt:
        assert stop is not None
    return spy.rates


def test_a_run_that_was_killed_has_the_rates_of_one_that_was_not(tmp_path):
    whole = run(tmp_path / 'whole')
    killed = run(tmp_path / 'killed', stop=23)
    assert [i for i, _ in killed] == list(range(23))
    resumed = run(tmp_path / 'killed', resume=True)  # from the end of the fourth epoch
    assert [i for i, _ in resumed] == list(range(20, 30))
    assert killed[:20] + resumed == whole
    by_epoch = [rate for i, rate in whole if i % 5 == 0]
    assert by_epoch[:3] == pytest.approx([1e-4, 1e-4, (1e-4 + 0.01) / 2]) and len({rate for _, rate in whole}) == 5
    assert by_epoch[3] == pytest.approx(1e-3 + 0.009 * (1 + math.cos(math.pi / 3)) / 2)


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(epochs=0), 'epochs=0'),
        (dict(epochs=5, warmup_epochs=5), 'warmup_epochs=5'),
        (dict(epochs=5, warmup_epochs=-1), 'warmup_epochs=-1'),
        (dict(epochs=5, warmup_lr=-1e-6), 'warmup_lr=-1e-06'),
        (dict(epochs=5, min_lr=-1.0), 'min_lr=-1.0'),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ValueError, match=words):
        WarmupCosineEpochLR(optimizer(0.1), **settings)
