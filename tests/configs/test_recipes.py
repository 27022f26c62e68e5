"""Every published recipe, from the file as shipped: it builds, trains and tests a step, and is what was published.

One recipe of each kind takes its steps at its real size, the others with a small network. That every recipe's widths
fit one another is seen on the meta device, as are the rules that go by parameters' names.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch.nn.modules.batchnorm import _BatchNorm

from nextvit_mm.benchmark.complexity import count_complexity
from nextvit_mm.published import load_run
from nextvit_mm.training.config import train_from_scratch
from nextvit_mm.training.cpu import use_the_cpu_well

from ..conftest import DETECTOR, RECIPES, ROOT, load_config, shrink

# Classifiers are in test_classification.py.
CONFIGS = RECIPES + [
    path for path in sorted((ROOT / 'configs' / 'demo').glob('*.py')) if not path.stem.startswith('nextvit_')
]
SIZES = dict(s='small', b='base', l='large')


def size_of(config: Path) -> str:
    return SIZES[config.stem.split('nextvit_')[1][0]]


def model_of(cfg: Config) -> tuple[str, str]:
    """A model without its weights, and its scope: several recipes have the same, such as those of another schedule."""
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None
    return json.dumps(cfg.model.to_dict(), sort_keys=True), cfg.default_scope


@cache
def without_values(model: str, scope: str) -> torch.nn.Module:
    """The model at its real size, on the meta device."""
    with torch.device('meta'):
        return MODELS.build(Config(json.loads(model)))


SIDE = 32


def batch(cfg: Config) -> dict:
    """Two pictures of 32×32 with something on them."""
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(
            2,
            [(3, SIDE, SIDE)] * 2,
            num_items=[2, 2],
            num_classes=cfg.model.roi_head.bbox_head.num_classes,
            with_mask=True,
        )
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    rng = np.random.default_rng(0)
    samples = []
    for _ in range(2):
        labels = torch.from_numpy(rng.integers(0, cfg.model.decode_head.num_classes, (1, SIDE, SIDE)))
        samples.append(
            SegDataSample(
                gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE))
            )
        )
    return dict(
        inputs=[torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8) for _ in range(2)], data_samples=samples
    )


WHOLE = ('mask_rcnn_nextvit_s_1x', 'semantic_fpn_nextvit_s_80k', 'upernet_nextvit_s_160k')


@pytest.mark.slow
@pytest.mark.parametrize('config', CONFIGS, ids=lambda p: p.stem)
def test_a_training_step_and_a_test_step(config):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    cfg = load_config(config)
    if config.stem not in WHOLE:
        shrink(cfg)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None  # the weights that it would start from are not here
    use_the_cpu_well(cfg)
    if cfg.default_scope == 'mmdet':  # of so small a picture there is no more to see
        cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 100
        cfg.model.train_cfg.rcnn.sampler.num = 64
    model = MODELS.build(cfg.model)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    if cfg.default_scope == 'mmseg':
        model.data_preprocessor.size = (SIDE, SIDE)  # what the crops of 512×512 would be padded to
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(0)
    losses = model.train().train_step(batch(cfg), optim_wrapper)
    assert torch.isfinite(losses['loss'])
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert not moved & frozen
    assert {name.split('.')[0] for name in moved} == {name.split('.')[0] for name in before}
    results = model.eval().test_step(batch(cfg))
    assert len(results) == 2
    if cfg.default_scope == 'mmseg':
        assert results[0].pred_sem_seg.data.shape == (1, SIDE, SIDE)
    else:
        assert results[0].pred_instances.masks.shape[1:] == (SIDE, SIDE)


@cache
def count(model: str, scope: str):
    return count_complexity(Config(dict(model=json.loads(model), default_scope=scope)), (64, 64))


@pytest.mark.slow
@pytest.mark.parametrize('config', CONFIGS, ids=lambda p: p.stem)
def test_the_widths_fit_one_another(config):
    """The network at its real size on a picture's shape; a head that only trains is not run, and counted by hand."""
    cfg = load_config(config)
    counted = count(*model_of(cfg))
    assert counted.flops > 0 and set(counted.not_run) <= {'auxiliary_head'}
    if 'auxiliary_head' in counted.not_run:
        model = without_values(*model_of(cfg))
        maps = model.backbone.eval()(torch.empty(1, 3, 64, 64, device='meta'))
        assert model.auxiliary_head.eval()(maps).shape == (1, cfg.model.auxiliary_head.num_classes, 4, 4)


