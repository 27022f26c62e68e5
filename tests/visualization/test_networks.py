"""Networks by name, and pictures as they take them."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from nextvit_mm.errors import UserError
from nextvit_mm.visualization import networks
from nextvit_mm.visualization.cam import explained_kind
from tests.deploy.conftest import make_case

PICTURES = [np.random.default_rng(i).integers(0, 256, (96, 128, 3), dtype=np.uint8) for i in range(3)]


@pytest.fixture(scope='module')
def case(tmp_path_factory, digits):
    return make_case('semantic_fpn', tmp_path_factory.mktemp('case'), digits)


def test_what_is_shown_is_what_goes_in(case):
    network = networks.load_network(case.cfg, case.checkpoint, size=[64])
    shown, given = network.shown(PICTURES[0]), network.prepare(PICTURES[0])
    assert shown.shape == (48, 64, 3) and tuple(given.shape) == (1, 3, 48, 64), 'to fit, the ratio kept'
    pre = network.model.data_preprocessor
    expected = (torch.from_numpy(shown).permute(2, 0, 1).float() - pre.mean.view(3, 1, 1)) / pre.std.view(3, 1, 1)
    assert torch.allclose(given[0], expected, atol=1e-5)
    exact = networks.load_network(case.cfg, case.checkpoint, size=[64, 80], exact=True)
    assert exact.prepare(PICTURES[0]).shape[2:] == (64, 80)
    assert network.title == 'semantic_fpn_nextvit_s_digits, weights of semantic_fpn.pth'
    assert explained_kind(network.model) == 'segmentor' and len(network.classes) == 11


def test_the_title_names_the_weights_that_the_config_names(case):
    cfg = copy.deepcopy(case.cfg)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(case.checkpoint), prefix='backbone.')
    assert networks.load_network(cfg, task='backbone').weights == 'weights of semantic_fpn.pth'
    assert networks._weights_of('nextvit-small_in1k') == 'published weights nextvit-small_in1k'


def test_random_weights_are_settled_on_the_pictures_and_others_are_not(case):
    network = networks.load_network(case.cfg, random_weights=True, task='backbone')
    assert network.title.endswith(', random weights')
    norm = next(module for module in network.backbone.modules() if isinstance(module, _BatchNorm))
    before = copy.deepcopy(network.backbone.state_dict())
    networks.settle_statistics(network, PICTURES)
    with torch.no_grad():
        inputs = torch.cat([network.prepare(picture) for picture in PICTURES])
        first = network.backbone.stem[0].conv(inputs)
    assert torch.allclose(norm.running_mean, first.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, first.var((0, 2, 3)), rtol=1e-3)
    assert norm.momentum == 0.1 and not any(module.training for module in network.backbone.modules())
    after = network.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if 'running' not in name and 'num' not in name)
    again = networks.load_network(case.cfg, random_weights=True, task='backbone')
    assert all(torch.equal(before[name], value) for name, value in again.backbone.state_dict().items()), 'seeded'
    trained = networks.load_network(case.cfg, case.checkpoint)
    kept = copy.deepcopy(trained.backbone.state_dict())
    networks.settle_statistics(trained, PICTURES)
    assert all(torch.equal(kept[name], value) for name, value in trained.backbone.state_dict().items())


def test_a_network_beside_sees_the_same_picture_in_its_own_normalisation(case):
    pytest.importorskip('timm')
    own = networks.load_network(case.cfg, case.checkpoint, size=[64, 64], exact=True)
    vit = networks.load_beside('timm:vit_tiny_patch16_224', case.cfg, own, (64, 64))  # mean and deviation 0.5
    assert vit.title == 'timm vit_tiny_patch16_224, random weights'
    seen = torch.from_numpy(own.shown(PICTURES[1])).permute(2, 0, 1).float()
    assert torch.allclose(vit.prepare(PICTURES[1])[0], (seen - 127.5) / 127.5, atol=1e-5)
    with torch.no_grad():
        vit.backbone(vit.prepare(PICTURES[1]))  # built for this size


def test_a_tag_that_timm_does_not_have_is_named(case):
    pytest.importorskip('timm')
    own = networks.load_network(case.cfg, case.checkpoint)
    with pytest.raises(UserError, match='resnet18.nonsense'):
        networks.load_beside('timm:resnet18.nonsense', case.cfg, own, (64, 64))


def test_checkpoints_beside(case, tmp_path):
    own = networks.load_network(case.cfg, case.checkpoint)
    other = networks.load_beside(f'{case.config}:{case.checkpoint}', case.cfg, own, (64, 64))
    assert other.weights == 'weights of semantic_fpn.pth' and other.name == 'semantic_fpn'
    with torch.no_grad():
        maps = [network.backbone(network.prepare(PICTURES[0])) for network in (own, other)]
    assert all(torch.equal(a, b) for a, b in zip(*maps))


def test_libraries_that_are_not_there(case):
    own = networks.load_network(case.cfg, case.checkpoint)
    with pytest.raises(UserError, match='pip install mmnothing'):
        networks.load_beside('mmnothing::a/b.py', case.cfg, own, (64, 64))
    with pytest.raises(UserError, match='mmdet::no/such.py cannot be read as a config'):
        networks.load_beside('mmdet::no/such.py', case.cfg, own, (64, 64))


def test_a_config_without_backbone(tmp_path):
    (tmp_path / 'c.py').write_text("model = dict(type='X')\n")
    with pytest.raises(UserError, match='has no model with a backbone'):
        networks.read_config(str(tmp_path / 'c.py'))


def test_pictures_stay_as_they_are_where_the_pipeline_leaves_them(tmp_path_factory, digits):
    """As in the classifier of the demo."""
    case = make_case('classification', tmp_path_factory.mktemp('classifier'), digits)
    cfg = copy.deepcopy(case.cfg)
    assert networks.load_network(cfg, case.checkpoint).prepare(PICTURES[0]).shape[2:] == (64, 64), 'CenterCrop'
    cfg.test_dataloader.dataset.update(pipeline=[dict(type='PackInputs')], metainfo=dict(classes=tuple('abcdefghij')))
    network = networks.load_network(cfg, case.checkpoint)
    assert network.prepare(PICTURES[0]).shape[2:] == (96, 128) and network.classes == list('abcdefghij')
