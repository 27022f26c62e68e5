"""What a user of an MM backbone may rely on."""

import pytest
import torch
from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from nextvit_mm import NextViT
from nextvit_mm.models.layers import EMHSA, CeilAvgPool2d

from ..conftest import GROUPED, TINY, relative_error, tiny


def test_registered_in_the_root_registry():
    assert isinstance(MODELS.build(dict(type='NextViT', arch=TINY)), NextViT)


@pytest.mark.slow
def test_import_is_cheap(run_fresh):
    heavy = ('mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'timm', 'matplotlib', 'sklearn', 'huggingface_hub')
    code = f'import nextvit_mm, sys; print([m for m in {heavy} if m in sys.modules])'
    assert run_fresh(code).stdout.strip() == '[]'


@pytest.mark.parametrize('size', [(64, 64), (65, 31), (50, 83)])
def test_shapes_channels_and_strides(size):
    model = tiny().eval()
    assert model.out_channels == (32, 64, 128, 128)
    assert model.strides == (4, 8, 16, 32)
    for x, channels, stride in zip(model(torch.rand(2, 3, *size)), model.out_channels, model.strides):
        assert x.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.slow
@pytest.mark.parametrize(
    'asked, stages', [((3,), (3,)), ((-1,), (3,)), ((0, 2), (0, 2)), ((2, 0), (0, 2)), ((0, -2), (0, 2)), ([1], (1,))]
)
def test_out_indices(asked, stages):
    x = torch.rand(1, 3, 64, 64)
    full, part = tiny().eval(), tiny(out_indices=asked).eval()
    part.load_state_dict({k: v for k, v in full.state_dict().items() if k in part.state_dict()})
    assert len(part.stages) == stages[-1] + 1  # later stages are not built
    outs = full(x)
    for a, i in zip(part(x), stages):
        assert torch.equal(a, outs[i])
    assert part.out_channels == tuple(full.out_channels[i] for i in stages)
    assert part.strides == tuple(full.strides[i] for i in stages)


@pytest.mark.parametrize(
    'kwargs, word',
    [
        (dict(out_indices=()), 'out_indices'),
        (dict(out_indices=(4,)), 'out_indices'),
        (dict(out_indices=(0, -4)), 'twice'),
        (dict(out_norm='first'), 'out_norm'),
        (dict(sr_mode='2d'), 'sr_mode'),
        (dict(frozen_stages=5), 'frozen_stages'),
        (dict(frozen_stages=-2), 'frozen_stages'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
        (dict(drop_path_rate='x'), 'drop_path_rate'),
        (dict(in_channels=0), 'in_channels'),
        (dict(in_channels='3'), 'in_channels'),
        (dict(drop_rate=-0.1), 'drop_rate'),
        (dict(out_norm='last', out_indices=(1,)), 'out_norm'),
    ],
)
def test_arguments_that_make_no_sense_are_refused(kwargs, word):
    with pytest.raises(ValueError, match=word):
        NextViT(TINY, **kwargs)


def test_out_norm_is_applied_to_what_goes_on():
    """The published segmentors norm each stage's output before the next stage, not only what leaves."""
    x = torch.rand(1, 3, 64, 64)
    normed = tiny(out_norm='all').eval()
    assert [n for n, _ in normed.named_modules() if n.startswith('norm')] == ['norm0', 'norm1', 'norm2', 'norm3']
    outs = normed(x)
    second = normed.norm1(normed.stages[1](outs[0]))
    assert torch.equal(outs[1], second)
    for norm, keys in (('none', []), ('last', ['norm3'])):
        names = {k.split('.')[0] for k in NextViT(TINY, out_norm=norm).state_dict()} - {'stem', 'stages'}
        assert sorted(names) == keys


@pytest.mark.parametrize('frozen', range(-1, 5))
def test_frozen_stages(frozen):
    model = tiny(frozen_stages=frozen, out_norm='all').train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad] or [torch.zeros(1)], 0.1)
    outs = model(torch.rand(2, 3, 64, 64))
    if any(o.requires_grad for o in outs):
        sum((o * torch.randn_like(o)).sum() for o in outs if o.requires_grad).backward()
    optimizer.step()
    after = model.state_dict()
    for part in ['stem'] + [f'stages.{i}' for i in range(4)] + [f'norm{i}' for i in range(4)]:
        frozen_part = part == 'stem' and frozen >= 0 or part != 'stem' and int(part[-1]) < frozen
        same = [torch.equal(before[k], after[k]) for k in before if k.startswith(part + '.')]
        assert (
            all(same)
            if frozen_part
            else not any(
                torch.equal(before[k], after[k])
                for k in before
                if k.startswith(part + '.') and k.endswith(('weight', 'running_mean'))
            )
        ), part


