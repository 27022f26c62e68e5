"""The rows of Tables 1, 2, 7, 8 and 9: what they are, what they cost, and that they train."""

import copy

import pytest
import torch

from nextvit_mm import NextViT
from nextvit_mm.benchmark.complexity import count_complexity
from nextvit_mm.published import ABLATION_TABLES, load_ablation
from nextvit_mm.reproduction.ablation import first_with_same_network, network, row_file
from nextvit_mm.training.config import load_config
from tests.conftest import ROOT

pytest.importorskip('mmpretrain')

ROWS = sorted(path.stem for path in (ROOT / 'configs' / 'ablation').glob('*.py'))
# Of the classifier at 224×224: parameters (M) and multiply-adds (G).
COSTS = dict(
    table1_cccc=(29.60, 5.84),
    table1_ccct=(36.77, 5.85),
    table1_cctt=(38.83, 5.99),
    table1_cttt=(33.29, 5.98),
    table1_ccch=(31.25, 5.74),
    table1_cchh=(31.95, 5.83),
    table1_chhh=(30.96, 5.67),
    table1_hhhh=(31.00, 5.73),
    table2_n9_l1=(30.96, 5.67),
    table2_n19_l1=(42.42, 7.91),
    table2_n29_l1=(53.88, 10.15),
    table2_n1_l4=(31.07, 5.59),
    table2_n2_l3=(31.42, 5.69),
    table2_n4_l2=(31.76, 5.79),
    table2_n4_l4=(44.82, 8.27),
    table2_n4_l6=(57.87, 10.75),
    table7_bottleneck=(33.05, 5.73),
    table7_convnext=(32.96, 5.77),
    table7_lsa=(31.51, 5.92),
    table7_poolformer=(32.70, 5.67),
    table7_local_mhra=(34.81, 5.78),
    table7_ncb=(31.76, 5.79),
    table8_r000=(31.03, 5.85),
    table8_r025=(29.94, 5.69),
    table8_r050=(30.49, 5.71),
    table8_r075=(31.76, 5.79),
    table8_r100=(35.29, 6.13),
    table9_ln_gelu=(31.76, 5.79),
    table9_ln_relu=(31.76, 5.79),
    table9_bn_gelu=(31.76, 5.79),
    table9_bn_relu=(31.76, 5.79),
)
NETWORKS = sorted({first_with_same_network(row) for row in ROWS})


def test_every_row_has_a_config_and_every_config_a_row():
    named = [row['config'] for number in ABLATION_TABLES for row in load_ablation(number) if row['config']]
    assert sorted(named) == ROWS == sorted(COSTS)


@pytest.mark.slow
@pytest.mark.parametrize('row', ROWS)
def test_params_and_flops(row):
    complexity = count_complexity(load_config(str(row_file(row))))
    assert (round(complexity.params / 1e6, 2), round(complexity.flops / 1e9, 2)) == COSTS[row]
    if row.split('_')[0] in ('table1', 'table7', 'table8', 'table9'):  # rows are matched by multiply-adds
        assert complexity.flops == pytest.approx(5.79e9, rel=0.06)


@pytest.mark.parametrize(
    'table, arch', [('table2_n4_l2', 'small'), ('table2_n4_l4', 'base'), ('table2_n4_l6', 'large')]
)
def test_the_published_sizes_are_rows(table, arch):
    with torch.device('meta'):
        ours, published = NextViT(**network(table)), NextViT(arch)
    assert [(name, p.shape) for name, p in ours.named_parameters()] == [
        (name, p.shape) for name, p in published.named_parameters()
    ]


def test_rows_that_several_tables_share_are_one_network():
    same = {'table2_n4_l2', 'table7_ncb', 'table8_r075', 'table9_bn_relu'}
    assert {row for row in ROWS if first_with_same_network(row) == first_with_same_network('table8_r075')} == same
    assert first_with_same_network('table2_n9_l1') == 'table1_chhh'
    assert len(NETWORKS) == len(ROWS) - 3 - 1  # Next-ViT-S is there four times, N = 9 and CHHH are one


@pytest.mark.parametrize(
    'row, pattern',
    [
        ('cccc', 'CCCC'),
        ('ccct', 'CCCT'),
        ('cctt', 'CCTT'),
        ('cttt', 'CTTT'),
        ('ccch', 'CCCH'),
        ('cchh', 'CCHH'),
        ('chhh', 'CHHH'),
        ('hhhh', 'HHHH'),
    ],
)
def test_stage_patterns(row, pattern):
    """C: convolution blocks alone, T: transformer blocks alone, H: N convolution blocks and then one transformer."""
    stages = network(f'table1_{row}')['arch']['stages']
    found = ''.join('C' if not s['num_ntb'] else 'T' if not s['num_ncb'] else 'H' for s in stages)
    assert found == pattern
    assert all(s['num_ntb'] == 1 and s.get('repeats', 1) == 1 for s, kind in zip(stages, pattern) if kind == 'H')


def quarter(kwargs: dict) -> dict:
    """Every block and every head of a network, at a quarter of the widths."""
    arch = copy.deepcopy(dict(kwargs['arch']))
    arch['stem_channels'] = [width // 4 for width in arch['stem_channels']]
    for stage in arch['stages']:
        stage['head_dim'] = stage.get('head_dim', 32) // 4
        for key in ('ncb_channels', 'ntb_channels'):
            if stage.get(key):
                stage[key] //= 4
    return dict(kwargs, arch=arch)


@pytest.mark.slow
@pytest.mark.parametrize('row', NETWORKS)
def test_a_training_step(row):
    torch.manual_seed(0)
    backbone = NextViT(**quarter(network(row)))
    backbone.init_weights()
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in backbone.parameters()]
    loss = sum(map_.square().mean() for map_ in backbone(torch.rand(2, 3, 64, 64)))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss) and all(p.grad is not None for p in backbone.parameters())
    moved = [not torch.equal(p, old) for p, old in zip(backbone.parameters(), before)]
    assert sum(moved) > 0.95 * len(moved)
