"""tools/train.py and tools/test.py as a user runs them: train, die, resume, evaluate, draw."""

import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch

from nextvit_mm import NextViT
from nextvit_mm.utils.logs import read_scalars

from ..conftest import DEMO, DETECTOR, ROOT, randomise, run_tool, shared
from ..weights.test_keys import official

TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'
TWO_EPOCHS = [
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'default_hooks.logger.interval=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
]


def small(loader, size, pictures):
    """The config's pipeline at a fraction of its size, on a few pictures."""
    resize = 2 if loader == 'train' else 1
    return [
        f'{loader}_dataloader.dataset.pipeline.{resize}.scale={size}',
        f'{loader}_dataloader.dataset.indices={pictures}',
    ]


def digits_case(folder):
    return DEMO, str(folder / 'coco'), TWO_EPOCHS


def coco_case():
    """The unchanged 1x config on real pictures, except for their size."""
    options = [o for loader, n in (('train', 4), ('val', 2), ('test', 2)) for o in small(loader, '(160,96)', n)]
    options.append('model.test_cfg.rcnn.score_thr=0.0')  # two epochs leave no score above the published 0.05
    return DETECTOR, str(shared('data', 'coco_tiny')), TWO_EPOCHS + options


def train_command(case, work_dir, *flags):
    config, data_root, options = case
    return [
        TRAIN,
        config,
        '--data-root',
        data_root,
        '--work-dir',
        work_dir,
        '--no-pretrained',
        '--seed',
        1,
        *flags,
        '--cfg-options',
        *options,
    ]


def kill_after_first_epoch(command, work_dir):
    """Start training, and kill -9 it when the first checkpoint is written."""
    with open(work_dir.parent / 'log', 'w') as log:
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 240
            while not (work_dir / 'last_checkpoint').is_file():
                assert process.poll() is None and time.monotonic() < deadline, (work_dir.parent / 'log').read_text()
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize('name', ['digits', 'coco'])
def test_train_die_resume_evaluate_draw(name, digits, tmp_path):
    case = digits_case(digits) if name == 'digits' else coco_case()
    work_dir, whole = tmp_path / 'killed', tmp_path / 'whole'
    run_tool(*train_command(case, whole))
    kill_after_first_epoch(train_command(case, work_dir), work_dir)
    resumed = run_tool(*train_command(case, work_dir, '--resume'))
    assert f'weights   resumed from {work_dir / "epoch_1.pth"}, epoch 1' in resumed.stdout

    expected, actual = (read_scalars(folder)[0] for folder in (whole, work_dir))
    first = expected[0]['iter']
    assert [r['iter'] for r in actual] == [r['iter'] for r in expected] and first == 1
    assert [r['lr'] for r in actual] == pytest.approx([r['lr'] for r in expected])
    assert all(math.isfinite(r['loss']) for r in actual)
    # Weights and optimizer came back: BN has counted as many batches, and every parameter has had as many steps.
    whole, resumed = (torch.load(f / 'epoch_2.pth', weights_only=True) for f in (whole, work_dir))
    counts = [{k: v for k, v in c['state_dict'].items() if 'num_batches' in k} for c in (whole, resumed)]
    assert counts[0] == counts[1] and set(map(int, counts[0].values())) == {len(expected)}
    steps = [{int(s['step']) for s in c['optimizer']['state'].values()} for c in (whole, resumed)]
    assert steps[0] == steps[1]

    config, data_root, options = case
    run_tool(
        TEST,
        config,
        work_dir / 'epoch_2.pth',
        '--data-root',
        data_root,
        '--work-dir',
        tmp_path / 'test',
        '--show-dir',
        tmp_path / 'pictures',
        '--out',
        tmp_path / 'out.pkl',
        '--cfg-options',
        *options,
    )
    metrics = json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text())
    trained = read_scalars(work_dir)[1][-1]
    for metric in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert metrics[metric] == trained[metric]  # what training's own evaluation said
    predictions = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert len(predictions) == len(list((tmp_path / 'pictures').glob('*.jpg'))) == (4 if name == 'digits' else 2)
    assert {'bboxes', 'scores', 'labels', 'masks'} <= predictions[0]['pred_instances'].keys()


