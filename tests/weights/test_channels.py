"""Pictures of other than three channels with weights for three."""

import pytest
import timm.models
import torch
from mmengine.model import BaseModule
from torch import nn

from nextvit_mm import NextViT
from nextvit_mm.errors import WeightsError
from nextvit_mm.weights.channels import FIRST, adapt_input
from nextvit_mm.weights.models import load_exactly, load_to_start_from

from ..conftest import TINY, tiny


@pytest.mark.parametrize('channels', [1, 2, 4, 5, 6, 7])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_the_first_convolution_is_adapted_as_timm_does(channels, dtype):
    weight = torch.rand(8, 3, 3, 3).to(dtype)
    ours = adapt_input(weight, channels)
    assert ours.dtype == dtype and torch.equal(ours, timm.models.adapt_input_conv(channels, weight))


@pytest.fixture
def three(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / 'three.pth')
    return str(tmp_path / 'three.pth')


@pytest.mark.parametrize('channels', [1, 4])
def test_weights_for_three_channels_start_another_number(three, channels):
    model = NextViT(
        TINY, in_channels=channels, frozen_stages=1, init_cfg=dict(type='Pretrained', checkpoint=three)
    ).train()
    model.init_weights()
    own, given = model.state_dict(), torch.load(three)
    assert torch.equal(own[FIRST], adapt_input(given[FIRST], channels))
    assert all(torch.equal(own[name], given[name]) for name in own if name != FIRST)
    assert all(p.requires_grad for p in model.stem.parameters()) and model.stem[0].norm.training
    assert not any(p.requires_grad for p in model.stages[0].parameters()) and not model.stages[0].training
    model(torch.rand(2, channels, 64, 64))[-1].sum().backward()
    assert model.stem[0].conv.weight.grad.abs().sum() > 0


def test_one_channel_sees_what_three_equal_ones_saw(three):
    init_cfg = dict(type='Pretrained', checkpoint=three)
    one, usual = NextViT(TINY, in_channels=1, init_cfg=init_cfg), NextViT(TINY, init_cfg=init_cfg)
    gray = torch.rand(1, 1, 64, 64)
    for model in (one, usual):
        model.init_weights()
        model.eval()
    assert torch.allclose(one(gray)[0], usual(gray.expand(1, 3, 64, 64))[0], atol=1e-4)


def test_three_channels_stay_frozen():
    assert not any(p.requires_grad for p in NextViT(TINY, frozen_stages=0).stem.parameters())


def test_what_cannot_be_adapted_is_named(tmp_path):
    torch.save(tiny(in_channels=4).state_dict(), tmp_path / 'four.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'four.pth'))
    NextViT(TINY, in_channels=4, init_cfg=init_cfg).init_weights()
    with pytest.raises(WeightsError) as caught:
        NextViT(TINY, init_cfg=init_cfg).init_weights()
    text = str(caught.value)
    assert 'the file is for pictures of 4 channels, and the model has in_channels=3' in text
    assert 'the model is' not in text  # "small into small" said nothing


class Model(BaseModule):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.backbone = tiny(in_channels=channels)
        self.head = nn.Linear(128, 2)


def test_a_whole_model_starts_from_three_channels_and_is_tested_with_its_own(tmp_path):
    torch.save(dict(state_dict=Model(3).state_dict()), tmp_path / 'x.pth')
    told, model, given = [], Model(4), Model(3).state_dict()
    torch.save(dict(state_dict=given), tmp_path / 'x.pth')
    load_to_start_from(model, str(tmp_path / 'x.pth'), notify=lambda checkpoint: told.append(checkpoint['state_dict']))
    name = f'backbone.{FIRST}'
    wanted = adapt_input(given[name], 4)
    # An average of weights that starts from what the hooks are told starts from the same.
    assert torch.equal(model.state_dict()[name], wanted) and torch.equal(told[0][name], wanted)
    assert torch.equal(model.head.weight, given['head.weight'])
    with pytest.raises(WeightsError, match='does not fit the model of the config'):
        load_exactly(model, str(tmp_path / 'x.pth'), 'the config')
