"""Folding: the same results with fewer norms, to the last digits that the arithmetic allows."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from nextvit_mm import NextViT
from nextvit_mm.deploy.fold import FoldedEMHSA, fold, remaining_norms
from nextvit_mm.errors import UserError
from nextvit_mm.weights.keys import is_folded
from tests.conftest import GROUPED, TINY, randomise, relative_error, tiny
from tests.deploy.conftest import KINDS, build, tiny_config

SIZES = [(64, 64), (65, 97), (50, 83)]
PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


def assert_same(model, size, dtype, limit):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    model = model.eval().to(dtype)
    with torch.no_grad():
        for ours, theirs in zip(fold(model)(image), model(image)):
            assert ours.shape == theirs.shape and relative_error(ours, theirs) < limit


@pytest.mark.slow
@pytest.mark.parametrize('dtype, limit', PRECISIONS)
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('out_norm', ['none', 'last', 'all'])
@pytest.mark.parametrize('sr_mode', ['tokens', 'windows'])
def test_folding_changes_no_result(sr_mode, out_norm, size, dtype, limit):
    assert_same(tiny(out_norm=out_norm, sr_mode=sr_mode), size, dtype, limit)


# The norms of the maps come after the last block of a stage, however many blocks it has: S has them in all three ways.
@pytest.mark.slow
@pytest.mark.parametrize(
    'arch, out_norm',
    [('small', 'none'), ('small', 'last'), ('small', 'all'), ('base', 'last'), ('large', 'none'), ('large', 'all')],
)
def test_every_published_size_at_odd_sizes(arch, out_norm):
    torch.manual_seed(0)
    # With torch's own weights: with larger ones so deep a network's attention saturates, and float32 itself is further
    # than 1e-5 from float64.
    model = randomise(NextViT(arch, out_norm=out_norm), weights=False)
    for dtype, limit in PRECISIONS:
        assert_same(model, (65, 47), dtype, limit)


@pytest.mark.parametrize(
    'kwargs, left',
    [
        (dict(), []),
        (dict(out_norm='last'), ['norm3']),
        (dict(out_norm='all'), ['norm0', 'norm1', 'norm2', 'norm3']),
        (dict(out_norm='all', out_indices=(1, 3)), ['norm1', 'norm3']),
    ],
)
def test_only_norms_that_leave_the_network_stay(kwargs, left):
    model = tiny(**kwargs).eval()
    folded = fold(model)
    assert remaining_norms(folded) == left
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(folded(image), model(image)):
            assert relative_error(ours, theirs) < 1e-5


def test_the_original_is_untouched():
    model = tiny(out_norm='all').train()
    before = copy.deepcopy(model.state_dict())
    folded = fold(model)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not folded.training and not any(p.requires_grad for p in folded.parameters())
    assert not {p.data_ptr() for p in folded.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_keys_and_values_are_one_product_without_bias():
    attention = [module for module in fold(tiny(GROUPED)).modules() if isinstance(module, FoldedEMHSA)]
    assert len(attention) == 4 and all(module.kv.bias is None for module in attention)


def test_folding_twice_or_nothing_is_an_error():
    with pytest.raises(UserError, match='folded already'):
        fold(fold(tiny()))
    with pytest.raises(UserError, match='Conv2d has no Next-ViT'):
        fold(torch.nn.Conv2d(3, 3, 1))


def test_folded_weights_are_recognised():
    assert is_folded(fold(tiny()).state_dict()) and not is_folded(tiny().state_dict())


def test_norms_without_running_statistics_stay():
    model = randomise(NextViT(TINY, norm_cfg=dict(type='GN', num_groups=1))).eval()
    folded = fold(model)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(folded(image), model(image)):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize('kind', KINDS)
def test_whole_models(kind):
    model = build(tiny_config(kind)).double()
    folded = fold(model)
    left = [name for name in remaining_norms(folded) if not name.startswith('backbone.norm')]
    assert left == [] and any(isinstance(module, _BatchNorm) for module in model.modules())
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = folded.extract_feat(image), model.extract_feat(image)
        if kind == 'classification':
            # The norm before the global average is in the head now, so that only the head's output can be compared.
            assert remaining_norms(folded) == []
            ours, theirs = [folded.head(ours)], [model.head(theirs)]
        elif kind != 'detection':
            ours, theirs = [folded.decode_head(ours)], [model.decode_head(theirs)]
        for a, b in zip(ours, theirs):
            assert relative_error(a, b) < 1e-10


def test_a_classifier_with_another_head_keeps_its_norm():
    cfg = tiny_config('classification')
    cfg.model.head = dict(type='StackedLinearClsHead', num_classes=10, in_channels=128, mid_channels=[16])
    model = build(cfg)
    folded = fold(model)
    assert 'backbone.norm3' in remaining_norms(folded)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert relative_error(folded.head(folded.extract_feat(image)), model.head(model.extract_feat(image))) < 1e-5


def test_folded_models_are_refused_for_training(tmp_path):
    torch.save(fold(tiny()).state_dict(), tmp_path / 'folded.pth')
    model = MODELS.build(
        dict(type='NextViT', arch=TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'folded.pth')))
    )
    with pytest.raises(UserError, match='folded'):
        model.init_weights()


def test_convolutions_that_are_no_pair_with_a_norm_are_left_alone():
    from mmcv.cnn import ConvModule

    class Head(torch.nn.Module):
        """A convolution shared by two norms, a norm before its convolution, and a BN registered after a stranger."""

        def __init__(self):
            super().__init__()
            self.first = ConvModule(128, 8, 1, norm_cfg=dict(type='BN'))
            self.second = ConvModule(128, 8, 1, norm_cfg=dict(type='BN'))
            self.second.conv = self.first.conv
            self.before = ConvModule(8, 8, 1, norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act'))
            self.stranger = torch.nn.Conv2d(8, 8, 1)
            self.norm = torch.nn.BatchNorm2d(8)
            self.pair = ConvModule(8, 8, 3, padding=1, norm_cfg=dict(type='BN'))

        def forward(self, x):
            return self.pair(self.norm(self.before(self.first(x) + self.second(x))) + self.stranger(self.first(x)))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.neck = tiny(), Head()

        def forward(self, x):
            return self.neck(self.backbone(x)[-1])

    torch.manual_seed(0)
    model = randomise(Model()).double().eval()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    folded = fold(model)
    with torch.no_grad():
        assert relative_error(folded(image), model(image)) < 1e-10
    assert remaining_norms(folded) == ['neck.first.bn', 'neck.second.bn', 'neck.before.bn', 'neck.norm']
