"""The classifiers against timm's on photographs: from the file of a picture to the logits."""

from functools import lru_cache
from pathlib import Path

import pytest
import timm
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image
from timm.data import create_transform

from nextvit_mm.training.config import use_test_pipeline
from nextvit_mm.weights.models import load_exactly

from ..conftest import ROOT, SHARED, empty, fit_norms, load_config, randomise

pytest.importorskip('mmpretrain')

SIZES = dict(s='small', b='base', l='large')
# The authors' shorter side, int(256 / 224 · size), is timm's for a crop ratio of 224 / 256.
CROPS = {('authors', 224): 0.875, ('authors', 384): 0.875, ('timm', 224): 0.95, ('timm', 384): 1.0}


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """A folder of ImageNet's layout: scikit-learn's two photographs in every kind of file, and the shared ones."""
    root = tmp_path_factory.mktemp('imagenet')
    (root / 'val').mkdir()
    (root / 'meta').mkdir()
    from sklearn.datasets import load_sample_images

    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    china.save(root / 'val' / 'a_china.jpg', quality=90)
    flower.rotate(90, expand=True).save(root / 'val' / 'b_upright.jpg', quality=80)
    flower.convert('L').save(root / 'val' / 'c_grey.jpg')
    china.convert('CMYK').save(root / 'val' / 'd_cmyk.jpg')
    flower.crop((3, 5, 200, 152)).save(root / 'val' / 'e_small.png')
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright; neither the authors nor timm turn such a picture
    china.save(root / 'val' / 'f_turned.jpg', exif=turned)
    for folder in ('coco_tiny', 'ade_tiny'):
        for path in sorted((SHARED / 'data' / folder).rglob('*.jpg'))[:3]:
            (root / 'val' / f'{folder}_{path.name}').write_bytes(path.read_bytes())
    names = sorted(path.name for path in (root / 'val').iterdir())
    (root / 'meta' / 'val.txt').write_text(''.join(f'{name} {i}\n' for i, name in enumerate(names)))
    return root


def config(size: str, side: int, transform: str):
    cfg = load_config(ROOT / 'configs' / 'classification' / f'nextvit_{size}_{side}.py')
    plain = cfg.test_dataloader.dataset.pipeline
    use_test_pipeline(cfg, transform)
    assert (cfg.test_dataloader.dataset.pipeline == plain) == (transform == 'authors')
    return cfg


def preprocessed(cfg, root: Path, model, count: int | None = None) -> torch.Tensor:
    """What the network gets of every picture, or of the first: the config's dataset, pipeline and preprocessor."""
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, data_root=str(root)))
    batch = pseudo_collate([dataset[i] for i in range(len(dataset))[:count]])
    return model.data_preprocessor(batch, training=False)['inputs']


def preprocessed_by_timm(name: str, root: Path, crop_pct: float, count: int | None = None) -> torch.Tensor:
    """The same by timm, with the settings of its hub entry."""
    entry = timm.get_pretrained_cfg(name)
    transform = create_transform(
        entry.input_size,
        interpolation=entry.interpolation,
        mean=entry.mean,
        std=entry.std,
        crop_pct=crop_pct,
        crop_mode=entry.crop_mode,
    )
    paths = sorted((root / 'val').iterdir())[:count]
    return torch.stack([transform(Image.open(path).convert('RGB')) for path in paths])


def build(cfg):
    """The classifier, whose weights are yet to be loaded, and its data preprocessor."""
    init_default_scope('mmpretrain')
    model = empty(MODELS.build, cfg.model).eval()
    model.data_preprocessor = MODELS.build(dict(cfg.data_preprocessor, type='mmpretrain.ClsDataPreprocessor'))
    return model


def hub_name(size: str, side: int) -> str:
    return f'nextvit_{SIZES[size]}.bd_in1k' + ('_384' if side == 384 else '')


@pytest.mark.parametrize('side', [224, 384])
def test_the_transform_by_timms_name_is_that_of_its_hub_entries(side):
    for size in SIZES:
        for data in ('bd_in1k', 'bd_ssld_6m_in1k'):
            entry = timm.get_pretrained_cfg(f'nextvit_{SIZES[size]}.{data}' + ('_384' if side == 384 else ''))
            assert entry.crop_pct == CROPS['timm', side] and entry.input_size == (3, side, side)
            assert (entry.interpolation, entry.crop_mode) == ('bicubic', 'center')


