"""The learning rate of every config, against the one that the published runs printed."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from nextvit_mm.published import list_runs, load_run
from nextvit_mm.reproduction.compare import rate_is_published, same_schedule_iteration

from ..conftest import DETECTOR, RECIPES, ROOT, load_config

EPOCH_LENGTH = 7330  # COCO: 117,266 pictures with a box, 16 at a time


def learning_rates(cfg: Config) -> list:
    """The rate of every iteration of a config, stepping its schedulers as MMEngine's hook does."""
    max_iters = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs * EPOCH_LENGTH
    return _learning_rates(json.dumps(cfg.param_scheduler), cfg.optim_wrapper.optimizer.lr, max_iters)


@cache
def _learning_rates(param_scheduler: str, lr: float, max_iters: int) -> list:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in json.loads(param_scheduler)]
    optimizer.step()  # the schedulers ask for one; a step for every rate, of nothing, is four fifths of the time
    rates = []
    for iteration in range(1, max_iters + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            if not scheduler.by_epoch or iteration % EPOCH_LENGTH == 0:
                scheduler.step()
    return rates


def units_apart(rate: float, printed: float) -> int:
    """Difference in units of the last printed digit, of which the logs have four significant ones."""
    unit = 10.0 ** (int(f'{printed:.3e}'.split('e')[1]) - 3)
    return abs(round(rate / unit) - round(printed / unit))


@pytest.mark.slow
@pytest.mark.parametrize('config', RECIPES, ids=lambda p: p.stem)
def test_learning_rate_is_the_published_one_at_every_recorded_iteration(config: Path):
    """The log counts from 1 and prints the rate with which that iteration was done."""
    cfg = load_config(config)
    run = load_run(cfg.custom_hooks[0].run)
    rates = learning_rates(cfg)
    # The paper's Semantic FPN takes twice the iterations at half the batch, so iteration 2(i - 1) has i's rate.
    stretch = 2 if 'semantic_fpn' in config.stem and not config.stem.endswith('_released') else 1
    assert len(rates) == stretch * run.max_iters
    assert len(run.train) >= run.max_iters // 500 - run.length
    for record in run.train:
        rate = rates[stretch * (record['iter'] - 1)]
        assert units_apart(rate, record['lr']) <= 1, record['iter']
        # What the hook compares while the recipe trains does not warn.
        assert rates[same_schedule_iteration(record['iter'], stretch) - 1] == rate
        assert rate_is_published(rate, record['lr'])


def test_every_published_dense_run_has_a_config():
    runs = {load_config(path).custom_hooks[0].run for path in RECIPES}
    assert runs == {name for name in list_runs() if not name.startswith('nextvit_')} and len(runs) == 18


FPN, UPERNET = (
    str(ROOT / 'configs' / 'segmentation' / f'{name}.py')
    for name in ('semantic_fpn_nextvit_s_80k_released', 'upernet_nextvit_s_160k')
)


@pytest.mark.slow
@pytest.mark.parametrize(
    'config, part, change',
    [
        (DETECTOR, 'optimizer', dict(lr=1.002e-4)),
        (DETECTOR, 'LinearLR', dict(end=500)),
        (DETECTOR, 'LinearLR', dict(end=502)),
        (DETECTOR, 'MultiStepLR', dict(milestones=[8, 12])),
        (DETECTOR, 'MultiStepLR', dict(gamma=0.2)),
        (FPN, 'PolyLR', dict(power=0.91)),
        (FPN, 'PolyLR', dict(end=40000)),
        (FPN, 'PolyLR', dict(eta_min=2e-6)),
        (UPERNET, 'LinearLR', dict(end=1500)),
        (UPERNET, 'PolyLR', dict(end=160000)),
    ],
    ids=str,
)
def test_the_comparison_notices_a_changed_digit(config, part, change):
    cfg = load_config(config)
    parts = dict(optimizer=cfg.optim_wrapper.optimizer, **{s.type: s for s in cfg.param_scheduler})
    parts[part].update(change)
    rates = learning_rates(cfg)
    assert any(units_apart(rates[r['iter'] - 1], r['lr']) > 1 for r in load_run(cfg.custom_hooks[0].run).train)
