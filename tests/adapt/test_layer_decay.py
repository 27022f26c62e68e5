"""Layer-wise decay for a backbone inside another model."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from nextvit_mm import NextViT
from nextvit_mm.adapt.layer_decay import LAYER_DECAY
from nextvit_mm.adapt.optimizer import use_our_layer_decay
from nextvit_mm.errors import UserError

from ..conftest import DETECTOR, GROUPED, load_config


class _Detector(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Conv2d(128, 8, 1)


def _wrap(model: nn.Module, **groups):
    config = dict(
        optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.5),
        constructor='NextViTLayerDecayConstructor',
        paramwise_cfg=groups,
    )
    return build_optim_wrapper(model, config)


def test_the_rate_falls_with_the_depth():
    model = _Detector(NextViT(GROUPED, frozen_stages=1))
    wrapper = _wrap(model, decay_rate=0.5)
    groups = {group['param_name']: group for group in wrapper.optimizer.param_groups}
    assert not any(name.startswith('backbone.stem') for name in groups)  # frozen
    last = sum(len(stage.blocks) for stage in model.backbone.stages) + 1
    assert groups['neck.weight']['lr'] == pytest.approx(0.1)
    deepest = next(group for name, group in groups.items() if name.startswith('backbone.stages.3.blocks.1.'))
    first = next(group for name, group in groups.items() if name.startswith('backbone.stages.1.blocks.0.'))
    assert deepest['lr'] == pytest.approx(0.05)
    assert first['lr'] == pytest.approx(0.1 * 0.5 ** (last - 2))
    assert groups['neck.weight']['weight_decay'] == 0.5 and groups['neck.bias']['weight_decay'] == 0
    assert len(groups) == sum(parameter.requires_grad for parameter in model.parameters())


def test_a_rate_for_groups_of_layers_leaves_the_first_depth_what_it_leaves_theirs():
    """MMDetection's rule for ConvNeXt: decay_rate ** (num_layers + 2 - 1 - layer), of layer 0."""
    wrapper = _wrap(_Detector(NextViT(GROUPED)), decay_rate=0.7, num_layers=6, decay_type='stage_wise')
    rates = {group['param_name']: group['lr'] for group in wrapper.optimizer.param_groups}
    assert rates['backbone.stem.0.conv.weight'] == pytest.approx(0.1 * 0.7**7)
    assert min(rates.values()) == rates['backbone.stem.0.conv.weight'] and rates['neck.weight'] == pytest.approx(0.1)


@pytest.mark.parametrize(
    'groups, words',
    [
        ({}, 'must lie in'),
        (dict(decay_rate=0.5, depth=3), 'unknown keys: depth. To leave out those .*_delete_=True'),
        (dict(decay_rate=0.5, num_layers=0), 'num_layers must be a number above 0, not 0'),
    ],
)
def test_wrong_groups_are_refused(groups, words):
    with pytest.raises(UserError, match=words):
        _wrap(_Detector(NextViT(GROUPED)), **groups)


def test_a_backbone_without_depths_is_refused():
    with pytest.raises(UserError, match='get_layer_depth'):
        _wrap(_Detector(nn.Conv2d(3, 8, 1)), decay_rate=0.5)


@pytest.mark.parametrize(
    'scope, backbone, theirs, ours',
    [
        ('mmdet', 'NextViT', 'LearningRateDecayOptimizerConstructor', True),
        ('mmseg', NextViT, 'mmpretrain.LearningRateDecayOptimWrapperConstructor', True),
        ('mmpretrain', 'NextViT', 'LearningRateDecayOptimWrapperConstructor', False),  # it asks the backbone
        ('mmdet', 'mmpretrain.ConvNeXt', 'LearningRateDecayOptimizerConstructor', False),
        ('mmdet', 'NextViT', 'DefaultOptimWrapperConstructor', False),
    ],
)
def test_constructors_that_know_other_networks_by_name_are_replaced(scope, backbone, theirs, ours):
    cfg = load_config(DETECTOR)
    cfg.default_scope, cfg.model.backbone.type, cfg.optim_wrapper.constructor = scope, backbone, theirs
    use_our_layer_decay(cfg)
    assert cfg.optim_wrapper.constructor == (LAYER_DECAY if ours else theirs)
