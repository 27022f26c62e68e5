"""What people's files of weights hold, and what reading them leaves alone."""

import argparse
import re
from pathlib import Path

import mmengine.utils.dl_utils
import numpy as np
import pytest
import torch
from mmengine.runner import CheckpointLoader, checkpoint as mmengine_checkpoint

from nextvit_mm import NextViT
from nextvit_mm.errors import WeightsError
from nextvit_mm.training.preflight import check_checkpoint
from nextvit_mm.weights.archive import CheckedFile
from nextvit_mm.weights.checkpoint import load_checkpoint, load_state, split_name
from nextvit_mm.weights.io import TENSORS_ONLY, read_weights
from nextvit_mm.weights.publish import is_weights_name

from ..conftest import TINY, tiny

needs_2_6 = pytest.mark.skipif(not TENSORS_ONLY, reason='needs torch 2.6: older versions have no allow-list')
NAMES = ('a.pth', '/x/epoch_1.pth', 'm.safetensors', 'http://h/a.pth', 'https://h/a.pth', 's3://b/a.pth')
NAMES += ('torchvision://resnet50', 'open-mmlab://resnet50', 'mmcls://vgg11', 'modelzoo://resnet50')


def test_other_peoples_weights_are_loaded_as_without_this_package(tmp_path):
    for name in NAMES:
        loader = CheckpointLoader._get_checkpoint_loader(name)
        assert loader.__module__ == 'mmengine.runner.checkpoint', name
    assert mmengine_checkpoint.load_url is mmengine.utils.dl_utils.load_url
    own = [name for name, load in CheckpointLoader._schemes.items() if load.__module__.startswith('nextvit_mm')]
    assert len(own) == 3 and 'hf-hub:' in own and not any(re.match(pattern, name) for pattern in own for name in NAMES)
    if TENSORS_ONLY:  # allowed only while we read
        assert argparse.Namespace not in torch.serialization.get_safe_globals()
        torch.save(dict(args=argparse.Namespace(lr=1)), tmp_path / 'x.pth')
        assert read_weights(tmp_path / 'x.pth')['args'].lr == 1
        assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_weights_that_only_a_person_can_download():
    with pytest.raises(WeightsError, match='download https://x/view with a browser, and give the file as weights'):
        CheckpointLoader.load_checkpoint('nextvit_mm-page:https://x/view')
    from nextvit_mm.utils.recipes import find_recipe

    recipe = find_recipe('mask_rcnn_nextvit_s_1x')
    assert recipe.weights is None and recipe.page.startswith('https://drive.google.com/')


class Thing:
    """Of somebody's training: harmless, and nobody can know."""


@needs_2_6
def test_a_training_checkpoint_of_timm_or_the_authors(tmp_path):
    args = argparse.Namespace(model='nextvit_small', lr=1e-3, aa=None, size=(3, 224, 224), opt_betas=[0.9, 0.99])
    stored = dict(epoch=3, arch='nextvit_small', args=args, optimizer=dict(state={}, param_groups=[dict(lr=0.1)]))
    torch.save(dict(stored, model=tiny().state_dict()), tmp_path / 'x.pth')
    model = NextViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
    model.init_weights()
    assert torch.equal(model.stem[0].conv.weight, tiny().stem[0].conv.weight)
    assert load_checkpoint(str(tmp_path / 'x.pth'))['args'] == args
    stored['args'] = argparse.Namespace(thing=Thing())
    torch.save(dict(stored, model={}), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match=r'object of \S*Thing, which is refused'):
        load_checkpoint(str(tmp_path / 'x.pth'))


