"""ClassWeightedCrossEntropy against torch's own weighted mean, and in a head of MMSegmentation."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from nextvit_mm import ClassWeightedCrossEntropy

WEIGHTS = [1, 2, 5]


@pytest.fixture
def batch():
    logits, labels = torch.randn(2, 3, 6, 7, requires_grad=True), torch.randint(0, 3, (2, 6, 7))
    labels[0, :2] = 255
    return logits, labels


def test_it_is_torchs_weighted_mean_over_what_is_not_ignored(batch):
    logits, labels = batch
    loss = ClassWeightedCrossEntropy(WEIGHTS, loss_weight=0.4)(logits, labels, ignore_index=255)
    expected = 0.4 * F.cross_entropy(logits, labels, torch.tensor(WEIGHTS, dtype=torch.float32), ignore_index=255)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_pixels_have_weights_too(batch):
    logits, labels = batch
    half = torch.zeros(2, 6, 7)
    half[:, :, :3] = 1
    loss = ClassWeightedCrossEntropy(WEIGHTS)
    torch.testing.assert_close(loss(logits, labels, half), loss(logits[..., :3], labels[..., :3]))


def test_a_batch_without_a_class_teaches_nothing(batch):
    logits, labels = batch
    loss = ClassWeightedCrossEntropy(WEIGHTS)(logits, torch.full_like(labels, 255))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_half_precision_does_not_overflow():
    logits, labels = torch.zeros(1, 3, 300, 300, dtype=torch.float16), torch.full((1, 300, 300), 2)
    assert ClassWeightedCrossEntropy(WEIGHTS)(logits, labels) == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-3)


def test_weights_are_no_part_of_a_checkpoint():
    assert not ClassWeightedCrossEntropy(WEIGHTS).state_dict()


def test_heads_of_mmsegmentation_take_it():
    pytest.importorskip('mmseg.models')
    loss = dict(type='ClassWeightedCrossEntropy', class_weight=WEIGHTS)
    head = dict(type='mmseg.FCNHead', in_channels=8, channels=8, num_convs=1, num_classes=3, loss_decode=loss)
    with MODELS.switch_scope_and_registry('mmseg') as registry:
        built = registry.build(head)
    assert isinstance(built.loss_decode, ClassWeightedCrossEntropy) and built.loss_decode.loss_name == 'loss_ce'
