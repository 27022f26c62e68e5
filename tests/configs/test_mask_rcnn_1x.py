"""configs/detection/mask_rcnn_nextvit_s_1x.py is the published recipe."""
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope

from nextvit_mm.engine.config import train_from_scratch

from ..conftest import DETECTOR, shared


@pytest.fixture(scope='module')
def cfg():
    return Config.fromfile(DETECTOR)


@pytest.fixture(scope='module')
def detector(cfg):
    init_default_scope('mmdet')
    return MODELS.build(cfg.model)


def test_backbone(cfg, detector):
    backbone = detector.backbone
    assert type(backbone).__name__ == 'NextViT' and backbone.out_channels == (96, 256, 512, 1024)
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert (backbone.frozen_stages, backbone.norm_eval) == (1, True)
    assert not any(k.startswith('norm') for k in backbone.state_dict())  # detectors have no output norm
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint='nextvit-small_in1k')


def test_parameters_are_the_published_51_8_million(detector):
    """The published column counts what is trainable, and the authors' unused classifier of 1.03 M."""
    assert sum(p.numel() for p in detector.parameters()) == pytest.approx(51.12e6, abs=0.005e6)
    trainable = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    classifier = 2 * 1024 + 1025 * 1000
    assert (trainable + classifier) / 1e6 == pytest.approx(51.8, abs=0.05)


def test_optimizer(cfg, detector):
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 512.0
    wrapper = build_optim_wrapper(detector, dict(type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer,
                                                 paramwise_cfg=cfg.optim_wrapper.paramwise_cfg))
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    decays = {id(p): g['weight_decay'] for g in wrapper.optimizer.param_groups for p in g['params']}
    assert {g['lr'] for g in wrapper.optimizer.param_groups} == {1e-4}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert decays[id(parameter)] == (0.0 if 'norm' in name or 'bn' in name else 0.05), name


def test_batch_and_epochs(cfg):
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg.max_epochs == 12
    resize = next(t for t in cfg.train_pipeline if t.type == 'Resize')
    assert resize.scale == (1333, 800) and resize.keep_ratio


def test_learning_rate_is_the_published_one_at_every_recorded_iteration(cfg):
    """As the authors' log printed it, four significant digits, from iteration 500 to the last of epoch 12."""
    run = json.loads(shared('reference', 'official_runs', 'mask_rcnn_1x_nextvit_small.json').read_text())
    published = {record['iter']: record['lr'] for record in run['train']}
    rates = _rates(cfg, epochs=12, per_epoch=7330)  # 117,266 pictures with a box, 16 at a time
    # The log counts from 1 and prints the rate with which that iteration was done.
    for iteration, lr in published.items():
        assert float(f'{rates[iteration - 1]:.3e}') == pytest.approx(lr, rel=1e-3), iteration


def _rates(cfg, epochs, per_epoch):
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    rates = []
    for _ in range(epochs):
        for _ in range(per_epoch):
            rates.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return rates


def test_no_pretrained_trains_everything(cfg):
    scratch = Config(cfg.to_dict(), filename=cfg.filename)
    train_from_scratch(scratch)
    init_default_scope('mmdet')
    model = MODELS.build(scratch.model).train()
    assert all(p.requires_grad for p in model.backbone.parameters())
    assert model.backbone.stem[0].norm.training
