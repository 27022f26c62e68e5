"""tools/train.py and tools/test.py on segmentors and classifiers, and on a published recipe with a small network."""

import json
import pickle
from pathlib import Path

import pytest

from ..conftest import ROOT, call_tool, shared, write_small

TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'
RECIPE = ROOT / 'configs' / 'segmentation' / 'semantic_fpn_nextvit_s_80k.py'

SEGMENTOR = """
_base_ = ['mmseg::_base_/models/fpn_r50.py', 'mmseg::_base_/datasets/ade20k.py', 'mmseg::_base_/default_runtime.py']
custom_imports = dict(imports=['nextvit_mm'])
crop_size = (64, 64)
model = dict(
    data_preprocessor=dict(size=crop_size), pretrained=None,
    backbone=dict(_delete_=True, type='NextViT', arch='small', out_norm='all', norm_cfg=dict(type='SyncBN')),
    neck=dict(in_channels=[96, 256, 512, 1024]), decode_head=dict(num_classes=150))
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False)  # crops differ in size
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=crop_size, keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True), dict(type='PackSegInputs')]
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
                     logger=dict(type='LoggerHook', interval=1), visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=False)
"""

CLASSIFIER = """
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(imports=['nextvit_mm'])
model = dict(
    type='ImageClassifier', data_preprocessor=dict(num_classes=2, to_rgb=True),
    backbone=dict(type='NextViT', arch='small', out_indices=(3, ), out_norm='last'),
    neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=2, in_channels=1024))
loader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='nowhere', data_prefix='train', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')]))
train_dataloader = loader
val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1, ))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, text, metric', [('segmentor', SEGMENTOR, 'mIoU'), ('classifier', CLASSIFIER, 'accuracy/top1')]
)
def test_the_same_tools_train_and_test_segmentors_and_classifiers(kind, text, metric, digits, tmp_path):
    (tmp_path / f'{kind}.py').write_text(text)
    (tmp_path / 'small').mkdir()
    config = write_small(tmp_path / f'{kind}.py', tmp_path / 'small')
    data_root = digits / 'ade'
    if kind == 'classifier':
        data_root = tmp_path / 'images'
        for i, file in enumerate(sorted((digits / 'coco' / 'train2017').glob('*.jpg'))[:4]):
            target = Path(data_root, 'train', f'class{i % 2}', file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    work_dir = tmp_path / 'w'
    call_tool(TRAIN, config, '--data-root', data_root, '--work-dir', work_dir)
    checkpoint = next(work_dir.glob('*_1.pth'))
    call_tool(
        TEST,
        config,
        checkpoint,
        '--data-root',
        data_root,
        '--work-dir',
        tmp_path / 't',
        '--show-dir',
        tmp_path / 'pictures',
        '--out',
        tmp_path / 'out.pkl',
    )
    assert metric in json.loads(next((tmp_path / 't').glob('*/*.json')).read_text())
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == 4
    assert len([p for p in (tmp_path / 'pictures').rglob('*') if p.suffix in ('.jpg', '.png')]) == 4


@pytest.mark.slow
@pytest.mark.parametrize('data', ['digits', 'ade_tiny'])
def test_a_published_segmentor_trains_and_tests_with_several_scales(data, digits, tmp_path):
    """The recipe's data as they are: crops of 512×512, tests at 2048×512.

    Then at six sizes, flipped too, each an eighth of the recipe's. Of pictures of ADE20K all sizes are an eighth: they
    are here for their labels.
    """
    pytest.importorskip('mmseg')
    recipe = write_small(RECIPE, tmp_path)
    root = digits / 'ade' if data == 'digits' else shared('data', 'ade_tiny')
    options = [
        'train_cfg.max_iters=1',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.logger.interval=1',
    ]
    options += [
        f'{loader}_dataloader.{key}'
        for loader in ('train', 'val', 'test')
        for key in ('num_workers=0', 'persistent_workers=False')
    ]
    if data == 'digits':
        options.append('test_dataloader.dataset.indices=1')
    else:
        options += ['model.data_preprocessor.size=(64,64)', 'train_dataloader.dataset.pipeline.3.crop_size=(64,64)']
        options += [f'{name}_dataloader.dataset.pipeline.{i}.scale=(256,64)' for name, i in (('train', 2), ('test', 1))]
    options += [f'tta_pipeline.1.transforms.0.{i}.scale=({64 * i + 128},{16 * i + 32})' for i in range(6)]
    flags = ['--data-root', root, '--cfg-options', *options]
    work_dirs = [['--work-dir', tmp_path / name] for name in ('trained', 'plain', 'scales')]
    checkpoint = tmp_path / 'trained' / 'iter_1.pth'
    log = call_tool(TRAIN, recipe, '--no-pretrained', '--seed', 1, *work_dirs[0], *flags)
    assert 'not compared with the published run fpn_80k_nextvit_small' in log.stdout + log.stderr
    call_tool(TEST, recipe, checkpoint, *work_dirs[1], *flags)
    call_tool(TEST, recipe, checkpoint, '--tta', '--show-dir', tmp_path / 'show', *work_dirs[2], *flags)
    (plain,), (scales,) = (
        [json.loads(path.read_text()) for path in tmp_path.glob(f'{name}/*/*.json')] for name in ('plain', 'scales')
    )
    assert 0 <= plain['mIoU'] <= 100 and 0 <= scales['ms/mIoU'] <= 100 and 'mIoU' not in scales
    assert len(list((tmp_path / 'show').rglob('*.png'))) == 1
