"""Averaged weights, accumulated gradients, compiled networks: trained, tested and gone on with, bit for bit."""

import copy

import pytest
import torch
from mmengine.config import Config

from nextvit_mm.errors import WeightsError
from nextvit_mm.training.loading import load_model

from ..conftest import TINY, tiny
from .runs import ITERATIONS, run, same, weights, write_config

AVERAGE = dict(custom_hooks=[dict(type='EMAHook', momentum=0.5)])
WAYS = dict(
    deterministic=dict(randomness=dict(seed=5, deterministic=True)),
    average=AVERAGE,
    accumulation=dict(optim_wrapper=dict(accumulative_counts=2)),
    # Captured, and not made into code, which takes minutes; of one block, since the time grows with them.
    compiled=dict(
        compile=dict(backend='eager'),
        model=dict(
            backbone=dict(arch=dict(stages=[dict(TINY['stages'][1], num_ncb=0)]), out_indices=(0,)),
            head=dict(in_channels=64),
        ),
    ),
)
SHORT = dict(
    ITERATIONS,
    train_cfg=dict(by_epoch=False, max_iters=5, val_interval=100, _delete_=True),
    default_hooks=dict(checkpoint=dict(by_epoch=False, interval=3, max_keep_ckpts=-1)),
)


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_a_resumed_run_ends_as_one_that_was_never_stopped(tmp_path, way, monkeypatch):
    pytest.importorskip('mmpretrain')
    from nextvit_mm.training.launch import evaluate

    torch._dynamo.reset()
    config = write_config(tmp_path, **{**SHORT, **WAYS[way]})
    run(config, tmp_path / 'whole')
    reads, usual = [], torch.load
    monkeypatch.setattr(torch, 'load', lambda *args, **kwargs: reads.append(1) or usual(*args, **kwargs))
    run(config, tmp_path / 'again', resume=str(tmp_path / 'whole' / 'iter_3.pth'))
    assert len(reads) == 1
    monkeypatch.undo()
    last = tmp_path / 'whole' / 'iter_5.pth'
    assert same(last, tmp_path / 'again' / 'iter_5.pth')
    assert 'accuracy/top1' in evaluate(config, str(last), str(tmp_path / 't'))


@pytest.mark.slow
def test_gradients_that_wait_are_kept_and_their_loss_is_said(tmp_path, capfd):
    """Two batches a step: the third iteration ends in between."""
    pytest.importorskip('mmpretrain')
    config = write_config(tmp_path, **{**SHORT, **WAYS['accumulation']})
    run(config, tmp_path / 'w')
    path = tmp_path / 'w' / 'iter_3.pth'
    stored = torch.load(path, weights_only=False)
    assert stored['gradients'].keys() <= stored['state_dict'].keys() and len(stored['gradients']) > 50
    assert 'gradients' not in torch.load(tmp_path / 'w' / 'iter_5.pth', weights_only=False)  # the last is a whole step
    del stored['gradients'], stored['random_states']  # as in a file of plain MMEngine
    torch.save(stored, path)
    capfd.readouterr()
    run(config, tmp_path / 'r', resume=str(path))
    told = ''.join(capfd.readouterr())
    assert 'without the gradients: the next step adds up fewer batches' in told and 'not divisible' not in told
    assert 'does not hold the random numbers: they begin anew' in told
    assert not same(tmp_path / 'w' / 'iter_5.pth', tmp_path / 'r' / 'iter_5.pth')


@pytest.mark.slow
def test_averaged_weights_are_what_is_exported_and_the_others_can_be_had(tmp_path):
    pytest.importorskip('mmpretrain')
    config = write_config(tmp_path, **{**SHORT, **AVERAGE})
    run(config, tmp_path / 'w')
    path = tmp_path / 'w' / 'iter_5.pth'
    stored = torch.load(path, weights_only=False)
    name = 'backbone.stem.0.conv.weight'
    averaged, last = stored['state_dict'][name], stored['ema_state_dict'][f'module.{name}']
    assert not torch.equal(averaged, last)
    cfg = Config.fromfile(config)
    for source, wanted in ((path, averaged), (f'{path}#ema_state_dict', last)):
        assert torch.equal(load_model(cfg, str(source), 'model')[0].state_dict()[name], wanted)
    with pytest.raises(WeightsError, match="nothing to load under 'model_ema'"):
        load_model(cfg, f'{path}#model_ema', 'model')
    # Another run starts from the average, and so does its own.
    one = {'train_cfg.max_iters': 1, 'optim_wrapper.optimizer.lr': 0.0, 'optim_wrapper.optimizer.weight_decay': 0.0}
    run(config, tmp_path / 'from', cfg_options={**one, 'load_from': f'{path}#ema_state_dict'})
    assert torch.equal(weights(tmp_path / 'from' / 'iter_1.pth')[name], last)


@pytest.mark.slow
def test_a_compiled_network_recomputes_its_blocks():
    torch._dynamo.reset()
    plain = tiny(out_indices=(1,)).train()
    recomputing = copy.deepcopy(plain)
    recomputing.with_cp = True
    compiled = torch.compile(recomputing, backend='aot_eager')
    x = torch.rand(2, 3, 64, 64)
    for model in (plain, compiled):
        sum(o.cos().sum() for o in model(x)).backward()
    for (name, a), b in zip(plain.named_parameters(), recomputing.parameters()):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-5), name
    for (name, a), b in zip(plain.named_buffers(), recomputing.buffers()):
        assert torch.allclose(a, b, atol=1e-6), name  # running statistics move once, not twice
