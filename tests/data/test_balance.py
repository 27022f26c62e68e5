"""Rare classes weigh more in a segmentor's loss."""

import numpy as np
import pytest

from nextvit_mm.data.balance import LOSS, class_weights
from nextvit_mm.data.own import use_own_data

from ..conftest import load_config
from . import layouts as made
from .test_broken import FPN, UPER


@pytest.mark.parametrize(
    'counts, weights',
    [
        ([900, 100], [1.0, 3.0]),
        ([900, 100, 1], [1.0, 3.0, 5.0]),  # at most
        ([50, 0, 50], [1.0, 5.0, 1.0]),  # a class that is not there cannot be learned either way
        ([0, 0], [1.0]),
    ],
)
def test_the_root_of_how_rare_a_class_is(counts, weights):
    assert class_weights(counts) == weights


def own(tmp_path, config, value=2, **loss):
    """A recipe for maps of four classes, of which most is ``value``."""
    root = made.masks(tmp_path / 'mine', 'images/{split}/{n}.png', 'masks/{split}/{n}.png')
    for path in (root / 'masks/train').glob('*.png'):
        classes = made.class_map(int(path.stem))
        classes[:-4] = value
        made.save_map(path, classes)
    cfg = load_config(config)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.model.decode_head.loss_decode.update(loss)
    use_own_data(cfg, str(root))
    return cfg


def test_every_head_weighs_the_classes_of_the_data(tmp_path):
    cfg = own(tmp_path, UPER)
    losses = [cfg.model[key].loss_decode for key in ('decode_head', 'auxiliary_head')]
    assert [loss.type for loss in losses] == [LOSS, LOSS] and [loss.loss_weight for loss in losses] == [1.0, 0.4]
    assert losses[0].class_weight[2] == 1 and min(losses[0].class_weight[:2]) > 2 and len(losses[0].class_weight) == 4


def test_maps_of_even_classes_and_losses_with_weights_of_their_own_stay(tmp_path):
    assert own(tmp_path / 'even', FPN, value=np.arange(96) % 4).model.decode_head.loss_decode.type == 'CrossEntropyLoss'
    named = own(tmp_path / 'named', FPN, class_weight=None)
    assert named.model.decode_head.loss_decode.type == 'CrossEntropyLoss'
    assert own(tmp_path / 'rare', FPN).model.decode_head.loss_decode.type == LOSS
