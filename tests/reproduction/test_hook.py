"""The hook in real MMEngine runs of a toy model."""

import dataclasses
import json
import multiprocessing
import os
import re
import socket
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner

from nextvit_mm.errors import UserError
from nextvit_mm.published import PublishedRun
from nextvit_mm.reproduction import hook as hook_module
from nextvit_mm.utils.logs import read_scalars

LR = 0.01


class SmallRun(PublishedRun):
    window = 5


def small_run(loss=1.0, miou=50.0, lr=LR) -> PublishedRun:
    """40 iterations of 4 images, evaluated every 10."""
    return SmallRun(
        'small',
        40,
        'iters',
        4,
        100,
        train=[dict(iter=i, lr=lr, loss=loss, **{'decode.loss_ce': loss / 2}) for i in range(5, 41, 5)],
        val=[dict(iter=i, mIoU=miou) for i in range(10, 41, 10)],
    )


class Toy(BaseModel):
    """Its loss is 1 whatever it learns."""

    def __init__(self, **kwargs):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode='tensor'):
        if mode == 'loss':
            return dict(loss=1 + 0 * self.weight.sum(), other=torch.ones(1))
        return [inputs]


class Miou(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(mIoU=50.0)


def build_runner(
    work_dir,
    batch_size=4,
    max_iters=40,
    images=100,
    pretrained=True,
    interval=10,
    checkpoint='x',
    model=None,
    epochs=None,
    **kwargs,
):
    data = [torch.zeros(1) for _ in range(images)]
    init_cfg = dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint)) if pretrained else {}
    runner = Runner(
        model or Toy(),
        str(work_dir),
        train_dataloader=dict(
            dataset=data,
            batch_size=batch_size,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler' if epochs else 'InfiniteSampler'),
        ),
        val_dataloader=dict(
            dataset=data[:4],
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        val_evaluator=[Miou()],
        val_cfg=dict(),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=epochs)
        if epochs
        else dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters // 4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=LR)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=interval, log_metric_by_epoch=bool(epochs)),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=20),
        ),
        log_processor=dict(by_epoch=bool(epochs)),
        custom_hooks=[dict(type='PublishedRunHook', run='small')],
        cfg=dict(model=dict(backbone=init_cfg)),
        experiment_name=uuid.uuid4().hex,
        **kwargs,
    )  # else MMEngine reuses the logger of the last test
    # data_preprocessor casts; the toy takes the batch as it is
    runner.model.data_preprocessor.forward = lambda data, training=False: dict(inputs=data)
    return runner


@pytest.fixture
def train(tmp_path, monkeypatch):

    def _train(run=None, **kwargs):
        run = run or small_run()
        monkeypatch.setattr(hook_module, 'load_run', lambda name: run)
        runner = build_runner(tmp_path / 'work', **kwargs)
        before = {path: len(path.read_text()) for path in tmp_path.rglob('*.log')}  # runs of one second share a file
        runner.train()
        return runner, ''.join(path.read_text()[before.get(path, 0) :] for path in tmp_path.rglob('*.log'))

    return _train


def scalars(runner):
    return [
        json.loads(line)
        for path in sorted(Path(runner.work_dir).glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]


def test_published_values_stand_beside_the_users(train):
    runner, log = train(small_run(loss=1.02, miou=49.0))
    assert 'compared with the published run small' in log
    assert len(re.findall(r'Iter\(train\).*published/loss: 1\.0200 +published/loss_difference: -0\.0200', log)) == 4
    assert len(re.findall('mean over 5 iterations', log)) == 8
    assert len(re.findall(r'mIoU +50 \| +49 \| +\+1', log)) == 4
    assert 'left the published run' not in log
    records = scalars(runner)
    assert sum('published/mean/loss_difference' in r for r in records) == 8
    assert [r['published/evaluation/mIoU_difference'] for r in records if 'published/evaluation/mIoU' in r] == [1.0] * 4
    train_records, val = read_scalars(runner.work_dir)
    assert len(train_records) == 4 and not any(k.startswith('published') for r in train_records for k in r)
    assert [r['mIoU'] for r in val] == [50.0] * 4
    assert json.loads(Path(runner.work_dir, 'published_run.json').read_text())['scale'] == 1.0


def test_the_rate_is_compared_too(train):
    assert 'learning rate is 1.000e-02' in train(small_run(lr=0.02))[1]


@pytest.mark.parametrize(
    'run, words', [(small_run(loss=1.2), 'the loss is 1.0000'), (small_run(miou=53), 'mIoU is 50')]
)
def test_leaving_the_band_is_said_once(train, run, words):
    log = train(run)[1]
    assert log.count('left the published run') == 1 and words in log


def windows_outside(*outside) -> PublishedRun:
    """Eight windows of five iterations; the loss of those with these numbers, from 1 on, is 20 % off."""
    run = small_run()
    for number in outside:
        run.train[number - 1]['loss'] = 1.2
    return run


def test_the_loss_has_left_the_band_at_the_second_window_in_a_row(train):
    before, after = train(windows_outside(3, 4, 5))[1].split('left the published run')
    assert re.findall(r'iteration (\d+), mean', before)[-1] == '20'
    assert re.findall(r'iteration (\d+), mean', after)[0] == '25'


def test_single_windows_outside_are_scatter(train):
    assert 'left the published run' not in train(windows_outside(1, 3, 6, 8))[1]


def test_a_smaller_batch_is_laid_over_a_longer_axis(train):
    runner, log = train(small_run(loss=1.02), batch_size=2, max_iters=80)
    assert 'i / 2' in log and len(re.findall('mean over 10 iterations', log)) == 8
    assert len(re.findall('iteration 20, evaluation', log)) == 1


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(max_iters=20), '20 × 4 = 80 images'),
        (dict(images=50), '50 images'),
        (dict(pretrained=False), 'random weights'),
        (dict(batch_size=8), '40 × 8'),
    ],
)
def test_off_with_the_reason(train, kwargs, words):
    runner, log = train(**kwargs)
    assert 'not compared with the published run small' in log and words in log
    assert 'published/loss' not in log and 'left the' not in log


