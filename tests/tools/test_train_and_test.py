"""tools/train.py and tools/test.py: train, die, resume, evaluate, draw; and what stops them.

On the digits the run that is killed and the test are processes of their own, as a user's; the others are calls.
"""

import json
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import traceback
from functools import partial

import pytest
import torch

from nextvit_mm.utils.logs import read_scalars

from ..conftest import DEMO, DETECTOR, ROOT, call_tool, hollow, published_names, shared, write_small
from ..weights.test_keys import official

RUN = 'import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name="__main__")'
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


def digits_case(digits, folder):
    # Single pictures: the second epoch must last until the kill arrives.
    return write_small(DEMO, folder), str(digits / 'coco'), [*TWO_EPOCHS, 'train_dataloader.batch_size=1']


def coco_case(folder):
    """The 1x config on real pictures, unchanged except for their size and the network's."""
    options = [o for loader, n in (('train', 4), ('val', 2), ('test', 2)) for o in small(loader, '(160,96)', n)]
    options.append('model.test_cfg.rcnn.score_thr=0.0')  # two epochs leave no score above the published 0.05
    return write_small(DETECTOR, folder), str(shared('data', 'coco_tiny')), TWO_EPOCHS + options


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


def kill_after_first_epoch(start, work_dir):
    """Start training, and kill -9 it when the first checkpoint is written."""
    with open(work_dir.parent / 'log', 'w') as log:
        process = start(log)
        try:
            deadline = time.monotonic() + 240
            while not (work_dir / 'last_checkpoint').is_file():
                assert process.is_alive() and time.monotonic() < deadline, (work_dir.parent / 'log').read_text()
                time.sleep(0.02)
        finally:
            process.kill()
            process.join()


class UsersProcess(subprocess.Popen):
    def is_alive(self):
        return self.poll() is None

    def join(self):
        self.wait()


def start_as_a_user(command, log):
    return UsersProcess([sys.executable, *map(str, command)], cwd=ROOT, stdout=log, stderr=log)


def start_as_a_fork(command, log):
    """The same in a process that has what this one has imported, which takes a user's the most time."""
    process = multiprocessing.get_context('fork').Process(target=call_into, args=(command, log))
    process.start()
    return process


def call_into(command, log):
    try:
        print(call_tool(*command, check=False), file=log, flush=True)
    except BaseException:
        traceback.print_exc(file=log)
        log.flush()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['digits', 'coco'])
def test_train_die_resume_evaluate_draw(name, digits, tmp_path, run_fresh):
    case = digits_case(digits, tmp_path) if name == 'digits' else coco_case(tmp_path)
    work_dir, whole = tmp_path / 'killed', tmp_path / 'whole'
    call_tool(*train_command(case, whole))
    start = start_as_a_user if name == 'digits' else start_as_a_fork
    kill_after_first_epoch(lambda log: start(train_command(case, work_dir), log), work_dir)
    assert not (work_dir / 'epoch_2.pth').exists()
    resumed = call_tool(*train_command(case, work_dir, '--resume'))
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
    test = partial(run_fresh, RUN, PYTHONPATH=str(ROOT)) if name == 'digits' else call_tool
    test(
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


@pytest.mark.slow
def test_without_data_one_message_says_what_is_missing(tmp_path):
    result = call_tool(TRAIN, DETECTOR, cwd=tmp_path, check=False)
    assert result.returncode == 2
    for wrong in (['--cfg-options', 'batch'], ['--cfg-options', 'model=3']):
        assert call_tool(TRAIN, DETECTOR, *wrong, cwd=tmp_path, check=False).returncode == 2
    assert 'Traceback' not in result.stderr and 'annotations/instances_train2017.json' in result.stderr
    assert '--data-root' in result.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_missing_or_dangerous_checkpoints_stop_before_or_without_running(digits, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/exploded',)

    config = write_small(DEMO, tmp_path)
    common = ['--data-root', digits / 'coco', '--work-dir', tmp_path / 'w']
    gone = call_tool(TEST, config, tmp_path / 'gone.pth', *common, check=False)
    assert gone.returncode == 2 and 'checkpoint not found' in gone.stderr and not (tmp_path / 'w').exists()
    torch.save(dict(state_dict={'layer.weight': torch.ones(2)}), tmp_path / 'other.pth')
    other = call_tool(TEST, config, tmp_path / 'other.pth', *common, check=False)
    assert other.returncode == 2 and 'other.pth does not fit the model' in other.stderr, other.stderr
    weights_only = call_tool(TRAIN, config, '--resume', tmp_path / 'other.pth', *common, check=False)
    assert weights_only.returncode == 2 and 'holds no meta and no optimizer' in weights_only.stderr
    torch.save(dict(state_dict={}, meta=dict(bomb=Bomb())), tmp_path / 'bomb.pth')
    for command in ([TEST, config, tmp_path / 'bomb.pth'], [TRAIN, config, '--resume', tmp_path / 'bomb.pth']):
        refused = call_tool(*command, *common, check=False)
        assert refused.returncode == 2 and 'system, which is refused' in refused.stderr, refused.stderr
        assert 'Traceback' not in refused.stderr
    assert not (tmp_path / 'exploded').exists()


def test_published_weights_out_of_reach_stop_training(digits, tmp_path):
    result = call_tool(
        TRAIN,
        DETECTOR,
        '--data-root',
        digits / 'coco',
        '--own-classes',
        '--work-dir',
        tmp_path,
        check=False,
        NEXTVIT_MM_WEIGHTS=str(tmp_path),
    )
    assert result.returncode == 2 and 'holds no nextvit-small_in1k' in result.stderr
    result = call_tool(
        TRAIN,
        DETECTOR,
        '--data-root',
        digits / 'coco',
        '--own-classes',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        f'model.backbone.init_cfg.checkpoint={tmp_path}/gone.pth',
        check=False,
    )
    assert result.returncode == 2 and 'checkpoint not found' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['data']  # the names of the classes; no run was begun


RECIPE = ROOT / 'configs' / 'segmentation' / 'semantic_fpn_nextvit_s_80k.py'


@pytest.mark.slow
@pytest.mark.parametrize('fits', [True, False])
def test_load_from_takes_the_whole_backbone_or_stops(fits, digits, tmp_path):
    torch.save(dict(model=official('small') if fits else hollow(official('base', device='meta'))), tmp_path / 'x.pth')
    options = [*TWO_EPOCHS, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', f'load_from={tmp_path / "x.pth"}']
    options += ['train_dataloader.dataset.indices=2', 'val_dataloader.dataset.indices=1']
    # With --resume too, as in a job that may be started again: there is nothing to resume yet.
    result = call_tool(
        TRAIN,
        write_small(DEMO, tmp_path, backbone=False),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    'spoil, words',
    [
        (lambda s: published_names('base'), 'The file is of Next-ViT base in mm names; the model is Next-ViT small'),
        (
            lambda s: {**{k: v for k, v in s.items() if '.norm.' not in k}, 'stem.0.conv.bias': torch.rand(64)},
            'folded into the convolutions',
        ),
        (lambda s: {'layer1.0.conv1.weight': torch.rand(3)}, "names that are not Next-ViT's"),
    ],
)
def test_training_does_not_start_from_what_does_not_fit(spoil, words, digits, tmp_path):
    pytest.importorskip('mmseg')
    torch.save(dict(state_dict=spoil(published_names('small'))), tmp_path / 'x.pth')
    result = call_tool(
        TRAIN,
        write_small(RECIPE, tmp_path, backbone=False),
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
