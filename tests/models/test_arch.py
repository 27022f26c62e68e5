import copy

import pytest

from nextvit_mm.models.arch import ARCHS, linear_drop_path_rates, parse_arch, split_ntb_channels


@pytest.mark.parametrize('name, stage3', [('small', 2), ('base', 4), ('large', 6)])
def test_published_variants_are_table_3(name, stage3):
    arch = parse_arch(name)
    assert arch.stem_channels == (64, 32, 64)
    assert [[b.kind for b in s.blocks] for s in arch.stages] == [
        ['NCB'] * 3,
        ['NCB'] * 3 + ['NTB'],
        (['NCB'] * 4 + ['NTB']) * stage3,
        ['NCB'] * 2 + ['NTB'],
    ]
    assert [b.channels for b in arch.stages[2].blocks] == [384, 384, 384, 384, 512] * stage3
    assert [s.out_channels for s in arch.stages] == [96, 256, 512, 1024]
    assert [s.sr_ratio for s in arch.stages] == [8, 4, 2, 1]


def test_drop_path_grows_linearly_over_all_blocks():
    rates = linear_drop_path_rates(parse_arch('small'), 0.19)
    assert [len(r) for r in rates] == [3, 4, 10, 3]
    assert [round(r, 6) for stage in rates for r in stage] == [round(0.01 * i, 6) for i in range(20)]


@pytest.mark.parametrize(
    'channels, ratio, expected',
    [
        (256, 0.75, (192, 64)),
        (512, 0.75, (384, 128)),
        (1024, 0.75, (768, 256)),
        (256, 0.25, (64, 192)),
        (96, 0.5, (64, 32)),  # 48 lies between 1 and 2 heads: rounds up
        (128, 0.28, (32, 96)),  # 35 to the nearest head, less than a tenth away
        (128, 0.285, (64, 64)),  # 36 would lose more than a tenth: up
        (128, 0.1, (32, 96)),  # one head at least
    ],
)
def test_branches_of_an_ntb_are_whole_heads(channels, ratio, expected):
    assert split_ntb_channels(channels, ratio, 32) == expected


def test_whole_heads_are_those_of_the_released_model():
    """timm has its function, and Table 3's widths are too few to tell one rule of rounding from another."""
    make_divisible = pytest.importorskip('timm.layers').make_divisible
    for head_dim in (8, 16, 32):
        for channels in range(64, 1025, 32):
            for ratio in (0.1, 0.25, 0.28, 0.3, 0.4, 0.46, 0.5, 0.6, 0.7, 0.75):
                assert split_ntb_channels(channels, ratio, head_dim)[0] == make_divisible(
                    int(channels * ratio), head_dim
                )


def _changed(path, value):
    arch = copy.deepcopy(ARCHS['small'])
    target = arch
    for key in path[:-1]:
        target = target[key]
    if value is KeyError:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return arch


@pytest.mark.parametrize(
    'path, value',
    [
        (('stem_channels',), (64, 32)),
        (('stem_channels',), (64, 0, 64)),
        (('stem_channels',), KeyError),
        (('stages',), []),
        (('stages', 1), 'NCB'),
        (('stages', 1, 'num_ncb'), KeyError),
        (('stages', 1, 'num_ncb'), -1),
        (('stages', 1, 'num_ntb'), 1.5),
        (('stages', 1, 'repeats'), 0),
        (('stages', 1, 'ncb_channels'), 100),
        (('stages', 1, 'ntb_channels'), KeyError),
        (('stages', 1, 'sr_ratio'), 0),
        (('stages', 1, 'mix_ratio'), 1.5),
        (('stages', 1, 'mix_ratio'), 0.99),
        (('stages', 1, 'ntb_mlp_ratio'), 0),
        (('stages', 1, 'head_dim'), '32'),
        (('stages', 1, 'sr_ration'), 4),
    ],
)
def test_a_wrong_dict_is_refused_with_its_key(path, value):
    with pytest.raises(ValueError) as error:
        parse_arch(_changed(path, value))
    for key in path:
        assert f'[{key!r}]' in str(error.value), error.value


@pytest.mark.parametrize('arch', ['tiny', None, 3])
def test_an_unknown_variant_is_refused(arch):
    with pytest.raises(ValueError, match="'base', 'large', 'small'"):
        parse_arch(arch)