@pytest.mark.slow
@pytest.mark.parametrize('transform, side', CROPS, ids=str)
def test_pictures_arrive_as_in_timm(transform, side, photographs, record_property):
    """Every pixel is the same; what follows, mean and std in other units, rounds otherwise."""
    cfg = config('s', side, transform)
    ours = preprocessed(cfg, photographs, build(cfg))
    theirs = preprocessed_by_timm(hub_name('s', side), photographs, CROPS[transform, side])
    assert ours.shape == theirs.shape == (len(list((photographs / 'val').iterdir())), 3, side, side)
    difference = (ours - theirs).abs().max().item()
    record_property('largest difference', difference)
    assert difference < 1e-6
    std = torch.tensor(cfg.data_preprocessor.std).view(3, 1, 1)
    mean = torch.tensor(cfg.data_preprocessor.mean).view(3, 1, 1)
    assert torch.equal((ours * std + mean).round(), (theirs * std + mean).round())


def test_the_comparison_of_pictures_notices_another_transform(photographs):
    """A shorter side of one pixel less, and a picture turned as its camera says."""
    theirs = preprocessed_by_timm(hub_name('s', 224), photographs, 0.875)
    cfg = config('s', 224, 'authors')
    model = build(cfg)
    cfg.test_dataloader.dataset.pipeline[1].scale = 255
    assert (preprocessed(cfg, photographs, model) - theirs).abs().max() > 0.1
    cfg = config('s', 224, 'authors')
    cfg.test_dataloader.dataset.pipeline[0].color_type = 'color'
    different = (preprocessed(cfg, photographs, model) - theirs).abs().amax((1, 2, 3)) > 0.1
    names = sorted(path.name for path in (photographs / 'val').iterdir())
    assert [name for name, other in zip(names, different) if other] == ['f_turned.jpg']


@pytest.fixture(scope='module')
def reference(photographs):
    """timm's network of a size with random weights and random affine BN, its BN statistics those of photographs."""

    @lru_cache(maxsize=1)
    def make(size: str) -> torch.nn.Module:
        model = randomise(empty(timm.create_model, f'nextvit_{SIZES[size]}', pretrained=False), seed=1)
        return fit_norms(model, preprocessed_by_timm(hub_name(size, 224), photographs, 0.875, count=2))

    return make


# All four for S. B and L get the same pictures and have one network for both sides, as the next test sees.
LOGITS = [*(('s', *case) for case in CROPS), ('b', 'authors', 224), ('l', 'timm', 224)]


@pytest.mark.parametrize('transform, side', CROPS, ids=str)
@pytest.mark.parametrize('size', SIZES)
def test_every_size_gets_the_same_pictures_and_has_one_network(size, transform, side):
    cfg, small, usual = config(size, side, transform), config('s', side, transform), config(size, 224, transform)
    assert cfg.test_dataloader.dataset == small.test_dataloader.dataset
    assert cfg.data_preprocessor == small.data_preprocessor
    cfg.model.backbone.drop_path_rate = usual.model.backbone.drop_path_rate  # of training alone
    assert cfg.model == usual.model


@pytest.mark.slow
@pytest.mark.parametrize('size, transform, side', LOGITS, ids=str)
def test_logits_are_timms(size, transform, side, reference, photographs, tmp_path, record_property):
    """timm's weights and statistics come through the project's reading of a timm file."""
    model_of_timm = reference(size)
    torch.save(model_of_timm.state_dict(), tmp_path / 'timm.pth')
    cfg = config(size, side, transform)
    model = build(cfg)
    load_exactly(model, str(tmp_path / 'timm.pth'), cfg.filename)
    crop = CROPS[transform, side]
    with torch.inference_mode():
        ours = model(preprocessed(cfg, photographs, model, count=2), mode='tensor')
        theirs = model_of_timm(preprocessed_by_timm(hub_name(size, side), photographs, crop, count=2))
    difference = (ours - theirs).abs().max().item()
    record_property('largest difference', difference)
    record_property('spread of the logits', theirs.std().item())
    assert ours.shape == (len(theirs), 1000) and 0.3 < theirs.std() < 10
    assert difference < 1e-4
    # Pictures are told apart: it is not all bias.
    assert (theirs - theirs.mean(0)).abs().max() > 1e4 * difference
    assert torch.equal(ours.argmax(1), theirs.argmax(1))
