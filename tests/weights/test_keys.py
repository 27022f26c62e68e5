"""Names of the three dialects, at the published sizes, both ways."""

from functools import cache

import pytest
import timm
import torch
from mmengine.runner.checkpoint import load_state_dict

from nextvit_mm import NextViT
from nextvit_mm.weights.keys import (
    arch_depths,
    convert,
    describe_weights,
    detect_arch,
    detect_dialect,
    detect_prefix,
    is_folded,
    to_official,
    to_ours,
    to_timm,
)

from ..conftest import empty, on_meta, published_names, randomise, relative_error

DEPTHS = dict(small=(3, 4, 10, 3), base=(3, 4, 20, 3), large=(3, 4, 30, 3))
LAST = (96, 256, 512, 1024)


@cache
def _timm(arch, device):
    """State dict of timm's network; on the meta device, names and shapes alone. Tests read it and leave it so."""
    if device == 'cpu':
        return randomise(empty(timm.create_model, f'nextvit_{arch}')).state_dict()
    return on_meta(timm.create_model, f'nextvit_{arch}').state_dict()


@cache
def timms(arch):
    return empty(timm.create_model, f'nextvit_{arch}').eval()


def official(arch, form='classifier', device='cpu'):
    """State dict of the authors' layout, from the description of their files and timm's parameters.

    ``form``: 'classifier', 'detector' or 'segmentor' (the two with what their dense backbones carried unused).
    """
    state = {}
    for name, value in _timm(arch, device).items():
        parts = name.split('.')
        if parts[0] == 'stages':
            number = sum(DEPTHS[arch][: int(parts[1])]) + int(parts[3])
            name = '.'.join(['features', str(number), *parts[4:]]).replace('mlp.fc', 'mlp.conv')
        name = name.replace('head.fc.', 'proj_head.0.')
        state[name] = value
    if form == 'segmentor':
        for i, channels in enumerate(LAST):
            norm = torch.nn.BatchNorm2d(channels, device=device)
            norm = norm if device == 'meta' else randomise(norm, seed=i)
            state.update({f'extra_norm_list.{i}.{key}': value for key, value in norm.state_dict().items()})
    return state


@pytest.fixture(scope='module', params=['small', 'base', 'large'])
def arch(request):
    return request.param


@pytest.fixture(scope='module', params=['classifier', 'detector', 'segmentor'])
def files(arch, request):
    return arch, request.param, official(arch, request.param)


def test_depths(arch):
    assert arch_depths(arch) == DEPTHS[arch]


@pytest.mark.slow
def test_round_trips_are_bit_identical(files):
    arch, _, state = files
    depths = DEPTHS[arch]
    ours = to_ours(state, depths)
    timms = to_timm(ours, depths)
    again = to_ours(timms, depths)
    assert list(again) == list(ours) and all(again[name] is ours[name] for name in ours)
    back = to_official(timms, depths)
    assert list(back) == list(state) and all(back[name] is state[name] for name in state)


@pytest.mark.slow
def test_our_names_are_the_models(files):
    arch, form, state = files
    model = on_meta(NextViT, arch, out_norm=dict(classifier='last', detector='none', segmentor='all')[form])
    names, own = set(to_ours(state, DEPTHS[arch])), set(model.state_dict())
    left = {name.rsplit('.', 1)[0] for name in names - own}
    assert own <= names
    assert (
        left
        == dict(classifier={'head.fc'}, detector={'norm3', 'head.fc'}, segmentor={'extra_norm_list.3', 'head.fc'})[form]
    )


def test_timms_names_are_timms(arch):
    assert set(to_timm(official(arch, device='meta'), DEPTHS[arch])) == set(_timm(arch, 'meta'))


@pytest.mark.slow
def test_a_loaded_file_computes_what_timm_does(files):
    """Below 'backbone.', with a plain load_state_dict of MMEngine, strict: every leftover is accounted for."""
    arch, form, state = files
    whole = torch.nn.Module()
    whole.backbone = empty(NextViT, arch, out_norm=dict(classifier='last', detector='none', segmentor='all')[form])
    load_state_dict(whole, {f'backbone.{name}': value for name, value in state.items()}, strict=True)
    model = whole.backbone.eval()
    theirs = timms(arch)
    theirs.load_state_dict(
        {
            name: value
            for name, value in to_timm(state, DEPTHS[arch]).items()
            if not name.startswith(('norm0', 'norm1', 'norm2', 'extra_norm_list'))
        }
    )
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model(x)
        y = theirs.stem(x)
        for i, (stage, ours) in enumerate(zip(theirs.stages, maps)):
            y = stage(y)
            if form == 'segmentor' or (form == 'classifier' and i == 3):
                y = (theirs.norm if i == 3 else _norm(state, i))(y)
            assert relative_error(ours, y) < 1e-5