def test_norm_eval_keeps_statistics_but_trains_parameters():
    model = tiny(norm_eval=True).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    sum(o.mean() for o in model(torch.rand(2, 3, 64, 64))).backward()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is not None for p in model.parameters())
    assert not any(m.training for m in model.modules() if isinstance(m, _BatchNorm))
    assert model.stages[1].training  # stochastic depth still acts


def test_every_norm_has_norm_in_its_name():
    """The published recipes exempt parameters from weight decay by that word."""
    model = NextViT(TINY, out_norm='all')
    norms = [n for n, m in model.named_modules() if isinstance(m, _BatchNorm)]
    assert norms and all('norm' in n.split('.')[-1] for n in norms)
    one_dimensional = {n for n, p in model.named_parameters() if p.ndim == 1 and 'norm' not in n}
    assert all(n.endswith('.bias') for n in one_dimensional)


@pytest.mark.parametrize('norm_type', ['BN', 'SyncBN'])
def test_norm_and_activation_are_configurable(norm_type):
    model = NextViT(TINY, norm_cfg=dict(type=norm_type, eps=1e-3), act_cfg=dict(type='GELU'))
    kinds = {type(m).__name__ for m in model.modules()}
    assert 'GELU' in kinds and 'ReLU' not in kinds
    assert {m.eps for m in model.modules() if isinstance(m, _BatchNorm)} == {1e-3}
    assert ('SyncBatchNorm' in kinds) == (norm_type == 'SyncBN')


@pytest.mark.parametrize('norm_type', ['BN', 'SyncBN'])
def test_gradient_checkpointing_changes_nothing_but_memory(norm_type):
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    norm_cfg = dict(type=norm_type)
    plain, recomputing = tiny(norm_cfg=norm_cfg).train(), tiny(with_cp=True, norm_cfg=norm_cfg).train()
    for model in (plain, recomputing):
        sum(o.cos().sum() for o in model(x)).backward()
    for (name, a), b in zip(plain.named_parameters(), recomputing.parameters()):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6), name
    for (name, a), b in zip(plain.named_buffers(), recomputing.buffers()):
        assert torch.equal(a, b), name  # running statistics move once, not twice


def test_checkpointing_recomputes(monkeypatch):
    calls = []
    model = tiny(with_cp=True).train()
    model.stages[1].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    sum(o.mean() for o in model(torch.rand(2, 3, 64, 64, requires_grad=True))).backward()
    assert len(calls) == 2


def test_stochastic_parts_act_in_training_only():
    x = torch.rand(4, 3, 64, 64)
    for name in ('drop_path_rate', 'drop_rate', 'attn_drop_rate'):
        model = tiny(norm_eval=True, **{name: 0.5}).train()
        assert not torch.equal(model(x)[-1], model(x)[-1]), name
        model.eval()
        assert torch.equal(model(x)[-1], model(x)[-1]), name


def test_drop_path_falls_on_an_ntbs_branches_by_width():
    block = NextViT('small', drop_path_rate=0.19).stages[1].blocks[3]  # block 6 of 0 to 19
    rates = [block.mhsa_drop_path.drop_prob, block.mhca_drop_path.drop_prob, block.mlp_drop_path.drop_prob]
    assert rates == pytest.approx([0.75 * 0.06, 0.25 * 0.06, 0.06])


def test_sr_tokens_averages_runs_and_drops_the_tail():
    layer = EMHSA(32, 32, sr_ratio=2, sr_mode='tokens', attn_drop_rate=0.0, drop_rate=0.0, norm_cfg=dict(type='BN'))
    x = torch.rand(1, 32, 3, 5)  # 15 tokens: three runs of four, three left over
    expected = x.flatten(2)[..., :12].reshape(1, 32, 3, 4).mean(-1)
    layer.norm = torch.nn.Identity()
    assert torch.allclose(layer.reduce(x, x.flatten(2).transpose(1, 2)).transpose(1, 2), expected)


