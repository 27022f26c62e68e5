"""tools/convert_weights.py and get_model, on files at their real size."""

import pytest
import safetensors.torch
import timm
import torch

from nextvit_mm import NextViT, get_model
from nextvit_mm.errors import WeightsError
from nextvit_mm.published import load_release
from nextvit_mm.weights.convert import convert_file
from nextvit_mm.weights.io import read_weights
from nextvit_mm.weights.keys import convert
from nextvit_mm.weights.models import load_to_start_from
from nextvit_mm.weights.zoo import ZOO

from ..conftest import ROOT, TINY, call_tool, empty, published_names, randomise, relative_error, tiny
from .test_keys import official


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'nextvit_small_in1k_224.pth'
    torch.save(dict(model=official('small', 'classifier')), path)
    return path


@pytest.mark.slow
def test_the_authors_file_in_timms_names_is_timms(source, tmp_path):
    target = tmp_path / 'timm.safetensors'
    result = call_tool(ROOT / 'tools' / 'convert_weights.py', source, target, '--to', 'timm')
    assert 'Next-ViT small in official names' in result.stdout and 'timm names' in result.stdout
    theirs = empty(timm.create_model, 'nextvit_small')
    theirs.load_state_dict(safetensors.torch.load_file(target), strict=True)
    assert torch.equal(theirs.head.fc.weight, read_weights(source)['model']['proj_head.0.weight'])


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_there_and_back(source, tmp_path, suffix):
    paths = [str(tmp_path / f'{i}{suffix}') for i in range(3)]
    convert_file(str(source), paths[0], 'mm')
    convert_file(paths[0], paths[1], 'timm')
    convert_file(paths[1], paths[2], 'official')
    original, back = read_weights(source)['model'], read_weights(paths[2])
    back = back if suffix == '.safetensors' else back['model']
    assert back.keys() == original.keys() and all(torch.equal(back[name], original[name]) for name in original)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f'{i}{suffix}' for i in range(3))


@pytest.mark.slow
def test_a_classifier_of_mmpretrain_takes_it_whole(source, tmp_path):
    pytest.importorskip('mmpretrain')
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    convert_file(str(source), tmp_path / 'mm.pth', 'mm')
    init_default_scope('mmpretrain')
    model = MODELS.build(Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / 'nextvit_classifier.py').model)
    model.load_state_dict(read_weights(tmp_path / 'mm.pth')['state_dict'], strict=True)
    theirs = empty(timm.create_model, 'nextvit_small')
    theirs.load_state_dict(convert(read_weights(source)['model'], 'timm'))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert relative_error(model.eval()(x, mode='tensor'), theirs.eval()(x)) < 1e-5


@pytest.mark.slow
def test_a_checkpoint_to_start_from_is_taken_whole_or_not_at_all(source, tmp_path):
    """`load_from` of a training run: a classifier or another detector, below 'backbone.' or not."""
    state = official('small', 'detector')
    model = torch.nn.Module()
    model.backbone = empty(NextViT, 'small')
    model.head = torch.nn.Linear(3, 4)
    load_to_start_from(model, str(source))
    assert torch.equal(model.backbone.stem[0].conv.weight, state['stem.0.conv.weight'])
    detector = {f'backbone.{k}': v + 1 for k, v in state.items()}
    torch.save(
        dict(state_dict={**detector, 'head.weight': torch.ones(4, 3), 'head.bias': torch.ones(7)}), tmp_path / 'x.pth'
    )
    load_to_start_from(model, str(tmp_path / 'x.pth'))
    assert torch.equal(model.backbone.stem[0].conv.weight, state['stem.0.conv.weight'] + 1)
    assert model.head.weight.eq(1).all() and not model.head.bias.eq(1).any()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for wrong, words in (
        (published_names('base'), 'Next-ViT base'),
        ({'layer1.weight': torch.rand(2)}, 'not Next-ViT'),
        ({k: v for k, v in detector.items() if 'stem.0' not in k}, 'missing in'),
    ):
        torch.save(dict(state_dict=wrong), tmp_path / 'x.pth')
        with pytest.raises(WeightsError, match=words):
            load_to_start_from(model, str(tmp_path / 'x.pth'))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_place_that_cannot_be_written(source):
    with pytest.raises(WeightsError, match='/proc/x.pth cannot be written'):
        convert_file(str(source), '/proc/x.pth', 'mm')


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_shared_and_strange_tensors(source, tmp_path, suffix):
    state = read_weights(source)['model']
    state['features.0.patch_embed.alias'] = state['stem.0.conv.weight']
    state['features.0.patch_embed.nan'] = torch.full((), float('nan'))
    torch.save(state, tmp_path / 'source.pth')
    convert_file(str(tmp_path / 'source.pth'), tmp_path / f'x{suffix}', 'timm')
    assert torch.isnan(read_weights(tmp_path / f'x{suffix}')['stages.0.blocks.0.patch_embed.nan'])


