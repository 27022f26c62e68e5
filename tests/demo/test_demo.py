"""The demo from nothing to its pictures, with a small network in the place of Next-ViT-S."""

import matplotlib.image
import pytest
import torch

from nextvit_mm.demo import DigitClassesConfig, DigitsConfig
from nextvit_mm.demo.demo import run_demo
from nextvit_mm.errors import UserError

from ..conftest import DEMO, ROOT, tiny, write_small

QUICK = {
    'train_cfg.max_epochs': 1,
    'train_cfg.val_interval': 1,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'default_hooks.logger.interval': 1,
}


@pytest.mark.slow
def test_the_demo_makes_trains_evaluates_and_draws(tmp_path, capsys):
    digits = DigitsConfig(train=4, val=2, size=64)
    config = write_small(DEMO, tmp_path)
    metrics = run_demo(config, str(tmp_path / 'digits'), str(tmp_path / 'demo'), QUICK, digits)
    assert {'coco/bbox_mAP', 'coco/segm_mAP_50'} <= metrics.keys()
    assert 'validation after 2 iterations' in capsys.readouterr().out
    for picture in ('predictions.png', 'losses.png'):
        assert matplotlib.image.imread(tmp_path / 'demo' / picture).std() > 0.02
    with pytest.raises(UserError, match='other settings'):
        run_demo(config, str(tmp_path / 'digits'), str(tmp_path / 'demo'), QUICK, DigitsConfig(train=5))


@pytest.mark.slow
@pytest.mark.parametrize('head', ['semantic_fpn', 'upernet'])
def test_the_demo_of_a_segmentor_starts_from_a_detector(head, tmp_path, capsys):
    detector = {f'backbone.{k}': v for k, v in tiny().state_dict().items()}
    torch.save(dict(state_dict=detector), tmp_path / 'detector.pth')
    quick = {
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 2,
        'default_hooks.logger.interval': 1,
        'train_dataloader.num_workers': 0,
        'train_dataloader.batch_size': 2,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'model.backbone.init_cfg.checkpoint': str(tmp_path / 'detector.pth'),
    }
    config = write_small(ROOT / 'configs' / 'demo' / f'{head}_nextvit_s_digits.py', tmp_path)
    metrics = run_demo(config, str(tmp_path / 'digits'), str(tmp_path / 'demo'), quick, DigitsConfig(train=4, val=2))
    assert 0 <= metrics['mIoU'] <= 100
    out = capsys.readouterr().out
    assert 'mIoU 0.' in out and 'not in the file: norm0, norm1, norm2, norm3' in out
    for picture in ('predictions.png', 'losses.png'):
        assert matplotlib.image.imread(tmp_path / 'demo' / picture).std() > 0.02


@pytest.mark.slow
def test_the_demo_of_a_classifier_on_unseen_digits(tmp_path, capsys):
    pytest.importorskip('mmpretrain')
    quick = {
        **{key: value for key, value in QUICK.items() if not key.endswith('interval')},
        'train_dataloader.batch_size': 4,
        'default_hooks.logger.interval': 1,
    }
    config = write_small(ROOT / 'configs' / 'demo' / 'nextvit_s_digits.py', tmp_path)
    classes = DigitClassesConfig(train=10, val=11, size=32)
    for made in (True, False):
        metrics = run_demo(
            config,
            str(tmp_path / 'digits'),
            str(tmp_path / f'demo{made}'),
            quick,
            DigitsConfig(train=1, val=1, size=64),
            classes,
        )
        out = capsys.readouterr().out
        assert f'{tmp_path / "digits"}: {"made" if made else "already there"}' in out
    assert 0 <= metrics['accuracy/top1'] <= 100
    assert f'top-1 {metrics["accuracy/top1"] / 100:.3f}' in out and 'after 2 iterations' in out
    for picture in ('predictions.png', 'losses.png'):
        assert matplotlib.image.imread(tmp_path / 'demoTrue' / picture).std() > 0.02
    with pytest.raises(UserError, match='imagenet holds digits made with other settings'):
        run_demo(config, str(tmp_path / 'digits'), str(tmp_path / 'demo'), quick, DigitsConfig(train=1, val=1, size=64))
