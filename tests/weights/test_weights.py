import functools
import http.server
import os
import pickle
import threading

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import PretrainedInit

from nextvit_mm import NextViT, list_models
from nextvit_mm.errors import WeightsError
from nextvit_mm.weights.checkpoint import load_checkpoint
from nextvit_mm.weights.fetch import locate_weights
from nextvit_mm.weights.io import TENSORS_ONLY, read_weights

from ..conftest import GROUPED, empty, published_names, randomise, tiny

tensors_only = pytest.mark.skipif(not TENSORS_ONLY, reason='needs torch 2.6: older versions have no allow-list')


def official_names(state_dict, depths):
    """Our names as the authors write them, from the description of their files (the inverse of what is tested)."""
    names = {}
    for name, value in state_dict.items():
        parts = name.split('.')
        if parts[0] == 'stages':
            number = sum(depths[: int(parts[1])]) + int(parts[3])
            name = '.'.join(['features', str(number), *parts[4:]]).replace('mlp.fc', 'mlp.conv')
        elif name.startswith('norm3.'):
            name = name.replace('norm3.', 'norm.')
        names[name] = value
    return names


DEPTHS = (1, 2, 4, 2)  # of GROUPED


@pytest.fixture
def classifier():
    """A published classifier's file in the authors' layout, of the tiny network."""
    state = official_names(tiny(GROUPED, out_norm='last').state_dict(), DEPTHS)
    state.update({'proj_head.0.weight': torch.rand(10, 128), 'proj_head.0.bias': torch.rand(10)})
    return dict(model=state)


def initialised(path, **kwargs):
    model = NextViT(GROUPED, init_cfg=dict(type='Pretrained', checkpoint=str(path)), **kwargs)
    model.init_weights()
    return model


@pytest.mark.slow
@pytest.mark.parametrize('out_norm', ['none', 'last', 'all'])
def test_an_official_file_loads_whole(classifier, tmp_path, out_norm):
    torch.save(classifier, tmp_path / 'nextvit.pth')
    model, source = (
        initialised(tmp_path / 'nextvit.pth', out_norm=out_norm),
        tiny(GROUPED, out_norm='last').state_dict(),
    )
    own = model.state_dict()
    for name, tensor in source.items():
        if name in own:
            assert torch.equal(own[name], tensor), name
    added = {n for n in own if n not in source}
    assert added == ({n for n in own if n.startswith(('norm0', 'norm1', 'norm2'))} if out_norm == 'all' else set())


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.safetensors', '.pth', '.bin'])
def test_a_timm_file_loads_whole(tmp_path, suffix):
    state = randomise(empty(timm.create_model, 'nextvit_small')).state_dict()
    path = tmp_path / f'model{suffix}'
    safetensors.torch.save_file(state, path) if suffix == '.safetensors' else torch.save(state, path)
    model = empty(NextViT, 'small', init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_own_checkpoint_of_a_detector_by_prefix(tmp_path):
    state = {'backbone.' + k: v for k, v in tiny(GROUPED).state_dict().items()}
    torch.save(dict(state_dict={**state, 'neck.weight': torch.rand(3)}), tmp_path / 'detector.pth')
    model = NextViT(
        GROUPED, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'detector.pth'), prefix='backbone.')
    )
    model.init_weights()
    assert all(torch.equal(v, state['backbone.' + k]) for k, v in model.state_dict().items())


def test_fewer_stages_take_their_part(classifier, tmp_path):
    torch.save(classifier, tmp_path / 'nextvit.pth')
    assert len(initialised(tmp_path / 'nextvit.pth', out_indices=(1,)).stages) == 2


def _wrong_size(state):
    return official_names(published_names('small'), (3, 4, 10, 3))


@pytest.mark.parametrize(
    'spoil, word',
    [
        (_wrong_size, 'of another shape'),
        (lambda state: {k: v for k, v in state.items() if k != 'stem.0.conv.weight'}, '1 missing in the file'),
        (lambda state: {**state, 'features.3.mlp.bias': torch.rand(3)}, '1 not in the model'),
        (lambda state: {'layer1.0.conv1.weight': torch.rand(3)}, 'missing in the file'),
    ],
)
def test_a_file_that_does_not_fit_stops_and_changes_nothing(classifier, tmp_path, spoil, word):
    torch.save(dict(model=spoil(classifier['model'])), tmp_path / 'nextvit.pth')
    model = NextViT(GROUPED, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'nextvit.pth')))
    before = model.stem[1].conv.weight.clone()
    with pytest.raises(WeightsError, match=word) as error:
        model.init_weights()
    assert 'nextvit.pth' in str(error.value)
    assert torch.equal(before, model.stem[1].conv.weight)


