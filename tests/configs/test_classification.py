"""The classification recipes, from the files as shipped: rates, decay, augmentation, steps, and both transforms."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from PIL import Image
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import param_groups_weight_decay

from nextvit_mm import NextViT
from nextvit_mm.errors import UserError
from nextvit_mm.published import list_runs, load_run
from nextvit_mm.reproduction.compare import is_printed_rate
from nextvit_mm.training.config import set_data_root
from nextvit_mm.training.cpu import use_the_cpu_well
from nextvit_mm.training.launch import train
from nextvit_mm.training.preflight import check_data
from nextvit_mm.utils.logs import read_scalars
from nextvit_mm.weights.zoo import ZOO

from ..conftest import ROOT, TINY, load_config, on_meta, write_small

pytest.importorskip('mmpretrain')

FOLDER = ROOT / 'configs' / 'classification'
CONFIGS = sorted(FOLDER.glob('*.py'))
RECIPES = [path for path in CONFIGS if not path.stem.endswith('_6m')]
EVALUATIONS = [path for path in CONFIGS if path.stem.endswith('_6m')]
DEMO = ROOT / 'configs' / 'demo' / 'nextvit_s_digits.py'
SIZES = dict(s='small', b='base', l='large')


def parts(path: Path):
    """Size and side of a config: ``('small', 224)``."""
    _, size, side = path.stem.split('_')[:3]
    return SIZES[size], int(side)


def names(paths):
    return dict(argvalues=paths, ids=[path.stem for path in paths])


def build(cfg):
    init_default_scope('mmpretrain')
    cfg.model.data_preprocessor = cfg.data_preprocessor
    return MODELS.build(cfg.model)


def without_values(cfg):
    """The model on the meta device, and an optimizer that takes it."""
    use_the_cpu_well(cfg)
    cfg.optim_wrapper.optimizer.pop('fused', None)
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = build(cfg)
    return model, build_optim_wrapper(model, cfg.optim_wrapper).optimizer


def test_there_is_a_config_of_every_row():
    assert len(RECIPES) == len(EVALUATIONS) == 6 and {parts(path) for path in RECIPES} == {
        (size, side) for size in SIZES.values() for side in (224, 384)
    } == {parts(path) for path in EVALUATIONS}
    assert {load_config(path).custom_hooks[0].run for path in RECIPES} == {
        name for name in list_runs() if name.startswith('nextvit_')
    }


# --- rates --------------------------------------------------------------------------------------------------------


def rates(cfg) -> list:
    """The rate of every epoch, stepping the config's schedulers as MMEngine's hook does."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    assert all(scheduler.by_epoch for scheduler in schedulers)
    found = []
    for _ in range(cfg.train_cfg.max_epochs):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


@pytest.mark.parametrize('config', **names(RECIPES))
def test_learning_rate_is_the_published_one_in_every_epoch(config):
    cfg = load_config(config)
    run = load_run(cfg.custom_hooks[0].run)
    assert run.name == 'nextvit_{}_in1k_{}'.format(*parts(config))
    found = rates(cfg)
    assert len(found) == run.length == len(run.train)
    for epoch, (rate, record) in enumerate(zip(found, run.train)):
        assert record['epoch'] == epoch
        assert abs(rate - record['lr']) <= 0.5001e-6, epoch  # the log has six decimals
        assert is_printed_rate(run, rate, record['lr'])  # the hook does not warn


@pytest.mark.parametrize(
    'name, part, change',
    [
        ('s_224', 'optimizer', dict(lr=2.002e-3)),
        ('s_224', 'scheduler', dict(epochs=299)),
        ('s_224', 'scheduler', dict(warmup_epochs=19)),
        ('s_224', 'scheduler', dict(warmup_lr=3e-6)),
        ('s_224', 'scheduler', dict(min_lr=1.1e-5)),
        ('b_384', 'optimizer', dict(lr=4e-6)),
    ],
    ids=str,
)
def test_the_comparison_of_rates_notices_a_changed_digit(name, part, change):
    cfg = load_config(FOLDER / f'nextvit_{name}.py')
    (cfg.optim_wrapper.optimizer if part == 'optimizer' else cfg.param_scheduler[0]).update(change)
    run = load_run(cfg.custom_hooks[0].run)
    assert any(not is_printed_rate(run, rate, record['lr']) for rate, record in zip(rates(cfg), run.train))


