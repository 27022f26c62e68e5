"""What is seen inside a backbone is what happens there, and looking leaves no trace."""

import copy

import pytest
import torch
from mmengine.registry import MODELS

from nextvit_mm import NextViT
from nextvit_mm.visualization import hooks
from tests.conftest import GROUPED, randomise, tiny

IMAGE = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def count_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def of_ratio(ratio):
    arch = copy.deepcopy(GROUPED)
    for stage in arch['stages']:
        stage['mix_ratio'] = ratio
    return randomise(NextViT(arch)).eval()


def see_branches(backbone):
    """Inputs, outputs and branches of every NTB."""
    ntbs, seen, inputs, outputs = hooks.find_ntbs(backbone), {}, {}, {}
    handles = [ntb.module.register_forward_pre_hook(lambda m, args: inputs.update({m: args[0]})) for ntb in ntbs]
    with (
        torch.no_grad(),
        hooks.watch({ntb: ntb.module for ntb in ntbs}, outputs.__setitem__),
        hooks.watch_branches(ntbs, seen.__setitem__),
    ):
        backbone(IMAGE)
    for handle in handles:
        handle.remove()
    return ntbs, inputs, outputs, seen


def test_branches_are_those_of_equation_6():
    ntbs, inputs, outputs, seen = see_branches(tiny(GROUPED).eval())
    assert [ntb[:2] for ntb in ntbs] == [(2, 2), (3, 2), (3, 4), (4, 2)] and set(seen) == set(ntbs)
    for ntb in ntbs:
        block = ntb.module
        with torch.no_grad():
            projected = block.patch_embed(inputs[block])
            mhsa = block.e_mhsa(block.norm1(projected))
            low = projected + mhsa
            mhca = block.mhca(block.projection(low))
            high = block.projection(low) + mhca
            mixed = torch.cat((low, high), 1)
            assert torch.equal(outputs[ntb], mixed + block.mlp(block.norm2(mixed)))
        for name, expected in dict(low=low, high=high, mhsa=mhsa, mhca=mhca).items():
            assert torch.equal(getattr(seen[ntb], name), expected), name
        assert low.shape[1] == 3 * high.shape[1], 'r = 0.75'


@pytest.mark.parametrize('ratio, there', [(0.0, ('high', 'mhca')), (1.0, ('low', 'mhsa'))])
def test_a_branch_that_is_not_there_is_none(ratio, there):
    ntbs, _, outputs, seen = see_branches(of_ratio(ratio))
    assert len(seen) == len(ntbs) == 4
    for ntb in ntbs:
        assert {name for name, value in seen[ntb]._asdict().items() if value is not None} == set(there)
        assert getattr(seen[ntb], there[0]).shape == outputs[ntb].shape


def test_looking_changes_nothing_and_ends():
    backbone = tiny(GROUPED).eval()
    before = count_hooks(backbone)
    with torch.no_grad():
        plain = backbone(IMAGE)
        with hooks.watch_branches(hooks.find_ntbs(backbone), lambda *_: 'not an output'):
            seen = backbone(IMAGE)
        blocks = []
        stages = hooks.run(backbone, IMAGE, see=lambda block, output: blocks.append((block[:2], tuple(output.shape))))
    assert all(torch.equal(a, b) for a, b in zip(plain, seen))
    assert list(stages) == [1, 2, 3, 4] and all(torch.equal(a, b) for a, b in zip(plain, stages.values()))
    assert [block for block, _ in blocks] == [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (3, 4), (4, 1), (4, 2)]
    assert blocks[0][1] == (1, 32, 24, 16) and blocks[-1][1] == (1, 128, 3, 2)
    with pytest.raises(ZeroDivisionError), hooks.watch_branches(hooks.find_ntbs(backbone), lambda *_: 1 / 0):
        backbone(IMAGE)
    assert count_hooks(backbone) == before


def test_stages_that_are_not_returned_are_seen_after_their_norm():
    backbone = tiny(GROUPED, out_indices=(3,), out_norm='last').eval()
    with torch.no_grad():
        stages = hooks.run(backbone, IMAGE)
        assert list(stages) == [1, 2, 3, 4] and torch.equal(stages[4], backbone(IMAGE)[0])


@pytest.mark.slow
def test_timms_networks():
    timm = pytest.importorskip('timm')
    seen = []
    with torch.no_grad():
        resnet = timm.create_model('resnet18', features_only=True).eval()
        stages = hooks.run(resnet, IMAGE, see=lambda block, _: seen.append(block[:2]))
        assert seen == [(stage, block) for stage in (1, 2, 3, 4) for block in (1, 2)]
        # Without the stem's map, which timm returns first.
        assert all(torch.equal(a, b) for a, b in zip(stages.values(), resnet(IMAGE)[1:])) and len(stages) == 4
        swin = timm.create_model('swin_tiny_patch4_window7_224', features_only=True, img_size=(96, 64)).eval()
        seen.clear()
        stages = hooks.run(swin, IMAGE, True, lambda block, output: seen.append((block.stage, tuple(output.shape))))
        assert seen[0] == (1, (1, 96, 24, 16)) and seen[-1] == (4, (1, 768, 3, 2)) and len(seen) == 12
        assert tuple(stages[2].shape) == (1, 192, 12, 8)


def test_mm_networks():
    pytest.importorskip('mmdet')
    import mmdet.models  # noqa: F401, registers

    torch.manual_seed(0)
    with torch.no_grad():
        for cfg, blocks, channels in (
            (dict(type='mmdet.ResNet', depth=18), 8, 512),
            (dict(type='mmdet.SwinTransformer', embed_dims=12, depths=(1, 1, 2, 1), num_heads=(1, 2, 3, 4)), 5, 96),
        ):
            backbone, seen = MODELS.build(cfg), []
            backbone.eval()  # which of MMDetection's returns nothing
            stages = hooks.run(backbone, IMAGE, see=lambda block, output, seen=seen: seen.append(tuple(output.shape)))
            assert len(seen) == blocks and seen[-1] == (1, channels, 3, 2)
            assert all(torch.equal(a, b) for a, b in zip(stages.values(), backbone(IMAGE))) and len(stages) == 4


def test_tokens_become_maps():
    tokens = torch.arange(12.0).view(1, 6, 2)  # 3 × 2 of 2 channels, stride 32
    expected = torch.stack([torch.arange(0.0, 12, 2).view(3, 2), torch.arange(1.0, 12, 2).view(3, 2)])[None]
    assert torch.equal(hooks.as_map(tokens, (96, 64)), expected)
    with_class = torch.cat([torch.full((1, 1, 2), 99.0), tokens], 1)
    assert torch.equal(hooks.as_map((with_class, None), (96, 64)), expected)
    assert hooks.as_map(torch.rand(1, 5, 2), (96, 64)) is None and hooks.as_map(torch.rand(1, 5), (96, 64)) is None


def test_layers_of_other_backbones_are_what_they_return():
    pytest.importorskip('mmdet')
    import mmdet.models  # noqa: F401, registers

    backbone = MODELS.build(dict(type='mmdet.ResNet', depth=18, out_indices=(1, 3)))
    backbone.eval()
    seen = {}
    with torch.no_grad(), hooks.stage_layers(backbone) as layers, hooks.watch(layers, seen.__setitem__):
        returned = backbone(IMAGE)
    assert list(seen) == [2, 4] and all(a is b for a, b in zip(seen.values(), returned)) and count_hooks(backbone) == 0