class Bomb:
    def __reduce__(self):
        return os.system, ('touch exploded',)


@tensors_only
@pytest.mark.parametrize('legacy', [False, True])
def test_an_object_in_a_file_is_refused_by_name_and_never_run(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    torch.save(
        dict(state_dict=dict(a=torch.rand(2)), meta=Bomb()), 'bomb.pth', _use_new_zipfile_serialization=not legacy
    )
    for load in (read_weights, load_checkpoint):
        with pytest.raises(WeightsError, match=r'bomb\.pth holds an object of \S*system'):
            load('bomb.pth')
    assert not (tmp_path / 'exploded').exists()


@pytest.fixture
def server(tmp_path):
    """A web server on this machine for the files of a folder."""
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=[0.01], daemon=True).start()
        yield folder, f'http://127.0.0.1:{httpd.server_address[1]}'
        httpd.shutdown()


@tensors_only
def test_files_from_the_web_are_read_as_safely(server, tmp_path, monkeypatch):
    folder, url = server
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'cache'))
    torch.save(dict(meta=Bomb()), folder / 'bomb.pth')
    with pytest.raises(WeightsError, match='system, which is refused'):
        load_checkpoint(f'{url}/bomb.pth')
    assert not (tmp_path / 'exploded').exists()
    torch.save(dict(a=torch.ones(2)), folder / 'good.pth')
    assert load_checkpoint(f'{url}/good.pth')['a'].tolist() == [1, 1]
    with pytest.raises(WeightsError, match='gone.pth could not be fetched'):
        load_checkpoint(f'{url}/gone.pth')
    assert [p.name for p in (tmp_path / 'cache' / 'checkpoints').rglob('*') if p.is_file()] == ['good.pth']


def test_a_file_named_like_published_weights_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('nextvit-small_in1k.safetensors', 'nextvit-small_mine.pth'):
        state = dict(a=torch.ones(2))
        safetensors.torch.save_file(state, name) if name.endswith('s') else torch.save(state, name)
        assert load_checkpoint(name)['a'].tolist() == [1, 1]