# --- decay --------------------------------------------------------------------------------------------------------


def groups(optimizer):
    """Which parameters decay, by identity."""
    return {id(p): group['weight_decay'] for group in optimizer.param_groups for p in group['params']}


@pytest.mark.slow
@pytest.mark.parametrize('config', **names(RECIPES))
def test_weight_decay_is_that_of_timms_rule(config):
    cfg = load_config(config)
    model, optimizer = without_values(cfg)
    decay = 0.1 if parts(config)[1] == 224 else 1e-8
    theirs = groups(torch.optim.AdamW(param_groups_weight_decay(model, weight_decay=decay)))
    ours = groups(optimizer)
    assert ours == theirs and set(ours.values()) == {0.0, decay} and len(ours) == len(list(model.parameters()))
    # timm's own network has as many of both kinds.
    reference = on_meta(timm.create_model, f'nextvit_{parts(config)[0]}', pretrained=False)
    assert sorted(len(group['params']) for group in param_groups_weight_decay(reference, weight_decay=decay)) == sorted(
        list(ours.values()).count(value) for value in (0.0, decay)
    )
    assert optimizer.defaults['betas'] == (0.9, 0.999) and optimizer.defaults['eps'] == 1e-8


@pytest.mark.parametrize('key', ['norm_decay_mult', 'bias_decay_mult'])
def test_the_check_of_weight_decay_notices_a_change(key):
    cfg = load_config(FOLDER / 'nextvit_s_224.py')
    del cfg.optim_wrapper.paramwise_cfg['flat_decay_mult'], cfg.optim_wrapper.paramwise_cfg[key]
    model, optimizer = without_values(cfg)
    theirs = groups(torch.optim.AdamW(param_groups_weight_decay(model, weight_decay=0.1)))
    assert groups(optimizer) != theirs


# --- everything else of the recipe --------------------------------------------------------------------------------


@pytest.mark.parametrize('config', **names(CONFIGS))
def test_what_was_published(config):
    """Reference: the authors' command line and logs."""
    cfg = load_config(config)
    size, side = parts(config)
    run = load_run(f'nextvit_{size}_in1k_{side}')
    backbone, head = cfg.model.backbone, cfg.model.head
    assert (backbone.arch, backbone.out_norm) == (size, 'last')
    assert backbone.drop_path_rate == (0.1 if size == 'small' else 0.2)
    assert (head.num_classes, head.in_channels) == (1000, 1024)
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == run.batch_size
    assert cfg.train_dataloader.drop_last and cfg.train_dataloader.sampler.shuffle
    assert cfg.train_cfg.max_epochs == run.length and cfg.train_cfg.val_interval == 1
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.loss_scale, wrapper.clip_grad) == ('AmpOptimWrapper', 'dynamic', dict(max_norm=5.0))
    assert wrapper.optimizer == dict(
        type='AdamW',
        lr=2e-3 if side == 224 else 3e-6 if size == 'base' else 1e-5,
        weight_decay=0.1 if side == 224 else 1e-8,
    )
    assert cfg.get('load_from') == (None if side == 224 else f'nextvit-{size}_in1k')
    assert backbone.get('init_cfg') is None
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert list(steps) == [
        'LoadImageFromFile',
        'RandomResizedCrop',
        'RandomFlip',
        'RandAugment',
        'RandomErasing',
        'PackInputs',
    ]  # and no ColorJitter, which timm leaves out beside a RandAugment
    assert steps['RandomResizedCrop'].scale == side
    assert cfg.val_evaluator == cfg.test_evaluator == dict(type='Accuracy', topk=(1, 5))
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_dataloader.dataset.pipeline == cfg.authors_test_pipeline != cfg.timm_test_pipeline
    edges = {224: (256, 235), 384: (438, 384)}[side]
    assert (cfg.authors_test_pipeline[1].scale, cfg.timm_test_pipeline[1].scale) == edges
    assert edges[0] == int(256 / 224 * side) and {
        cfg.authors_test_pipeline[2].crop_size,
        cfg.timm_test_pipeline[2].crop_size,
    } == {side}