def test_resuming_goes_on_where_it_was(train, tmp_path):
    """Means over windows that began before the interruption are whole: the log's history is in the checkpoint."""
    train(small_run(loss=1.02))
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(tmp_path / 'work' / 'iter_20.pth'))
    _, log = train(small_run(loss=1.02), resume=True, interval=3)
    assert 'iteration 25, mean over 5 iterations' in log and 'iteration 20, mean' not in log
    assert len(re.findall('mean over 5 iterations', log)) == 4


def test_a_resumed_run_from_scratch_stays_off(train, tmp_path):
    train(pretrained=False)
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(tmp_path / 'work' / 'iter_20.pth'))
    assert 'random weights' in train(pretrained=False, resume=True)[1]


def test_an_unknown_run_is_refused():
    with pytest.raises(UserError, match='mask_rcnn_1x_nextvit_small'):
        hook_module.PublishedRunHook('mask_rcnn')


def test_other_weights_than_the_published_ones(train):
    log = train(run=small_run(), checkpoint='nextvit-small_6m')[1]
    assert 'starts from nextvit-small_6m, the published one from in1k' in log and 'not compared' in log


def test_a_warning_is_not_repeated_after_a_resume(train, tmp_path):
    assert 'mIoU is 50' in train(small_run(miou=53))[1]
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(tmp_path / 'work' / 'iter_20.pth'))
    assert 'left the published run' not in train(small_run(miou=53), resume=True)[1]


def test_epochs(train):
    """Ten iterations an epoch, as published; evaluations are found at the ends of epochs, in the report too."""
    run = dataclasses.replace(small_run(loss=1.02, miou=49.0), length=4, unit='epochs', train_images=40)
    runner, log = train(run, images=40, epochs=4)
    assert len(re.findall('mean over 5 iterations', log)) == 8 and len(re.findall(', evaluation,', log)) == 4
    assert 'left the published run' not in log


def test_epochs_of_half_the_batch(train):
    run = dataclasses.replace(small_run(loss=1.02, miou=49.0), length=4, unit='epochs', train_images=40)
    log = train(run, images=40, epochs=4, batch_size=2)[1]
    assert 'i / 2' in log and len(re.findall('mean over 10 iterations', log)) == 8
    assert re.findall(r'iteration (\d+), evaluation', log) == ['20', '40', '60', '80']


class Ranked(Toy):
    """Its loss is 1 in the first process, and 2 in the second."""

    def forward(self, inputs, mode='tensor'):
        out = super().forward(inputs, mode)
        return {'loss': out['loss'] + torch.distributed.get_rank()} if mode == 'loss' else out


def one_of_two(rank, work_dir, port):
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    torch.distributed.init_process_group('gloo')
    hook_module.load_run = lambda name: small_run(loss=1.52)
    if rank:  # another machine, whose work dir says something else
        work_dir += '_other'
        hook_module._start_problem = lambda runner, run: 'another start'
    build_runner(work_dir, batch_size=2, model=Ranked()).train()


@pytest.mark.slow
def test_means_are_over_all_processes(tmp_path):
    """Losses of 1 and 2, published 1.52: in two processes of two images each, a batch of four.

    The first process decides that they are compared; the other would not by itself.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    start = multiprocessing.get_context('fork').Process
    both = [start(target=one_of_two, args=(rank, str(tmp_path / 'work'), port)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        process.kill()
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    log = next((tmp_path / 'work').rglob('*.log')).read_text()
    assert len(re.findall(r'loss +1\.5 \| +1\.52 \| +-0\.02', log)) == 8
    assert 'left the published run' not in log
