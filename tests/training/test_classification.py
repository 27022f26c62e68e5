"""train(…) and test(…) of classifiers: published weights by name, both transforms, and what 384 starts from."""

import pickle
from functools import cache

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform

from nextvit_mm.errors import UserError
from nextvit_mm.training import config as cfgs, preflight
from nextvit_mm.training.launch import evaluate, train

from ..conftest import DETECTOR, ROOT, call_tool, empty, fit_norms, load_config, randomise

pytest.importorskip('mmpretrain')
save_file = pytest.importorskip('safetensors.torch').save_file

CONFIGS = ROOT / 'configs' / 'classification'
HERE = {
    f'{loader}_dataloader.{key}': value
    for loader in ('train', 'val', 'test')
    for key, value in (('num_workers', 0), ('persistent_workers', False))
}


PHOTOGRAPHS = [Image.fromarray(image) for image in load_sample_images().images]


def network(seed: int) -> torch.nn.Module:
    """timm's with random weights that tells pictures apart."""
    torch.manual_seed(seed)
    model = randomise(empty(timm.create_model, 'nextvit_small', pretrained=False), seed)
    return fit_norms(model, torch.stack([create_transform(224)(image) for image in PHOTOGRAPHS]))


@pytest.fixture(scope='module')
def networks():
    return {'nextvit-small_6m': network(1), 'nextvit-small_in1k': network(2)}


@pytest.fixture(scope='module')
def mirror(networks, tmp_path_factory):
    """Two published weights, in timm's names, which are random here."""
    folder = tmp_path_factory.mktemp('mirror')
    for name, model in networks.items():
        save_file(model.state_dict(), str(folder / f'{name}.safetensors'))
    return folder


@pytest.fixture
def published(networks, mirror, monkeypatch):
    """The networks of the mirror, which commands look into."""
    monkeypatch.setenv('NEXTVIT_MM_WEIGHTS', str(mirror))
    return networks


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """Photographs in a folder of ImageNet's layout, whose classes are in ``meta``."""
    folder = tmp_path_factory.mktemp('imagenet')
    china, flower = PHOTOGRAPHS
    (folder / 'meta').mkdir()
    for split in ('train', 'val'):
        (folder / split).mkdir()
        for i, image in enumerate((china, flower, china.crop((100, 30, 500, 400)), flower.rotate(90))):
            image.save(folder / split / f'{i}.JPEG')
        (folder / 'meta' / f'{split}.txt').write_text(''.join(f'{i}.JPEG {i}\n' for i in range(4)))
    return folder


@cache
def timms_scores(model, folder, size, crop_pct):
    transform = create_transform(size, interpolation='bicubic', crop_pct=crop_pct)
    batch = torch.stack([transform(Image.open(path).convert('RGB')) for path in sorted((folder / 'val').iterdir())])
    with torch.inference_mode():
        return model(batch).softmax(1).numpy()


@pytest.mark.slow
@pytest.mark.parametrize('pipeline, crop_pct', [(None, 0.875), ('timm', 0.95)])
def test_published_weights_by_name_and_both_transforms(pipeline, crop_pct, published, imagenet, tmp_path):
    expected = timms_scores(published['nextvit-small_6m'], imagenet, 224, crop_pct)
    (imagenet / 'meta' / 'val.txt').write_text(''.join(f'{i}.JPEG {c}\n' for i, c in enumerate(expected.argmax(1))))
    metrics = evaluate(
        str(CONFIGS / 'nextvit_s_224_6m.py'),
        'nextvit-small_6m',
        work_dir=str(tmp_path / 'work'),
        data_root=str(imagenet),
        out=str(tmp_path / 'out.pkl'),
        pipeline=pipeline,
        cfg_options=HERE,
    )
    assert metrics['accuracy/top1'] == metrics['accuracy/top5'] == 100.0
    found = np.stack([sample['pred_score'].numpy() for sample in pickle.loads((tmp_path / 'out.pkl').read_bytes())])
    assert abs(found - expected).max() < 1e-6
    other = timms_scores(published['nextvit-small_6m'], imagenet, 224, 0.95 if pipeline is None else 0.875)
    assert abs(other - expected).max() > 1e-4