@pytest.mark.parametrize('config', **names(EVALUATIONS))
def test_rows_of_6m_weights_are_the_plain_ones_with_other_weights(config):
    cfg, plain = load_config(config), load_config(config.with_name(config.name.replace('_6m', '')))
    size, side = parts(config)
    entry = ZOO[cfg.weights]
    assert (entry.arch, entry.size, entry.data) == (size, side, 'ImageNet-1K-6M')
    assert cfg.custom_hooks == [] and cfg.model == plain.model and cfg.test_dataloader == plain.test_dataloader
    assert f'tools/test.py {config.relative_to(ROOT)} {cfg.weights}' in config.read_text()


def test_colour_jitter_is_what_timm_leaves_out():
    """With a RandAugment, as on the authors' command line, timm's own transform has no jitter."""
    made = timm.data.create_transform(
        224,
        is_training=True,
        color_jitter=0.4,
        auto_augment='rand-m9-mstd0.5-inc1',
        interpolation='bicubic',
        re_prob=0.25,
        re_mode='pixel',
        re_count=1,
    )
    found = [type(step).__name__ for step in made.transforms]
    assert 'ColorJitter' not in found and 'RandAugment' in found and 'RandomErasing' in found
    assert 'ColorJitter' in str(timm.data.create_transform(224, is_training=True, color_jitter=0.4))


def test_rand_augment_has_timms_operations():
    cfg = load_config(FOLDER / 'nextvit_s_224.py')
    init_default_scope('mmpretrain')
    from mmengine.registry import TRANSFORMS

    ours = TRANSFORMS.build(cfg.train_pipeline[3])
    theirs = timm.data.auto_augment.rand_augment_transform('rand-m9-mstd0.5-inc1', {})
    assert ours.num_policies == theirs.num_layers == 2 and len(ours.policies) == len(theirs.ops) == 15
    assert {(op.magnitude, op.magnitude_std, op.prob) for op in theirs.ops} == {(9, 0.5, 0.5)}
    for policy in ours.policies:
        made = TRANSFORMS.build(policy)
        assert made.prob == 0.5 and (made.magnitude_range is None or made.magnitude_level == 9)