def check_weight_decay(model, optim_wrapper, usual, exempt):
    """Every parameter has the decay ``usual``, or ``exempt`` if it belongs to a BN."""
    decays = {id(p): g['weight_decay'] for g in optim_wrapper.optimizer.param_groups for p in g['params']}
    of_bn = {id(p) for m in model.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    found = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert ('norm' in name or 'bn' in name) == (id(parameter) in of_bn), name
            assert decays[id(parameter)] == (exempt if id(parameter) in of_bn else usual), name
            found.add(decays[id(parameter)])
    assert found == {usual, exempt}


DECAYS = dict(mask=(0.05, 0.0), semantic=(1e-4, 1e-4), upernet=(0.01, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize('config', RECIPES, ids=lambda p: p.stem)
def test_weight_decay(config):
    """Semantic FPN decays everything; elsewhere what the release exempts by name is just what belongs to a BN."""
    cfg = load_config(config)
    model = without_values(*model_of(cfg))
    use_the_cpu_well(cfg)
    cfg.optim_wrapper.optimizer.pop('fused', None)  # which there is not on the meta device
    check_weight_decay(model, build_optim_wrapper(model, cfg.optim_wrapper), *DECAYS[config.stem.split('_')[0]])


@pytest.mark.parametrize(
    'change',
    [
        dict(paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)})),
        dict(paramwise_cfg=None),
        dict(optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.02)),
    ],
    ids=str,
)
def test_the_check_of_weight_decay_notices_a_change(change):
    """Without 'bn' the heads' norms decay, which lie in ConvModules under that name."""
    pytest.importorskip('mmseg')
    cfg = load_config(ROOT / 'configs' / 'segmentation' / 'upernet_nextvit_s_160k.py')
    model = without_values(*model_of(cfg))
    for key, value in change.items():
        cfg.optim_wrapper[key] = value  # update() would merge
    with pytest.raises(AssertionError):
        check_weight_decay(model, build_optim_wrapper(model, cfg.optim_wrapper), *DECAYS['upernet'])


@pytest.mark.parametrize('config', RECIPES, ids=lambda p: p.stem)
def test_what_the_release_says(config):
    """Reference: the authors' configs and logs; where the paper's text differs, the plain name follows the paper."""
    cfg, stem = load_config(config), config.stem
    backbone, size = cfg.model.backbone, size_of(config)
    run = load_run(cfg.custom_hooks[0].run)
    assert run.name.split('nextvit_')[1].startswith(size) and ('6m' in stem) == ('1n1k6m' in run.name)
    assert backbone.arch == size
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=f'nextvit-{size}_{"6m" if "6m" in stem else "in1k"}')
    images = 8 * cfg.train_dataloader.batch_size
    assert images == cfg.auto_scale_lr.base_batch_size
    paper_fpn = 'semantic_fpn' in stem and 'released' not in stem
    assert images == (16 if paper_fpn else run.batch_size)
    if cfg.default_scope == 'mmdet':
        assert backbone.drop_path_rate == (0.1 if size == 'small' else 0.2)
        assert backbone.frozen_stages == 1 and backbone.norm_eval and 'out_norm' not in backbone
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 512.0
        assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, weight_decay=0.05)
        assert cfg.optim_wrapper.get('clip_grad') is None
        assert cfg.train_cfg.max_epochs == run.length and cfg.val_evaluator.metric == ['bbox', 'segm']
        assert cfg.model.test_cfg.rcnn == dict(
            score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5
        )
        assert cfg.model.train_cfg.rcnn.sampler.num == 512 and cfg.model.train_cfg.rpn_proposal.max_per_img == 1000
    else:
        assert backbone.drop_path_rate == 0.2 and backbone.out_norm == 'all'
        assert backbone.get('frozen_stages', -1) == -1 and not backbone.get('norm_eval')
        assert backbone.norm_cfg.type == cfg.model.decode_head.norm_cfg.type == 'SyncBN'
        assert cfg.optim_wrapper.type == 'OptimWrapper' and cfg.optim_wrapper.clip_grad is None
        lr, decay = (1e-4, 1e-4) if 'fpn' in stem else (6e-5, 0.01)
        assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=lr, weight_decay=decay)
        assert cfg.train_cfg.max_iters == run.length * (2 if paper_fpn else 1)
        assert cfg.train_cfg.max_iters == 10 * cfg.train_cfg.val_interval == 10 * cfg.default_hooks.checkpoint.interval
        assert cfg.log_processor == dict(by_epoch=False, window_size=cfg.default_hooks.logger.interval)
        assert cfg.model.test_cfg.mode == 'whole' and 'size_divisor' not in cfg.model.data_preprocessor
        assert cfg.model.decode_head.num_classes == 150 and not cfg.model.decode_head.align_corners
        if 'upernet' in stem:
            aux = cfg.model.auxiliary_head
            assert (aux.type, aux.in_index, aux.in_channels, aux.channels, aux.num_classes) == (
                'FCNHead',
                2,
                512,
                256,
                150,
            )
            assert aux.loss_decode.loss_weight == 0.4