@pytest.mark.slow
def test_what_384_starts_from_is_not_loaded_over_what_is_tested(published, mirror, imagenet, tmp_path):
    expected = timms_scores(published['nextvit-small_6m'], imagenet, 384, 1.0)
    evaluate(
        str(CONFIGS / 'nextvit_s_384.py'),
        str(mirror / 'nextvit-small_6m.safetensors'),
        work_dir=str(tmp_path / 'work'),
        data_root=str(imagenet),
        out=str(tmp_path / 'out.pkl'),
        pipeline='timm',
        cfg_options=HERE,
    )
    found = np.stack([sample['pred_score'].numpy() for sample in pickle.loads((tmp_path / 'out.pkl').read_bytes())])
    assert abs(found - expected).max() < 1e-6


@pytest.mark.slow
def test_384_starts_from_the_whole_published_classifier(published, imagenet, tmp_path):
    """A step at rate 0: the checkpoint holds the published weights, the last layer among them."""
    small = {f'{loader}_dataloader.dataset.pipeline.1.scale': 64 for loader in ('train', 'val')}
    small['val_dataloader.dataset.pipeline.2.crop_size'] = 64
    runner = train(
        str(CONFIGS / 'nextvit_s_384.py'),
        work_dir=str(tmp_path / 'work'),
        data_root=str(imagenet),
        cfg_options={
            **HERE,
            **small,
            'train_dataloader.batch_size': 2,
            'train_cfg.max_epochs': 1,
            'optim_wrapper.optimizer.lr': 0.0,
            'default_hooks.checkpoint.save_best': None,
        },
    )
    assert runner.iter == 2
    model, given = runner.model, published['nextvit-small_in1k']
    assert torch.equal(model.head.fc.weight, given.head.fc.weight)
    assert torch.equal(model.backbone.stem[0].conv.weight, given.stem[0].conv.weight)
    assert not torch.equal(model.head.fc.weight, published['nextvit-small_6m'].head.fc.weight)


def test_published_weights_that_a_run_starts_from_are_looked_for_first(monkeypatch):
    asked = []
    monkeypatch.setattr(preflight, 'locate_weights', asked.append)
    preflight.check_pretrained(load_config(CONFIGS / 'nextvit_b_384.py'))
    assert asked == ['nextvit-base_in1k']


@pytest.mark.parametrize(
    'config, name, words',
    [
        (CONFIGS / 'nextvit_s_224.py', 'torchvision', 'torchvision_test_pipeline.*has those of authors, timm'),
        (DETECTOR, 'timm', 'timm_test_pipeline.*has none'),
    ],
)
def test_a_pipeline_that_the_config_does_not_have(config, name, words):
    with pytest.raises(UserError, match=words):
        cfgs.use_test_pipeline(load_config(config), name)


@pytest.mark.parametrize(
    'flags, words', [(['--tta', '--pipeline', 'timm'], 'give one of them'), (['--pipeline', 'x'], 'x_test_pipeline')]
)
def test_the_flag_from_the_command_line(flags, words, imagenet, tmp_path):
    (tmp_path / 'weights.pth').touch()
    result = call_tool(
        ROOT / 'tools' / 'test.py',
        CONFIGS / 'nextvit_s_224.py',
        tmp_path / 'weights.pth',
        '--data-root',
        imagenet,
        *flags,
        check=False,
    )
    assert result.returncode == 2 and words in result.stderr and 'Traceback' not in result.stderr


def test_an_exported_model_has_its_transform_in_it(imagenet, tmp_path):
    (tmp_path / 'model.onnx').touch()
    with pytest.raises(UserError, match='--pipeline is for checkpoints'):
        evaluate(
            str(CONFIGS / 'nextvit_s_224.py'), str(tmp_path / 'model.onnx'), data_root=str(imagenet), pipeline='timm'
        )