def test_without_data_one_message_says_what_is_missing(tmp_path):
    result = run_tool(TRAIN, DETECTOR, cwd=tmp_path, check=False)
    assert result.returncode == 2
    for wrong in (['--cfg-options', 'batch'], ['--cfg-options', 'model=3']):
        assert run_tool(TRAIN, DETECTOR, *wrong, cwd=tmp_path, check=False).returncode == 2
    assert 'Traceback' not in result.stderr and 'annotations/instances_train2017.json' in result.stderr
    assert '--data-root' in result.stderr and list(tmp_path.iterdir()) == []


def test_missing_or_dangerous_checkpoints_stop_before_or_without_running(digits, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/exploded',)

    common = ['--data-root', digits / 'coco', '--work-dir', tmp_path / 'w']
    gone = run_tool(TEST, DEMO, tmp_path / 'gone.pth', *common, check=False)
    assert gone.returncode == 2 and 'checkpoint not found' in gone.stderr and not (tmp_path / 'w').exists()
    torch.save(dict(state_dict={'layer.weight': torch.ones(2)}), tmp_path / 'other.pth')
    other = run_tool(TEST, DEMO, tmp_path / 'other.pth', *common, check=False)
    assert other.returncode == 2 and 'other.pth does not fit the model' in other.stderr, other.stderr
    weights_only = run_tool(TRAIN, DEMO, '--resume', tmp_path / 'other.pth', *common, check=False)
    assert weights_only.returncode == 2 and 'holds no meta and no optimizer' in weights_only.stderr
    torch.save(dict(state_dict={}, meta=dict(bomb=Bomb())), tmp_path / 'bomb.pth')
    for command in ([TEST, DEMO, tmp_path / 'bomb.pth'], [TRAIN, DEMO, '--resume', tmp_path / 'bomb.pth']):
        refused = run_tool(*command, *common, check=False)
        assert refused.returncode == 2 and 'system, which is refused' in refused.stderr, refused.stderr
        assert 'Traceback' not in refused.stderr
    assert not (tmp_path / 'exploded').exists()


def test_published_weights_out_of_reach_stop_training(digits, tmp_path):
    result = run_tool(
        TRAIN,
        DETECTOR,
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path,
        check=False,
        NEXTVIT_MM_WEIGHTS=str(tmp_path),
    )
    assert result.returncode == 2 and 'holds no nextvit-small_in1k' in result.stderr
    result = run_tool(
        TRAIN,
        DETECTOR,
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        f'model.backbone.init_cfg.checkpoint={tmp_path}/gone.pth',
        check=False,
    )
    assert result.returncode == 2 and 'checkpoint not found' in result.stderr
    assert list(tmp_path.iterdir()) == []  # before anything was built


SEGMENTOR = """
_base_ = ['mmseg::_base_/models/fpn_r50.py', 'mmseg::_base_/datasets/ade20k.py', 'mmseg::_base_/default_runtime.py']
custom_imports = dict(imports=['nextvit_mm'])
crop_size = (64, 64)
model = dict(
    data_preprocessor=dict(size=crop_size), pretrained=None,
    backbone=dict(_delete_=True, type='NextViT', arch='small', out_norm='all', norm_cfg=dict(type='SyncBN')),
    neck=dict(in_channels=[96, 256, 512, 1024]), decode_head=dict(num_classes=150))
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False)  # crops differ in size
val_dataloader = dict(num_workers=0, persistent_workers=False)
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


@pytest.mark.parametrize(
    'kind, text, metric', [('segmentor', SEGMENTOR, 'mIoU'), ('classifier', CLASSIFIER, 'accuracy/top1')]
)
def test_the_same_tools_train_and_test_segmentors_and_classifiers(kind, text, metric, digits, tmp_path):
    config = tmp_path / f'{kind}.py'
    config.write_text(text)
    data_root = digits / 'ade'
    if kind == 'classifier':
        data_root = tmp_path / 'images'
        for i, file in enumerate(sorted((digits / 'coco' / 'train2017').glob('*.jpg'))[:4]):
            target = Path(data_root, 'train', f'class{i % 2}', file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    work_dir = tmp_path / 'w'
    run_tool(TRAIN, config, '--data-root', data_root, '--work-dir', work_dir)
    checkpoint = next(work_dir.glob('*_1.pth'))
    run_tool(
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


@pytest.mark.parametrize(
    'script, arguments, usage',
    [
        ('dist_train.sh', [DETECTOR, '1'], 'CONFIG GPUS'),
        ('dist_test.sh', [DETECTOR, 'gone.pth', '1'], 'CONFIG CHECKPOINT GPUS'),
    ],
)
def test_torchrun_scripts_hand_everything_to_the_tool(script, arguments, usage, tmp_path):
    """Without a GPU no process group comes up; the arguments arrive and are checked before one is asked for."""
    command = ['bash', str(ROOT / 'tools' / script)]
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': port}
    bare = subprocess.run(command, capture_output=True, text=True)
    assert bare.returncode == 2 and usage in bare.stderr
    result = subprocess.run(
        [*command, *arguments, '--data-root', 'not here'], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert result.returncode != 0 and 'not here' in result.stderr and 'MISSING' in result.stderr


@pytest.mark.parametrize(
    'script, tool, third',
    [('slurm_train.sh', 'train.py', '--work-dir'), ('slurm_test.sh', 'test.py', 'checkpoint.pth')],
)
def test_slurm_scripts_hand_everything_to_the_tool(script, tool, third, tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    srun.chmod(0o755)
    command = ['bash', str(ROOT / 'tools' / script), 'gpu', 'job', 'config.py', 'checkpoint.pth', '--amp']
    result = subprocess.run(
        command,
        env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '16'},
        capture_output=True,
        text=True,
        check=True,
    )
    arguments = result.stdout.split('\n')
    assert {'--partition=gpu', '--job-name=job', '--ntasks=16', '--gres=gpu:8', '--amp'} <= set(arguments)
    at = next(i for i, a in enumerate(arguments) if a.endswith('tools/' + tool))
    assert arguments[at + 1 : at + 3] == ['config.py', third]


RECIPE = ROOT / 'configs' / 'segmentation' / 'semantic_fpn_nextvit_s_80k.py'


@pytest.mark.parametrize('data', ['digits', 'ade_tiny'])
def test_a_published_segmentor_trains_and_tests_with_several_scales(data, digits, tmp_path):
    """The recipe as it is, for one iteration: crops of 512×512, tests at 2048×512, then at six sizes, flipped too."""
    pytest.importorskip('mmseg')
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
    flags = ['--data-root', root, '--work-dir', tmp_path, '--cfg-options', *options]
    log = run_tool(TRAIN, RECIPE, '--no-pretrained', '--seed', 1, *flags)
    assert 'not compared with the published run fpn_80k_nextvit_small' in log.stdout + log.stderr
    run_tool(TEST, RECIPE, tmp_path / 'iter_1.pth', *flags)
    run_tool(TEST, RECIPE, tmp_path / 'iter_1.pth', '--tta', '--show-dir', tmp_path / 'show', *flags)
    plain, scales = [json.loads(path.read_text()) for path in sorted(tmp_path.glob('*/*.json'))]
    assert 0 <= plain['mIoU'] <= 100 and 0 <= scales['ms/mIoU'] <= 100 and 'mIoU' not in scales
    assert len(list((tmp_path / 'show').rglob('*.png'))) == 1


@pytest.mark.parametrize('form', ['detector', 'segmentor'])
def test_an_official_file_predicts_what_its_weights_do(form, digits, tmp_path):
    """A checkpoint as mmdet 2 or mmseg 0.x wrote it for the authors: their names, and what they carried unused."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    pytest.importorskip('mmseg')
    config = DEMO if form == 'detector' else str(ROOT / 'configs' / 'demo' / 'semantic_fpn_nextvit_s_digits.py')
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    others = {k: v for k, v in randomise(MODELS.build(cfg.model)).state_dict().items() if not k.startswith('backbone.')}
    theirs = official('small', form)
    # timm's names are this project's, but for the norms; these values are the ones that `theirs` holds.
    native = {
        k: v
        for k, v in randomise(timm.create_model('nextvit_small')).state_dict().items()
        if not k.startswith(('norm.', 'head.'))
    }
    if form == 'segmentor':
        native.update(
            {
                f'norm{k[len("extra_norm_list.")]}.{k.split(".")[-1]}': v
                for k, v in theirs.items()
                if k.startswith('extra_norm_list.') and not k.startswith('extra_norm_list.3')
            }
        )
        native.update({f'norm3.{k.split(".")[-1]}': v for k, v in theirs.items() if k.startswith('norm.')})
    meta = dict(mmdet_version='2.23.0', CLASSES=tuple('0123456789'), epoch=12, iter=87960, hook_msgs={}, config='x = 1')
    predictions = []
    for name, backbone, rest in (
        ('native', native, {}),
        ('official', theirs, dict(meta=meta, optimizer=dict(state={}, param_groups=[]))),
    ):
        state_dict = {**{f'backbone.{k}': v for k, v in backbone.items()}, **others}
        torch.save(dict(state_dict=state_dict, **rest), tmp_path / f'{name}.pth')
        options = ['model.test_cfg.rcnn.score_thr=0.0'] if form == 'detector' else ['model.test_cfg.mode=whole']
        log = run_tool(
            TEST,
            config,
            tmp_path / f'{name}.pth',
            '--data-root',
            digits / ('coco' if form == 'detector' else 'ade'),
            '--work-dir',
            tmp_path / name,
            '--out',
            tmp_path / f'{name}.pkl',
            '--cfg-options',
            *options,
        )
        predictions.append(pickle.loads((tmp_path / f'{name}.pkl').read_bytes()))
    unused = 'norm3, head' if form == 'detector' else 'head, extra_norm_list'
    assert f'unused and left out: {unused}' in log.stdout + log.stderr
    assert len(predictions[0]) == 4
    assert form == 'segmentor' or sum(len(p['pred_instances']['scores']) for p in predictions[0]) > 0
    for ours, theirs in zip(*predictions):
        if form == 'segmentor':
            assert torch.equal(ours['pred_sem_seg']['data'], theirs['pred_sem_seg']['data'])
            assert torch.equal(ours['seg_logits']['data'], theirs['seg_logits']['data'])
            continue
        for key in ('bboxes', 'scores', 'labels'):
            assert torch.equal(ours['pred_instances'][key], theirs['pred_instances'][key])
        assert ours['pred_instances']['masks'] == theirs['pred_instances']['masks']


@pytest.mark.parametrize('fits', [True, False])
def test_load_from_takes_the_whole_backbone_or_stops(fits, digits, tmp_path):
    torch.save(dict(model=official('small' if fits else 'base', 'classifier')), tmp_path / 'x.pth')
    options = [*TWO_EPOCHS, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', f'load_from={tmp_path / "x.pth"}']
    # With --resume too, as in a job that may be started again: there is nothing to resume yet.
    result = run_tool(
        TRAIN,
        DEMO,
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path / 'run',
        '--resume',
        '--cfg-options',
        *options,
        check=False,
    )
    assert 'nothing to resume' in result.stdout + result.stderr
    if fits:
        assert result.returncode == 0, result.stderr
        assert '0 missing in the file' in result.stdout + result.stderr
    else:
        assert result.returncode == 2 and 'The file is of Next-ViT base in official names' in result.stderr
        assert 'Traceback' not in result.stderr and 'iteration 1/' not in result.stdout


@pytest.mark.parametrize(
    'spoil, words',
    [
        (
            lambda s: NextViT('base').state_dict(),
            'The file is of Next-ViT base in mm names; the model is Next-ViT small',
        ),
        (
            lambda s: {**{k: v for k, v in s.items() if '.norm.' not in k}, 'stem.0.conv.bias': torch.rand(64)},
            'folded into the convolutions',
        ),
        (lambda s: {'layer1.0.conv1.weight': torch.rand(3)}, "names that are not Next-ViT's"),
    ],
)
def test_training_does_not_start_from_what_does_not_fit(spoil, words, digits, tmp_path):
    pytest.importorskip('mmseg')
    torch.save(dict(state_dict=spoil(NextViT('small').state_dict())), tmp_path / 'x.pth')
    result = run_tool(
        TRAIN,
        RECIPE,
        '--data-root',
        digits / 'ade',
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        f'model.backbone.init_cfg.checkpoint={tmp_path / "x.pth"}',
        check=False,
    )
    assert result.returncode == 2 and words in result.stderr and 'Traceback' not in result.stderr
    assert 'x.pth does not fit the backbone, and nothing was loaded' in result.stderr
    assert 'iteration 1' not in result.stdout and not list(tmp_path.glob('run/*.pth'))