def _norm(state, i):
    norm = torch.nn.BatchNorm2d(LAST[i])
    norm.load_state_dict({key: state[f'extra_norm_list.{i}.{key}'] for key in norm.state_dict()})
    return norm.eval()


@pytest.mark.parametrize('to', ['mm', 'timm', 'official'])
def test_whole_files_both_ways(to):
    state = official('small', 'classifier')
    converted = convert(state, to)
    assert len(converted) == len(state)
    if to == 'mm':
        assert {name.split('.')[0] for name in converted} == {'backbone', 'head'}
    assert detect_dialect(name[len('backbone.') :] if to == 'mm' else name for name in converted) == to
    back = convert(converted, 'official')
    assert set(back) == set(state) and all(back[name] is state[name] for name in state)


def test_a_detectors_other_parts_stay_as_they_are():
    state = {f'backbone.{name}': value for name, value in official('small', 'detector').items()}
    state.update({'neck.lateral_convs.0.conv.weight': torch.rand(2), 'roi_head.bbox_head.fc_cls.bias': torch.rand(2)})
    converted = convert(state, 'mm')
    assert 'neck.lateral_convs.0.conv.weight' in converted and 'backbone.stages.2.blocks.9.mlp.fc1.weight' in converted
    assert convert(converted, 'official').keys() == state.keys()


@pytest.mark.slow
@pytest.mark.parametrize('form', ['detector', 'segmentor'])
@pytest.mark.parametrize('to', ['mm', 'timm', 'official'])
def test_a_converted_dense_model_still_loads_whole(form, to):
    """What its backbone carried unused is kept in the file, and accounted for in every dialect."""
    state = {f'backbone.{name}': value for name, value in official('small', form).items()}
    state['neck.weight'] = torch.rand(2)
    whole = torch.nn.Module()
    whole.backbone = empty(NextViT, 'small', out_norm='none' if form == 'detector' else 'all')
    whole.neck = torch.nn.Module()
    whole.neck.weight = torch.nn.Parameter(torch.zeros(2))
    whole.load_state_dict(convert(state, to), strict=True)
    assert torch.equal(
        whole.backbone.stages[2].blocks[9].mlp.fc1.weight, state['backbone.features.16.mlp.conv1.weight']
    )
    assert torch.equal(whole.neck.weight, state['neck.weight'])


@pytest.mark.parametrize('name', ['convnext_tiny', 'mobilenetv2_100', 'resnet18', 'efficientformer_l1'])
def test_other_networks_are_not_taken_for_it(name):
    names = list(on_meta(timm.create_model, name).state_dict())
    assert detect_dialect(names) is None and not is_folded(names) and 'not Next-ViT' in describe_weights(names)


def test_mixed_dialects_are_refused():
    state = official('small', 'classifier')
    with pytest.raises(ValueError, match='several dialects'):
        to_ours({**state, **to_timm(state, DEPTHS['small'])}, DEPTHS['small'])


def test_evidence():
    state = official('base', 'classifier', device='meta')
    assert detect_dialect(state) == 'official' and detect_arch(state) == 'base' and detect_prefix(state) == ''
    shuffled = dict(reversed(list(state.items())))
    assert to_ours(shuffled, DEPTHS['base']) == to_ours(state, DEPTHS['base'])  # by name, not by order
    below = {f'backbone.{name}': value for name, value in to_timm(state, DEPTHS['base']).items()}
    assert detect_prefix(below) == 'backbone.' and 'Next-ViT base in timm names' in describe_weights(below)
    assert detect_dialect(['layer1.0.conv1.weight', 'fc.weight']) is None and detect_prefix(['backbone.conv1.w']) == ''
    assert detect_arch(published_names('large')) == 'large'
    assert 'not Next-ViT' in describe_weights(['layer1.0.conv1.weight'])
    with pytest.raises(ValueError, match='no Next-ViT of a published size'):
        convert({'layer1.0.conv1.weight': 1}, 'mm')


def test_folded_names_are_recognised():
    names = list(published_names('small'))
    assert (
        not is_folded(names) and not is_folded(official('small', 'detector', device='meta')) and not is_folded(['a.b'])
    )
    folded = [name for name in names if '.norm.' not in name] + [f'stem.{i}.conv.bias' for i in range(4)]
    assert is_folded(folded)