def test_refused(source, tmp_path):
    (tmp_path / 'there.pth').write_text('mine')
    torch.save({'layer1.weight': torch.rand(2)}, tmp_path / 'other.pth')
    torch.save(
        {'stem.0.conv.bias': torch.rand(2), 'stages.0.blocks.0.patch_embed.x': torch.rand(2)}, tmp_path / 'folded.pth'
    )
    for args, words in (
        ((source, 'there.pth'), 'there.pth exists already'),
        ((source, 'x.onnx'), 'must end in'),
        (('other.pth', 'x.pth'), 'no Next-ViT of a published size'),
        ((source, 'no/x.pth'), 'is not a folder'),
        (('gone.pth', 'x.pth'), 'checkpoint not found'),
        (('folded.pth', 'x.pth'), 'folded into the convolutions'),
    ):
        result = call_tool(
            ROOT / 'tools' / 'convert_weights.py', *args, '--to', 'mm', cwd=tmp_path, check=False, PYTHONPATH=str(ROOT)
        )
        assert result.returncode == 2 and words in result.stderr and 'Traceback' not in result.stderr
    assert (tmp_path / 'there.pth').read_text() == 'mine'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['folded.pth', 'other.pth', 'there.pth']


@pytest.mark.slow
def test_get_model(source, tmp_path, monkeypatch):
    state = read_weights(source)['model']
    model = get_model('small', pretrained=str(source), out_norm='last')
    assert torch.equal(model.norm3.weight, state['norm.weight'])
    monkeypatch.setenv('NEXTVIT_MM_WEIGHTS', str(tmp_path))
    torch.save(dict(model=state), tmp_path / 'nextvit-small_6m.pth')
    model = get_model('nextvit-small_6m', pretrained=True, out_indices=(1,))
    assert torch.equal(model.stem[3].conv.weight, state['stem.3.conv.weight']) and model.out_channels == (256,)
    assert get_model('base').out_channels == (96, 256, 512, 1024)
    for args, words in ((('tiny',), 'is not a Next-ViT'), (('small', True), 'nextvit-small_in1k, ')):
        with pytest.raises(WeightsError, match=words):
            get_model(*args)


def test_the_zoo_is_printed():
    out = call_tool(ROOT / 'tools' / 'list_models.py').stdout
    assert len(out.splitlines()) == 13 and 'timm/nextvit_large.bd_ssld_6m_in1k_384' in out


@pytest.mark.parametrize(
    'spoil, words',
    [
        (
            lambda s: {**{k: v for k, v in s.items() if '.norm.' not in k}, 'stem.0.conv.bias': torch.rand(16)},
            'folded into the convolutions',
        ),
        (lambda s: {f'layer{i}.weight': torch.rand(3) for i in range(5)}, 'not Next-ViT'),
        (lambda s: {k: v for k, v in s.items() if k != 'stem.0.conv.weight'}, '1 missing in the file'),
    ],
)
def test_the_likely_cause(spoil, words, tmp_path):
    torch.save(dict(state_dict=spoil(tiny().state_dict())), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match=words):
        NextViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))).init_weights()


def test_relaxed_loading_warns_and_takes_what_fits(tmp_path):
    import logging

    from mmengine.logging import MMLogger

    source = randomise(tiny(), seed=3).state_dict()
    torch.save(dict(state_dict={k: v for k, v in source.items() if k != 'stem.0.conv.weight'}), tmp_path / 'x.pth')
    model = NextViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'), strict=False))
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        model.init_weights()
    finally:
        logger.removeHandler(handler)
    assert torch.equal(model.stem[1].conv.weight, source['stem.1.conv.weight'])
    warnings = [r.getMessage() for r in records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and '1 missing in the file (stem.0.conv.weight)' in warnings[0]
    torch.save({'layer1.weight': torch.rand(2)}, tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='nothing was loaded'):
        NextViT(TINY, init_cfg=model.init_cfg).init_weights()


@pytest.mark.slow
def test_a_reader_that_has_had_enough(run_fresh):
    """As in a shell's ``tools/list_models.py | true``: what is written has no reader any more."""
    tool = ROOT / 'tools' / 'list_models.py'
    code = 'import os, runpy; reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n'
    result = run_fresh(f'{code}runpy.run_path({str(tool)!r}, run_name="__main__")', check=False, PYTHONPATH=str(ROOT))
    assert result.returncode == 141 and 'Traceback' not in result.stderr and 'BrokenPipe' not in result.stderr


def test_the_zoo_has_the_released_accuracies():
    released = {(r['method'], r['backbone'], r['weights']): float(r['top1']) for r in load_release() if r['top1']}
    listed = {(f'ImageNet-1K {e.size}', f'Next-ViT-{e.arch[0].upper()}', e.data): e.top1 for e in ZOO.values()}
    assert listed == released