@needs_2_6
@pytest.mark.parametrize('kind', ['bool', 'uint8', 'int16', 'uint16', 'int64', 'float16', 'complex64', 'U5', 'S3'])
def test_arrays_beside_the_weights(tmp_path, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    torch.save(dict(meta=dict(dataset_meta=dict(palette=array, classes=('a',)))), tmp_path / 'x.pth')
    for load in (load_checkpoint, CheckpointLoader.load_checkpoint):  # such files are MMEngine's own
        found = load(str(tmp_path / 'x.pth'))['meta']['dataset_meta']['palette']
        assert found.dtype == array.dtype and (found == array).all()


@needs_2_6
def test_arrays_of_objects_are_refused(tmp_path):
    torch.save(dict(meta=np.array([Thing(), None], dtype=object)), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='x.pth'):
        load_checkpoint(str(tmp_path / 'x.pth'))


def state(value: float) -> dict:
    return dict(w=torch.full((2,), value))


MMENGINE = dict(state_dict=state(2), ema_state_dict={'module.w': torch.ones(2), 'steps': torch.tensor(3)})
FILES = [
    (dict(state_dict=state(1), state_dict_ema=state(2)), 2, 'averaged weights are taken, state_dict_ema; '),
    (dict(model=state(1), model_ema=state(2)), 2, r'averaged weights are taken, model_ema; \S*x.pth#model are those'),
    (dict(model=state(1), model_ema=None), 1, None),
    (dict(model=state(1), ema_state_dict=state(2)), 2, 'averaged weights are taken, ema_state_dict; '),
    (dict(state_dict=state(1), ema_state_dict={'module.w': torch.full((2,), 2.0)}), 2, 'ema_state_dict; '),
    (dict(model_ema=state(2)), 2, 'averaged weights are taken, model_ema$'),
    (MMENGINE, 2, 'state_dict holds the averaged weights, and is taken'),
    (state(1), 1, None),
]


@pytest.mark.parametrize('content, value, words', FILES)
def test_which_weights_are_taken_is_said(tmp_path, monkeypatch, content, value, words):
    said = []
    monkeypatch.setattr('nextvit_mm.weights.checkpoint.print_log', lambda text, *_: said.append(text))
    torch.save(content, tmp_path / 'x.pth')
    _, found = load_state(str(tmp_path / 'x.pth'))
    assert list(found) == ['w'] and (found['w'] == value).all()
    assert re.search(words, said[0]) and len(said) == 1 if words else not said


def test_weights_are_chosen_by_name(tmp_path):
    torch.save(dict(MMENGINE, net=state(5), note='x'), tmp_path / 'x.pth')
    for key, value in (('ema_state_dict', 1), ('state_dict', 2), ('net', 5)):
        name = f'{tmp_path}/x.pth#{key}'
        assert (load_state(name)[1]['w'] == value).all() and is_weights_name(name)
        check_checkpoint(name)
    with pytest.raises(WeightsError, match=r"x.pth has nothing to load under 'note'; it has state_dict, ema_state"):
        load_state(f'{tmp_path}/x.pth#note')
    torch.save(dict(net=state(5), epoch=3), tmp_path / 'y.pth')
    with pytest.raises(WeightsError, match='It has net: name one as .*y.pth#NAME'):
        load_state(f'{tmp_path}/y.pth')
    torch.save(state(7), tmp_path / 'a#b')
    assert split_name(str(tmp_path / 'a#b')) == (str(tmp_path / 'a#b'), None)
    assert (load_state(str(tmp_path / 'a#b'))[1]['w'] == 7).all()


@pytest.mark.parametrize(
    'prefix', ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'module.module.', '']
)
def test_prefixes_of_wrappers(tmp_path, prefix):
    wanted = tiny().state_dict()
    torch.save(dict(model={prefix + name: value for name, value in wanted.items()}), tmp_path / 'x.pth')
    model = NextViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
    model.init_weights()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


def test_a_compiled_backbone_in_a_detector(tmp_path):
    torch.save(dict(state_dict={'backbone._orig_mod.stem.w': torch.ones(1), 'neck.w': torch.ones(1)}), tmp_path / 'x')
    assert list(load_state(str(tmp_path / 'x'))[1]) == ['backbone.stem.w', 'neck.w']
    torch.save({'_orig_mod.w': torch.ones(1), 'w': torch.ones(1)}, tmp_path / 'x')
    with pytest.raises(WeightsError, match='two have one name'):
        load_state(str(tmp_path / 'x'))


def test_a_module_that_is_called_so_is_no_wrapper(tmp_path):
    torch.save({'module.w': torch.ones(1), 'head.w': torch.ones(1)}, tmp_path / 'x')
    assert list(load_state(str(tmp_path / 'x'))[1]) == ['module.w', 'head.w']


def big(path: Path) -> Path:
    torch.save(dict(state_dict={f'w{i}': torch.rand(1 << 18) for i in range(4)}, meta=dict(epoch=1)), path)
    return path


def test_a_file_is_read_once_with_its_checksums(tmp_path, monkeypatch):
    path, count = big(tmp_path / 'x.pth'), []
    usual = CheckedFile.readinto
    monkeypatch.setattr(CheckedFile, 'readinto', lambda self, buffer: count.append(len(buffer)) or usual(self, buffer))
    counter = Path('/proc/self/io')
    before = counter.read_text() if counter.exists() else ''
    read_weights(path)
    assert path.stat().st_size * 0.99 < sum(count) < path.stat().st_size * 1.01
    if before:
        read = [int(text.split('rchar: ')[1].split()[0]) for text in (before, counter.read_text())]
        assert read[1] - read[0] < 1.1 * path.stat().st_size


def test_a_bit_in_a_tensor_is_noticed_in_the_read_itself(tmp_path):
    path = big(tmp_path / 'x.pth')
    whole = path.read_bytes()
    for place in (len(whole) // 3, len(whole) // 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(WeightsError, match=r'x.pth is damaged: the checksum of x/data/\d in it is wrong'):
            read_weights(path)


def test_another_order_of_reading_is_verified_as_well(tmp_path):
    path = big(tmp_path / 'x.pth')
    for spoil in (False, True):
        if spoil:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 4
            path.write_bytes(bytes(content))
        with CheckedFile(path) as file:
            for begin, record in file._records.items():
                file.seek(begin)
                file.read(record.size // 2)  # and never the rest
            assert bool(file.find_broken()) == spoil


@pytest.mark.skipif(not hasattr(torch.serialization, 'set_crc32_options'), reason='torch 2.6 and later write such')
def test_a_file_without_checksums_is_sound(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = big(tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert len(read_weights(path)['state_dict']) == 4
