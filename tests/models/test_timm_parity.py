"""The released model, as timm implements it, and ours are the same function."""

import pytest
import timm
import torch
from torch import nn

from nextvit_mm import NextViT
from nextvit_mm.weights.keys import to_ours

from ..conftest import empty, on_meta, randomise, relative_error

SIZES = ('small', 'base', 'large')
DEPTHS = dict(small=(3, 4, 10, 3), base=(3, 4, 20, 3), large=(3, 4, 30, 3))


def pair(size, dtype=torch.float32, **kwargs):
    """timm's classifier with random weights, and our backbone with the same."""
    theirs = randomise(empty(timm.create_model, f'nextvit_{size}', drop_path_rate=0.0)).to(dtype)
    ours = empty(NextViT, size, out_norm='last', **kwargs).to(dtype)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith('head.')}
    ours.load_state_dict(to_ours(state, DEPTHS[size]))
    return theirs, ours


@pytest.fixture(scope='module', params=SIZES)
def both(request):
    """A size and its pair; in float32 so deep a network with random weights is 1e-5 from itself."""
    return request.param, *pair(request.param, torch.float64)


@pytest.mark.parametrize('size, published', [('small', 31.7), ('base', 44.8), ('large', 57.8)])
def test_parameters_of_the_classifier_are_the_published_ones(size, published):
    backbone = on_meta(NextViT, size, out_norm='last')
    head = nn.Linear(backbone.out_channels[-1], 1000)
    millions = sum(p.numel() for m in (backbone, head) for p in m.parameters()) / 1e6
    assert int(millions * 10) / 10 == published  # Table 4 truncates


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 3, 64, 64), (1, 3, 37, 83)])
def test_feature_maps_and_logits(both, shape):
    _, theirs, ours = both
    theirs.eval(), ours.eval()
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.forward_intermediates(x, norm=True, intermediates_only=True)
        actual = ours(x)
        logits = theirs.head.fc(actual[-1].mean((2, 3)))
        assert relative_error(logits, theirs(x)) < 1e-10
    assert len(actual) == 4
    for a, e in zip(actual, expected):
        assert a.shape == e.shape
        assert relative_error(a, e) < 1e-10


@pytest.mark.slow
def test_training_mode_and_every_gradient(both):
    size, theirs, ours = both
    theirs.train(), ours.train()
    x = torch.randn(2, 3, 48, 40, dtype=torch.float64)
    expected = theirs.forward_intermediates(x, norm=True, intermediates_only=True)
    actual = ours(x)
    sum((e * e.detach().cos()).sum() for e in expected).backward()
    sum((a * a.detach().cos()).sum() for a in actual).backward()
    named = {k: p for k, p in theirs.named_parameters() if not k.startswith('head.')}
    named = to_ours(named, DEPTHS[size])
    assert named.keys() == dict(ours.named_parameters()).keys()
    # A convolution's or a key's bias before a norm or a softmax has a gradient of zero but for rounding.
    floor = 1e-10 * max(p.grad.norm().item() for p in named.values())
    for name, parameter in ours.named_parameters():
        error = (parameter.grad - named[name].grad).norm().item()
        assert error <= 1e-8 * named[name].grad.norm().item() + floor, name
    for name, buffer in to_ours(dict(theirs.named_buffers()), DEPTHS[size]).items():
        assert torch.allclose(dict(ours.named_buffers())[name].double(), buffer.double(), rtol=1e-8), name
