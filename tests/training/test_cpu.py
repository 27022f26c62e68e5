"""A training without a GPU takes what the CPU has, and computes the same."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from nextvit_mm.training import cpu
from nextvit_mm.training.config import use_amp
from tests.conftest import tiny

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU, nothing is changed')
ADAMW = dict(type='AdamW', lr=1e-3, weight_decay=0.05)


def config(**wrapper) -> Config:
    return Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(ADAMW), **wrapper)))


@pytest.mark.parametrize('units, kind', [(True, 'CPUAmpOptimWrapper'), (False, 'OptimWrapper')])
def test_mixed_precision_is_bfloat16_only_where_the_cpu_has_units(units, kind, monkeypatch):
    monkeypatch.setattr(cpu, 'has_bfloat16_units', lambda: units)
    cfg = config()
    use_amp(cfg)
    cpu.use_the_cpu_well(cfg)
    assert cfg.optim_wrapper.type == kind and 'loss_scale' not in cfg.optim_wrapper
    wrapper = build_optim_wrapper(nn.Linear(2, 2), copy.deepcopy(cfg.optim_wrapper))
    with wrapper.optim_context(nn.Linear(2, 2)):
        assert torch.is_autocast_enabled('cpu') == units
        assert nn.Linear(2, 2)(torch.rand(1, 2)).dtype == (torch.bfloat16 if units else torch.float32)
    assert not torch.is_autocast_enabled('cpu')


def test_a_config_without_mixed_precision_keeps_its_wrapper(monkeypatch):
    monkeypatch.setattr(cpu, 'has_bfloat16_units', lambda: True)
    cfg = config(clip_grad=dict(max_norm=1))
    cpu.use_the_cpu_well(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper' and cfg.optim_wrapper.clip_grad == dict(max_norm=1)


@pytest.mark.parametrize('own', [dict(fused=False), dict(foreach=True)])
def test_what_a_config_says_of_its_optimizer_stays(own):
    cfg = config()
    cfg.optim_wrapper.optimizer.update(own)
    cpu.use_the_cpu_well(cfg)
    assert cfg.optim_wrapper.optimizer == dict(ADAMW, **own)


@pytest.mark.skipif(not cpu.fuses_on_cpu(), reason='torch before 2.4 has no fused optimizers for CPUs')
def test_the_fused_optimizer_makes_the_same_steps():
    cfg = config(paramwise_cfg=dict(norm_decay_mult=0.0))
    cpu.use_the_cpu_well(cfg)
    assert cfg.optim_wrapper.optimizer.fused is True
    models = [tiny() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    plain = config(paramwise_cfg=dict(norm_decay_mult=0.0))
    wrappers = [build_optim_wrapper(m, copy.deepcopy(c.optim_wrapper)) for m, c in zip(models, (plain, cfg))]
    assert [w.optimizer.defaults['fused'] for w in wrappers] == [None, True]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for one, other in zip(models[0].parameters(), models[1].parameters()):
            one.grad = other.grad = torch.randn(one.shape, generator=generator)
        for wrapper in wrappers:
            wrapper.step()
    for one, other in zip(models[0].parameters(), models[1].parameters()):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
