"""Checkpoints are whole or not there: kills at any moment, full disks, better checkpoints, left-over files."""

import errno
import os
import random
import re
import shutil
import signal
import time
from collections import deque
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend

from nextvit_mm.errors import UserError
from nextvit_mm.training import saving
from nextvit_mm.training.run import clear_errors

from .runs import ITERATIONS, run, run_apart, same, write_config

pytest.importorskip('mmpretrain')
EVERY = {**ITERATIONS, 'default_hooks': dict(checkpoint=dict(by_epoch=False, interval=1))}


def slow_down(monkeypatch, seconds: float) -> None:
    """Have the moment between writing a checkpoint and naming it last."""
    flush = saving.flush

    def slow(path):
        time.sleep(seconds * path.name.endswith('.pth.part'))
        flush(path)

    monkeypatch.setattr(saving, 'flush', slow)


def wait_for(condition, process, seconds=60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if not process.is_alive():
            return False
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return True


@pytest.mark.slow
def test_killed_runs_go_on_and_end_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch):
    config, rng = write_config(tmp_path, **EVERY), random.Random(0)
    run(config, tmp_path / 'whole')
    slow_down(monkeypatch, 0.1)
    work_dir, killed = tmp_path / 'killed', []
    for writing in (True, False, True):
        process = run_apart(config, work_dir, resume='auto')
        pointer, before = work_dir / 'last_checkpoint', killed[-1] if killed else ''
        assert wait_for(lambda: pointer.is_file() and pointer.read_text() != before, process)  # noqa: B023
        if writing:
            assert wait_for(lambda: any(work_dir.glob('.iter_*.part')), process)
        else:
            time.sleep(rng.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed.append(pointer.read_text())
        assert Path(killed[-1]).is_file() and torch.load(killed[-1], weights_only=False)['meta']['iter']
    process = run_apart(config, work_dir, resume='auto')
    process.join()
    assert process.exitcode == 0, (tmp_path / 'killed.log').read_text()[-3000:]
    assert same(work_dir / 'iter_9.pth', tmp_path / 'whole' / 'iter_9.pth')
    assert [path.name for path in work_dir.glob('*.pth')] == ['iter_9.pth'] and not list(work_dir.glob('.*.part'))
    assert len(set(killed)) == 3  # each of them went on


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint_and_says_what_is_needed(tmp_path, monkeypatch):
    put, config = LocalBackend.put, write_config(tmp_path)

    def fill(self, content, path):
        if 'epoch_2' in str(path):
            Path(path).write_bytes(content[:1000])
            raise OSError(errno.ENOSPC, 'No space left on device')
        put(self, content, path)

    monkeypatch.setattr(LocalBackend, 'put', fill)
    with pytest.raises(UserError, match=r'no room for .*epoch_2.pth: it takes \d+\.\d MB.* is epoch_1.pth') as caught:
        run(config, tmp_path / 'w')
    size = os.path.getsize(tmp_path / 'w' / 'epoch_1.pth') / 1e6
    assert float(str(caught.value).split('takes ')[1].split()[0]) == pytest.approx(size, rel=0.2)
    assert not list((tmp_path / 'w').glob('*epoch_2*'))
    monkeypatch.setattr(LocalBackend, 'put', put)
    (tmp_path / 'w' / '.epoch_9.pth.part').write_bytes(b'left over')
    run(config, tmp_path / 'w', resume='auto')
    files = sorted(path.name for path in (tmp_path / 'w').iterdir() if path.is_file())
    assert files == ['.run.lock', 'epoch_3.pth', 'last_checkpoint', 'tiny.py']


@pytest.mark.parametrize(
    'error, full',
    [
        (OSError(errno.EDQUOT, 'Disk quota exceeded'), True),
        (RuntimeError('[enforce fail at inline_container.cc:603] . unexpected pos 640 vs 534'), True),
        (RuntimeError('PytorchStreamWriter failed writing file data/0: file write failed'), True),
        (OSError(errno.EACCES, 'Permission denied'), False),
        (RuntimeError('CUDA out of memory'), False),
    ],
)
def test_which_errors_are_a_full_disk(error, full):
    assert saving.is_full(error) is full


def test_a_disk_that_a_log_fills_is_one_line_too():
    told = pytest.raises(UserError, match='no room for what the run writes: w: No space left')
    with told, clear_errors(torch.nn.Identity(), 'w'):
        raise OSError(errno.ENOSPC, 'No space left on device')
    with pytest.raises(PermissionError), clear_errors(torch.nn.Identity(), 'w'):
        raise PermissionError(errno.EACCES, 'Permission denied')


@pytest.mark.slow
def test_a_better_checkpoint_is_whole_before_the_best_so_far_goes(tmp_path, monkeypatch):
    """Also in a folder that is a copy: the original's files stay."""
    from mmpretrain.evaluation import Accuracy

    scores = iter([10.0, 20.0, 30.0])
    monkeypatch.setattr(Accuracy, 'compute_metrics', lambda self, results: {'top1': next(scores)})
    there, replace = [], os.replace

    def look(part, target):
        if str(target).endswith('.pth'):
            there.append((Path(target).name, {path.name for path in Path(target).parent.glob('*.pth')}))
        replace(part, target)

    monkeypatch.setattr(os, 'replace', look)
    checkpoint = dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='accuracy/top1', rule='greater')
    config = write_config(tmp_path, default_hooks=dict(checkpoint=checkpoint))
    run(config, tmp_path / 'w', cfg_options={'train_cfg.max_epochs': 2})
    best = 'best_accuracy_top1_epoch_{}.pth'.format
    assert (best(2), {best(1), 'epoch_2.pth'}) in there and ('epoch_2.pth', {best(1), 'epoch_1.pth'}) in there
    assert {path.name for path in (tmp_path / 'w').glob('*.pth')} == {best(2), 'epoch_2.pth'}

    shutil.copytree(tmp_path / 'w', tmp_path / 'copy')
    run(config, tmp_path / 'copy', resume='auto', cfg_options={'train_cfg.max_epochs': 3})
    assert {path.name for path in (tmp_path / 'copy').glob('*.pth')} == {best(3), 'epoch_3.pth'}
    assert {path.name for path in (tmp_path / 'w').glob('*.pth')} == {best(2), 'epoch_2.pth'}