@pytest.mark.slow
@pytest.mark.parametrize(
    'base',
    [
        'mmdet::_base_/models/retinanet_r50_fpn.py',
        'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        'mmpretrain::regnet/regnetx-1.6gf_8xb128_in1k.py',
    ],
)
def test_bases_of_mm_libraries_are_the_files_that_mmengine_takes(base, monkeypatch):
    """They are taken without MMEngine's search, which reads all metafiles; and nothing else is."""
    pytest.importorskip(base.partition('::')[0])
    ours, usual = Config._get_cfg_path, Config._get_cfg_path.__wrapped__
    (path, scope), (path_of_mmengine, scope_of_mmengine) = ours(base, ''), usual(base, '')
    assert scope == scope_of_mmengine and Path(path).samefile(path_of_mmengine)  # a virtual environment may be a link
    errors = []
    for find in (ours, usual):
        with pytest.raises(FileNotFoundError) as error:
            find(base.replace('_', '_no_', 1), '')
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    monkeypatch.setattr('mmengine.config.config._get_external_cfg_path', None)  # what searches
    assert ours(base, '') == (path, scope)


def coco_dataset(cfg, digits):
    dataset = dict(
        cfg.train_dataloader.dataset, data_root=str(digits / 'coco'), metainfo=dict(classes=tuple('0123456789'))
    )
    init_default_scope('mmdet')
    return DATASETS.build(dataset)


@pytest.mark.slow
def test_multi_scale_training_of_3x(digits):
    """Pictures are square here, so the longer side never limits the resize."""
    paper, released = (
        coco_dataset(load_config(RECIPES[0].with_name(f'mask_rcnn_nextvit_s_3x{suffix}.py')), digits)
        for suffix in ('', '_released')
    )
    np.random.seed(0)
    shapes = [paper[i % len(paper)]['data_samples'].img_shape for i in range(40)]
    assert {h for h, w in shapes} == {w for h, w in shapes} <= set(range(480, 801, 32)) and len(set(shapes)) > 5
    shapes = [released[i % len(released)]['data_samples'].img_shape for i in range(40)]
    assert {min(shape) for shape in shapes} <= set(range(480, 801, 32))
    assert sum(h != w for h, w in shapes) in range(8, 33)  # the cropped half


def ade_dataset(cfg, digits, split, pipeline):
    folder = dict(train='training', val='validation')[split]
    init_default_scope('mmseg')
    return DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(digits / 'ade'),
            metainfo=dict(classes=tuple('b0123456789')),
            reduce_zero_label=True,
            data_prefix=dict(img_path=f'images/{folder}', seg_map_path=f'annotations/{folder}'),
            pipeline=pipeline,
        )
    )


def test_crops_of_512_and_the_scales_of_the_multi_scale_test(digits):
    cfg = load_config(RECIPES[-1].with_name('upernet_nextvit_s_160k.py'))
    dataset = ade_dataset(cfg, digits, 'train', cfg.train_pipeline)
    np.random.seed(0)
    sides = []
    for i in range(6):
        item = dataset[i]
        # A picture of 64×64 is resized to between 256 and 1024 and then cropped to 512; what is less is padded later.
        sides.append(max(item['inputs'].shape[1:]))
    assert max(sides) == 512
    plain = ade_dataset(cfg, digits, 'val', cfg.test_pipeline)[0]
    assert plain['inputs'].shape == (3, 512, 512) and plain['data_samples'].gt_sem_seg.data.shape[1:] == (64, 64)
    item = ade_dataset(cfg, digits, 'val', cfg.tta_pipeline)[0]
    sides = [int(512 * r) for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) for _ in range(2)]
    assert [tuple(x.shape[1:]) for x in item['inputs']] == [(side, side) for side in sides]
    for i in range(0, 12, 2):
        assert torch.equal(item['inputs'][i].flip(-1), item['inputs'][i + 1])
    # The dataset's labels count from the background on; 0 in the file is unlabelled.
    assert set(np.unique(item['data_samples'][0].gt_sem_seg.data)) <= {*range(11), 255}


def test_without_pretrained_weights_everything_trains():
    cfg = load_config(DETECTOR)
    train_from_scratch(cfg)
    model = without_values(*model_of(cfg)).train()
    assert all(p.requires_grad for p in model.backbone.parameters())
    assert model.backbone.stem[0].norm.training