def test_mixed_pictures_have_timms_loss():
    """Smoothed labels of a mixture: MMPretrain mixes and then smooths, timm smooths and then mixes."""
    cfg = load_config(FOLDER / 'nextvit_s_224.py')
    init_default_scope('mmpretrain')
    loss = MODELS.build(cfg.model.head.loss)
    logits = torch.randn(6, 1000, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 5, 999, 0, 5, 7])
    # timm's Mixup pairs the first picture with the last, and so on.
    mixed = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=1000)
    np.random.seed(3)
    _, target = mixed(torch.rand(6, 3, 8, 8), labels)
    hot = torch.nn.functional.one_hot(labels, 1000).float()
    off = 0.1 / 1000
    share = (target[0, 1] - off) / (1 - 0.1)
    assert 0.02 < share < 0.98
    ours = loss(logits, share * hot + (1 - share) * hot.flip(0))
    assert ours.item() == pytest.approx(SoftTargetCrossEntropy()(logits, target).item(), rel=1e-6)
    augments = MODELS.build(
        dict(
            cfg.model,
            backbone=dict(cfg.model.backbone, arch=TINY),
            head=dict(cfg.model.head, in_channels=128),
            data_preprocessor=cfg.data_preprocessor,
        )
    ).data_preprocessor.batch_augments
    assert [(type(a).__name__, a.alpha) for a in augments.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
    assert augments.probs is None  # chances are equal


def test_the_classifier_starts_as_the_authors():
    """Linear layers, the last one among them, normal with σ = 0.02."""
    cfg = load_config(FOLDER / 'nextvit_s_224.py')
    torch.manual_seed(0)
    model = build(cfg)
    model.init_weights()
    fc = model.head.fc
    assert fc.weight.std().item() == pytest.approx(0.02, rel=0.02) and fc.bias.abs().max() == 0


# --- steps --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('config', **names([*CONFIGS, DEMO]))
def test_a_training_step_and_a_test_step(config):
    """On one whole network; the others, whose blocks are the same, with one group of each kind."""
    from mmpretrain.structures import DataSample

    cfg = load_config(config)
    use_the_cpu_well(cfg)
    if config.stem != 'nextvit_s_224':
        cfg.model.backbone.arch, cfg.model.head.in_channels = TINY, 128
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    classes = cfg.model.head.num_classes
    batch = dict(
        inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(4)],
        data_samples=[DataSample().set_gt_label(i) for i in (0, 1, 2, classes - 1)],
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(0)
    wrapper.optimizer.param_groups[0]['lr'] = 1e-3  # 1e-8 moves nothing in float32
    losses = model.train().train_step(batch, wrapper)
    assert torch.isfinite(losses['loss']) and abs(losses['loss'].item() - np.log(classes)) < 2
    moved = {name.split('.')[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {'backbone', 'head'}
    results = model.eval().test_step(batch)
    assert [result.pred_score.shape for result in results] == 4 * [(classes,)]
    assert all(float(result.pred_score.sum()) == pytest.approx(1, abs=1e-5) for result in results)


@pytest.fixture
def imagenet(tmp_path):
    """A folder of ImageNet's layout with two classes in place of a thousand."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('n01440764', 'n01443537'):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                image = rng.integers(0, 256, (40 + 10 * i, 60, 3), dtype=np.uint8)
                Image.fromarray(image).save(tmp_path / split / name / f'{name}_{i}.JPEG')
    return tmp_path


@pytest.mark.parametrize('side', [224, 384])
def test_pictures_of_imagenets_layout_are_trained_and_tested_on(side, imagenet):
    cfg = load_config(FOLDER / f'nextvit_s_{side}.py')
    set_data_root(cfg, str(imagenet))
    check_data(cfg, ('train', 'val', 'test'))
    init_default_scope('mmpretrain')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = DATASETS.build(dict(loader.dataset, metainfo=dict(classes=('tench', 'goldfish'))))
        np.random.seed(0)
        items = [dataset[i] for i in range(len(dataset))]
        assert [tuple(item['inputs'].shape) for item in items] == 6 * [(3, side, side)]
        assert [int(item['data_samples'].gt_label) for item in items] == [0, 0, 0, 1, 1, 1]
    (imagenet / 'val').rename(imagenet / 'valid')
    with pytest.raises(UserError, match=r'train/ +found\n.*val/ +MISSING'):
        check_data(cfg, ('train', 'val'))


@pytest.mark.slow
def test_the_recipe_makes_a_classifier_of_a_folder(tmp_path):
    """As docs/own-data.md has it, on a folder of two classes, from weights of another last layer."""
    for split in ('train', 'val'):
        for name, level in (('even', 40), ('odd', 200)):
            (tmp_path / 'data' / split / name).mkdir(parents=True)
            for i in range(4):
                picture = Image.new('RGB', (48, 40), (level, 90 + 10 * i, 120))
                picture.save(tmp_path / 'data' / split / name / f'{i}.jpg')
    weights = NextViT(TINY, out_indices=(3,), out_norm='last').state_dict()
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in weights.items()}), tmp_path / 'start.pth')
    options = {f'{loader}_dataloader.num_workers': 0 for loader in ('train', 'val')}
    runner = train(
        write_small(FOLDER / 'nextvit_s_224.py', tmp_path),
        str(tmp_path / 'work'),
        str(tmp_path / 'data'),
        own_classes=True,
        image_size=[64],
        epochs=1,
        batch_size=4,
        cfg_options={**options, 'load_from': str(tmp_path / 'start.pth'), 'default_hooks.logger.interval': 1},
    )
    assert runner.iter == 2 and runner.model.head.fc.out_features == 2
    assert runner.val_dataloader.dataset.metainfo['classes'] == ('even', 'odd')
    _, val = read_scalars(tmp_path / 'work')
    assert 0 <= val[-1]['accuracy/top1'] <= 100
