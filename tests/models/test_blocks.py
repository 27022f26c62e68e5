"""The blocks of a stage by name: r = 0 and r = 1, other networks' blocks, and a user's own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nextvit_mm import NextViT
from nextvit_mm.deploy.fold import fold
from nextvit_mm.models.arch import StageArch, split_ntb_channels
from nextvit_mm.models.blocks import BLOCKS, NTB, BlockOptions
from tests.conftest import GROUPED, randomise, relative_error

OPTIONS = BlockOptions(dict(type='BN'), dict(type='ReLU'))
PEERS = ('Bottleneck', 'ConvNeXt', 'LSA', 'PoolFormer', 'LocalMHRA')


def tiny_arch(**changes) -> dict:
    """A network with changes to every stage."""
    arch = copy.deepcopy(GROUPED)
    for stage in arch['stages']:
        stage.update(changes)
    return arch


def ntb(mix_ratio: float, in_channels: int = 32) -> NTB:
    torch.manual_seed(0)
    stage = StageArch(0, 1, ntb_channels=64, sr_ratio=2, head_dim=16, mix_ratio=mix_ratio)
    return randomise(NTB(in_channels, 64, 2, stage, 0.0, OPTIONS)).eval()


@pytest.mark.parametrize(
    'mix_ratio, widths',
    [(0, (0, 64)), (0.25, (16, 48)), (0.5, (32, 32)), (0.75, (48, 16)), (1, (64, 0)), (1.0, (64, 0))],
)
def test_the_width_is_split_between_the_branches(mix_ratio, widths):
    assert split_ntb_channels(64, mix_ratio, head_dim=16) == widths


def test_without_e_mhsa_only_mhca_runs():
    block = ntb(0.0)
    assert block.e_mhsa is None and block.mhca.projection.out_channels == 64
    assert not any('mhsa' in name or 'norm1' in name for name, _ in block.named_parameters())
    image = torch.rand(2, 32, 9, 7)
    x = block.patch_embed(image)
    x = x + block.mhca(x)
    assert torch.equal(block(image), x + block.mlp(block.norm2(x)))


def test_without_mhca_only_e_mhsa_runs():
    block = ntb(1.0)
    assert block.mhca is None and block.e_mhsa.q.out_features == 64
    assert not any('mhca' in name or name.startswith('projection') for name, _ in block.named_parameters())
    image = torch.rand(2, 32, 9, 7)
    x = block.patch_embed(image)
    x = x + block.e_mhsa(block.norm1(x))
    assert torch.equal(block(image), x + block.mlp(block.norm2(x)))


@pytest.mark.parametrize('mix_ratio', [0.0, 1.0])
def test_every_parameter_of_one_branch_learns(mix_ratio):
    backbone = NextViT(tiny_arch(mix_ratio=mix_ratio))
    sum(map_.square().mean() for map_ in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize(
    'changes', [dict(mix_ratio=0.0), dict(mix_ratio=1.0), *(dict(conv_block=name) for name in PEERS)], ids=str
)
def test_folding_and_odd_sizes(changes):
    if changes.get('conv_block', '') in PEERS[:4]:
        pytest.importorskip('mmpretrain')
    torch.manual_seed(0)
    backbone = randomise(NextViT(tiny_arch(**changes)), weights=False).eval().double()
    image = torch.rand(1, 3, 65, 97, dtype=torch.double)
    with torch.no_grad():
        maps = backbone(image)
        assert [tuple(map_.shape[2:]) for map_ in maps] == [(17, 25), (9, 13), (5, 7), (3, 4)]
        for folded, map_ in zip(fold(backbone)(image), maps):
            assert relative_error(folded, map_) < 1e-10


def test_e_mhsa_alone_still_needs_its_tokens():
    """Without E-MHSA nothing is reduced, and the smallest inputs will do."""
    with pytest.raises(ValueError, match='too small'):
        NextViT(tiny_arch(mix_ratio=1.0))(torch.rand(1, 3, 8, 8))
    assert NextViT(tiny_arch(mix_ratio=0.0)).eval()(torch.rand(1, 3, 8, 8))[-1].shape[2:] == (1, 1)


@pytest.mark.parametrize('name', PEERS)
def test_another_network_s_block_stands_for_the_ncb(name):
    if name != 'LocalMHRA':
        pytest.importorskip('mmpretrain')
    backbone = NextViT(tiny_arch(conv_block=name))
    kinds = [type(block).__name__ for stage in backbone.stages for block in stage.blocks]
    assert kinds == [name, name, 'NTB', name, 'NTB', name, 'NTB', name, 'NTB']
    # What the published recipes exempt from weight decay, they exempt by these words.
    for module_name, module in backbone.named_modules():
        if isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            assert 'norm' in module_name or 'bn' in module_name
    before = {n: p.detach().clone() for n, p in backbone.named_parameters()}
    optimizer = torch.optim.SGD(backbone.parameters(), lr=1.0)
    sum(map_.square().mean() for map_ in backbone(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert sum(not torch.equal(p, before[n]) for n, p in backbone.named_parameters()) > 0.9 * len(before)


def test_a_user_s_block_by_name():
    @BLOCKS.register_module(name='Shift')
    class Shift(nn.Module):
        def __init__(self, in_channels, out_channels, stride, stage, drop_path_rate, options):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride)

        def forward(self, x):
            return self.conv(x).roll(1, 2)

    try:
        maps = NextViT(tiny_arch(conv_block='Shift')).eval()(torch.rand(1, 3, 64, 64))
    finally:
        BLOCKS.module_dict.pop('Shift')
    assert [map_.shape[1] for map_ in maps] == [32, 64, 128, 128]


def test_a_block_that_is_not_registered_is_named():
    with pytest.raises(ValueError, match="conv_block='NBC' is not a block: take one of Bottleneck, .*NCB"):
        NextViT(tiny_arch(conv_block='NBC'))
    with pytest.raises(ValueError, match=r"\['conv_block'\] must be a block's name"):
        NextViT(tiny_arch(conv_block=3))