def test_what_mmengine_stores_is_read(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    stored = dict(
        state_dict=dict(w=torch.rand(2)),
        message_hub=dict(
            log_scalars={'train/loss': history}, runtime_info=dict(iter=3, lr=np.float64(0.1), a=np.arange(3))
        ),
    )
    torch.save(stored, tmp_path / 'epoch_1.pth')
    loaded = load_checkpoint(str(tmp_path / 'epoch_1.pth'))
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 1.5
    assert loaded['message_hub']['runtime_info']['lr'] == 0.1


class Getattr:
    """Pickles as getattr(HistoryBuffer, '__init__'), the first step towards everything."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


@tensors_only
def test_getattr_reaches_nothing_but_the_history_statistics(tmp_path):
    torch.save(dict(meta=Getattr()), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='getattr'):
        read_weights(tmp_path / 'x.pth')


@tensors_only
def test_a_checkpoint_of_the_other_numpy_is_read(tmp_path):
    """NumPy 1 wrote numpy.core.multiarray, NumPy 2 writes numpy._core.multiarray."""
    ours = b'numpy._core.multiarray' if int(np.__version__.split('.')[0]) > 1 else b'numpy.core.multiarray'
    other = b'numpy.core.multiarray' if ours.startswith(b'numpy._') else b'numpy._core.multiarray'
    torch.save(dict(a=np.arange(3)), tmp_path / 'a.pth', _use_new_zipfile_serialization=False, pickle_protocol=2)
    content = (tmp_path / 'a.pth').read_bytes()
    assert ours in content
    (tmp_path / 'b.pth').write_bytes(content.replace(ours, other))
    assert read_weights(tmp_path / 'b.pth')['a'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'PK\x03\x04 cut', pickle.dumps(3)])
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_damaged_file_is_one_error(tmp_path, content, suffix):
    path = tmp_path / f'x{suffix}'
    path.write_bytes(content)
    with pytest.raises(WeightsError, match='x' + suffix):
        read_weights(path)


def test_a_file_cut_short_is_one_error(tmp_path, classifier):
    torch.save(classifier, tmp_path / 'x.pth')
    content = (tmp_path / 'x.pth').read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / 'x.pth').write_bytes(content[: int(share * len(content))])
        with pytest.raises(WeightsError, match='x.pth'):
            read_weights(tmp_path / 'x.pth')


def test_a_missing_file_and_an_empty_one(tmp_path):
    with pytest.raises(WeightsError, match='checkpoint not found: .*gone.pth'):
        read_weights(tmp_path / 'gone.pth')
    torch.save(dict(epoch=3), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='holds no state dict'):
        initialised(tmp_path / 'x.pth')


@pytest.mark.slow
def test_published_names_and_the_mirror(tmp_path, monkeypatch):
    assert len(list_models()) == 12 and 'nextvit-small_in1k' in list_models()
    monkeypatch.setenv('NEXTVIT_MM_WEIGHTS', str(tmp_path))
    with pytest.raises(WeightsError, match='holds no nextvit-small_in1k'):
        locate_weights('nextvit-small_in1k')
    state = randomise(empty(timm.create_model, 'nextvit_small')).state_dict()
    safetensors.torch.save_file(state, tmp_path / 'nextvit-small_in1k.safetensors')
    model = empty(NextViT, 'small', init_cfg=dict(type='Pretrained', checkpoint='nextvit-small_in1k'))
    model.init_weights()
    assert torch.equal(model.stem[0].conv.weight, state['stem.0.conv.weight'])
    with pytest.raises(WeightsError, match='nextvit-tiny_in1k'):
        locate_weights('nextvit-tiny_in1k')


@pytest.mark.slow
def test_a_hub_out_of_reach_says_what_to_do(tmp_path, run_fresh):
    """In a process of its own: the hub's client reads its settings when it is imported."""
    code = (
        'from nextvit_mm.weights.fetch import locate_weights\n'
        'try:\n    locate_weights("nextvit-small_in1k")\nexcept Exception as e:\n    print(type(e).__name__, e)'
    )
    result = run_fresh(code, HF_HUB_OFFLINE='1', HF_HOME=str(tmp_path), NEXTVIT_MM_WEIGHTS='')
    assert result.stdout.startswith('WeightsError timm/nextvit_small.bd_in1k could not be fetched'), result.stderr
    assert 'NEXTVIT_MM_WEIGHTS' in result.stdout and 'name a file' in result.stdout


@pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained', PretrainedInit], ids=str)
def test_every_spelling_of_pretrained_is_strict_and_comes_last(classifier, tmp_path, kind):
    torch.save(classifier, tmp_path / 'nextvit.pth')
    pretrained = dict(type=kind, checkpoint=str(tmp_path / 'nextvit.pth'))
    model = NextViT(GROUPED, init_cfg=[pretrained, dict(type='Constant', val=0.5, layer='Conv2d')])
    model.init_weights()
    assert torch.equal(model.stem[0].conv.weight, classifier['model']['stem.0.conv.weight'])
    torch.save({'layer1.weight': torch.rand(2)}, tmp_path / 'nextvit.pth')
    with pytest.raises(WeightsError, match='nothing was loaded'):
        NextViT(GROUPED, init_cfg=pretrained).init_weights()


def test_a_web_page_is_called_one(tmp_path):
    (tmp_path / 'x.pth').write_text('<!DOCTYPE html><html>Google Drive</html>')
    with pytest.raises(WeightsError, match='is a web page, not a checkpoint') as error:
        read_weights(tmp_path / 'x.pth')
    assert 'weights_only' not in str(error.value)
    (tmp_path / 'x.pth').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n')
    with pytest.raises(WeightsError, match='is a pointer of Git LFS, not a checkpoint: .* git lfs pull'):
        read_weights(tmp_path / 'x.pth')


def test_a_classifier_without_its_last_norm_does_not_fit_one_that_has_it(classifier, tmp_path):
    state = {k: v for k, v in classifier['model'].items() if not k.startswith('norm.')}
    torch.save(dict(model=state), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='norm3.weight'):
        initialised(tmp_path / 'x.pth', out_norm='last')
    initialised(tmp_path / 'x.pth', out_norm='none')


def test_dialects_are_not_mixed(classifier, tmp_path):
    torch.save(dict(model={**tiny(GROUPED).state_dict(), **classifier['model']}), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='several dialects'):
        initialised(tmp_path / 'x.pth')


def test_saved_from_distributed_training(classifier, tmp_path):
    torch.save({f'module.{k}': v for k, v in classifier['model'].items()}, tmp_path / 'x.pth')
    assert torch.equal(initialised(tmp_path / 'x.pth').stem[0].conv.weight, classifier['model']['stem.0.conv.weight'])