@pytest.mark.slow
def test_weights_that_are_not_finite_do_not_replace_good_ones(tmp_path):
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    @HOOKS.register_module(force=True)
    class SpoilHook(Hook):
        def after_train_epoch(self, runner):
            if runner.epoch == 1:
                runner.model.head.fc.weight.data[0, 0] = float('nan')

    config = write_config(tmp_path, custom_hooks=[dict(type='mmengine.SpoilHook')])
    with pytest.raises(UserError, match=r'1 of \d+ tensors .* head.fc.weight.*epoch_1.pth'):
        run(config, tmp_path / 'w')
    assert [path.name for path in (tmp_path / 'w').glob('*.pth')] == ['epoch_1.pth']


def test_what_may_go_is_what_nothing_else_keeps():
    hook = saving.WholeCheckpointHook(by_epoch=False, max_keep_ckpts=1)
    hook.last_ckpt, hook.best_ckpt_path, hook.filename_tmpl = 'w/iter_3.pth', 'w/best_iter_1.pth', 'iter_{}.pth'
    hook.keep_ckpt_ids = deque([2])
    names = ['iter_1.pth', 'iter_2.pth', 'iter_3.pth', 'best_iter_1.pth', 'iter_1.pth']
    assert hook._without_kept(names) == ['iter_1.pth']


@pytest.mark.slow
@pytest.mark.parametrize(
    'changes, checkpoint, told',
    [
        ({}, dict(interval=0), r'interval=0: only the last checkpoint is saved, .* Set interval to 1 or more$'),
        ({}, dict(interval=-1, save_last=False), 'interval=-1: no checkpoint is saved'),
        (
            ITERATIONS,
            dict(interval=1, by_epoch=True),
            'by_epoch=True in a run that counts iterations: .*by_epoch=False',
        ),
        ({}, None, 'there is no CheckpointHook: no weights are saved'),
    ],
)
def test_a_run_that_saves_nothing_on_its_way_says_so(changes, checkpoint, told, tmp_path, capsys):
    options = {'train_cfg.max_iters' if changes else 'train_cfg.max_epochs': 1}
    run(
        write_config(tmp_path, **dict(changes, default_hooks=dict(checkpoint=checkpoint))),
        tmp_path / 'w',
        cfg_options=options,
    )
    assert re.search(told, capsys.readouterr().out, re.MULTILINE)


def test_an_interval_that_is_no_number_is_said_at_the_start(tmp_path):
    config = write_config(tmp_path, default_hooks=dict(checkpoint=dict(interval='2')))
    with pytest.raises(UserError, match="checkpoint.interval='2' must be a whole number"):
        run(config, tmp_path / 'w')
