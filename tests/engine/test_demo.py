import matplotlib.image
import pytest

from nextvit_mm.datasets import DigitsConfig
from nextvit_mm.engine.demo import run_demo
from nextvit_mm.errors import UserError

from ..conftest import DEMO

QUICK = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'train_dataloader.num_workers': 0,
         'train_dataloader.persistent_workers': False, 'val_dataloader.num_workers': 0,
         'val_dataloader.persistent_workers': False, 'default_hooks.logger.interval': 1}


def test_the_demo_makes_trains_evaluates_and_draws(tmp_path, capsys):
    digits = DigitsConfig(train=4, val=2, size=64)
    metrics = run_demo(DEMO, str(tmp_path / 'digits'), str(tmp_path / 'demo'), QUICK, digits)
    assert {'coco/bbox_mAP', 'coco/segm_mAP_50'} <= metrics.keys()
    assert 'validation after 2 iterations' in capsys.readouterr().out
    for picture in ('predictions.png', 'losses.png'):
        assert matplotlib.image.imread(tmp_path / 'demo' / picture).std() > 0.02
    with pytest.raises(UserError, match='other settings'):
        run_demo(DEMO, str(tmp_path / 'digits'), str(tmp_path / 'demo'), QUICK, DigitsConfig(train=5))