def test_sr_windows_averages_squares():
    layer = EMHSA(32, 32, sr_ratio=2, sr_mode='windows', attn_drop_rate=0.0, drop_rate=0.0, norm_cfg=dict(type='BN'))
    x = torch.rand(1, 32, 4, 5)
    reduced = layer.pool(x)
    assert reduced.shape == (1, 32, 2, 3)
    assert torch.allclose(reduced[..., 1, 1], x[..., 2:4, 2:4].mean((-1, -2)))
    assert torch.allclose(reduced[..., 1, 2], x[..., 2:4, 4:].mean((-1, -2)))  # over what is there
    assert not torch.equal(
        tiny(sr_mode='windows').eval()(torch.ones(1, 3, 64, 64).cumsum(-1))[-1],
        tiny().eval()(torch.ones(1, 3, 64, 64).cumsum(-1))[-1],
    )


@pytest.mark.parametrize('window', [2, 4])
@pytest.mark.parametrize('size', [(8, 8), (9, 11), (6, 5)])
def test_pooling_for_export_is_the_same_average(window, size):
    pool = CeilAvgPool2d(window)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    assert torch.allclose(pool._symbolic_forward(x), pool(x))
    assert pool(x).shape[2:] == (-(-size[0] // window), -(-size[1] // window))


def test_an_input_too_small_names_the_least_size():
    model = tiny().eval()
    with pytest.raises(ValueError, match=r'24×24 is too small.*least square input is 25×25'):
        model(torch.rand(1, 3, 24, 24))
    assert len(model(torch.rand(1, 3, 25, 25))) == 4
    assert len(tiny(sr_mode='windows').eval()(torch.rand(1, 3, 24, 24))) == 4  # windows take what there is


def test_channels_last_stays_channels_last():
    model = tiny().to(memory_format=torch.channels_last).eval()
    x = torch.rand(2, 3, 64, 96)
    last = model(x.to(memory_format=torch.channels_last))
    assert all(o.is_contiguous(memory_format=torch.channels_last) for o in last)
    for a, b in zip(last, tiny().eval()(x)):
        assert relative_error(a, b) < 1e-5


def test_channels_last_attention_copies_no_layout():
    """Tokens of a channels-last map, and the map of its tokens, are views."""
    model = tiny().to(memory_format=torch.channels_last).eval()
    x = torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profile:
        model(x)
    events = profile.events()
    assert 'aten::scaled_dot_product_attention' in {event.key for event in events}
    copies = [e for e in events if e.key in ('aten::copy_', 'aten::clone', 'aten::contiguous') and e.input_shapes[0]]
    # A linear layer copies its bias into its output. So does a convolution of torch's own, (C, 1, 1) into (B, C, H, W),
    # which torch takes for small maps instead of oneDNN's where it has a single thread. Nothing else is copied.
    copies = [e for e in copies if e.input_shapes[1][1:] != [1, 1]]
    assert {e.cpu_parent and e.cpu_parent.key for e in copies} == {'aten::addmm'}


def test_layer_depth_for_layer_wise_decay():
    model = NextViT(GROUPED, out_norm='all')
    depth = {n: model.get_layer_depth('backbone.' + n, 'backbone.') for n, _ in model.named_parameters()}
    num_blocks = 1 + 2 + 4 + 2
    assert {total for _, total in depth.values()} == {num_blocks + 2}
    assert depth['stem.0.conv.weight'][0] == 0
    assert depth['stages.0.blocks.0.norm.weight'][0] == 1
    assert depth['stages.2.blocks.1.norm1.weight'][0] == 5
    assert depth['norm1.weight'][0] == depth['stages.1.blocks.1.norm1.weight'][0] == 3
    assert depth['stages.3.blocks.1.mlp.fc2.bias'][0] == num_blocks
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (num_blocks + 1, num_blocks + 2)


@pytest.mark.slow
def test_default_initialisation_is_the_published_one():
    model = NextViT('small')
    model.init_weights()
    weights = torch.cat([p.flatten() for n, p in model.named_parameters() if p.ndim > 1])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert all(p.abs().max() == 0 for n, p in model.named_parameters() if n.endswith('bias'))
