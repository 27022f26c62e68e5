"""What ends a run: signals, losses that are not finite, bad pictures, another run beside it, a batch of one."""

import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from nextvit_mm.demo import DigitsConfig, make_digits
from nextvit_mm.errors import UserError
from nextvit_mm.training.pictures import GuardedReading
from nextvit_mm.training.run import clear_errors
from nextvit_mm.training.stopping import StoppedError, catch_signals, lock_run

from ..conftest import ROOT
from .runs import ITERATIONS, run, run_apart, same, write_config

pytest.importorskip('mmpretrain')


@HOOKS.register_module(force=True)
class KillHook(Hook):
    """Sends a signal to its own process in the middle of an iteration, or of a validation; or to all processes."""

    def __init__(
        self, signal: str = 'SIGTERM', iteration: int = 4, validation: bool = False, workers: bool = False
    ) -> None:
        self.signal, self.iteration, self.validation, self.workers = signal, iteration, validation, workers

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.validation and runner.iter + 1 == self.iteration:
            self.kill()

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.validation and runner.epoch == 1:
            self.kill()

    def kill(self):
        children = multiprocessing.active_children() if self.workers else []
        assert len(children) == 2 * self.workers  # of the training and of the validation
        pids = [str(child.pid) for child in children] + [str(os.getpid())]
        # By another process: those that load pictures take their parent's as the order to go.
        subprocess.run(['kill', f'-{self.signal[3:]}', *pids], check=True)
        time.sleep(0.2 * self.workers)  # they die at once, or not


@pytest.mark.slow
@pytest.mark.parametrize(
    'changes, hook, saved',
    [
        ({}, dict(signal='SIGTERM', iteration=4), 'iter_4.pth'),  # in the middle of an epoch
        ({}, dict(signal='SIGUSR1', iteration=6), 'iter_6.pth'),  # in the last iteration of an epoch
        ({}, dict(signal='SIGUSR1', validation=True), 'iter_3.pth'),
        (ITERATIONS, dict(signal='SIGUSR1', iteration=4), 'iter_4.pth'),
        ({}, dict(signal='SIGINT', iteration=4), 'iter_4.pth'),
    ],
)
def test_a_signal_saves_and_the_run_goes_on_as_if_there_had_been_none(changes, hook, saved, tmp_path):
    config = write_config(tmp_path, **changes)
    killed = write_config(tmp_path, 'killed.py', **changes, custom_hooks=[dict(type='mmengine.KillHook', **hook)])
    run(config, tmp_path / 'whole')
    with pytest.raises(StoppedError, match=f'{hook["signal"]} stopped the run after iteration .*{saved}') as caught:
        run(killed, tmp_path / 'w')
    assert caught.value.status == (130 if hook['signal'] == 'SIGINT' else 75) and (tmp_path / 'w' / saved).is_file()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    run(config, tmp_path / 'w', resume='auto')
    last = 'iter_9.pth' if changes else 'epoch_3.pth'
    assert same(tmp_path / 'w' / last, tmp_path / 'whole' / last)
    assert [path.name for path in (tmp_path / 'w').glob('*.pth')] == [last]  # what was saved for the stop is gone


@pytest.fixture(autouse=True)
def in_the_foreground():
    """Tests that run in the background ignore Ctrl-C from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_background_job_goes_on_ignoring_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with catch_signals() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert not asked and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked == dict(signal='SIGTERM')


@pytest.mark.slow
@pytest.mark.parametrize('changes, last', [({}, 'epoch_3.pth'), (ITERATIONS, 'iter_9.pth')])
def test_loading_processes_go_on_with_the_next_pictures(changes, last, tmp_path):
    """Without random steps in them the weights are those of a run without a stop, bit for bit."""
    loader = dict(changes.get('train_dataloader', {}), num_workers=1, persistent_workers=True)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    changes = dict(changes, train_dataloader=dict(loader, dataset=dict(pipeline=pipeline)))
    config = write_config(tmp_path, **changes)
    killed = write_config(tmp_path, 'killed.py', **changes, custom_hooks=[dict(type='mmengine.KillHook', iteration=4)])
    run(config, tmp_path / 'whole')
    with pytest.raises(StoppedError):
        run(killed, tmp_path / 'w')
    run(config, tmp_path / 'w', resume='auto')
    assert same(tmp_path / 'w' / last, tmp_path / 'whole' / last)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
def test_a_signal_to_all_processes_leaves_those_that_load_pictures(name, tmp_path):
    persist = dict(num_workers=1, persistent_workers=True)
    hook = dict(
        type='mmengine.KillHook', signal=name, iteration=5, workers=True
    )  # after the validation of the first epoch
    loaders = dict(train_dataloader=persist, val_dataloader=persist)
    config = write_config(tmp_path, **loaders, custom_hooks=[hook])
    with pytest.raises(StoppedError, match=f'{name} stopped the run after iteration 5; it is saved as iter_5.pth'):
        run(config, tmp_path / 'w')
    assert not multiprocessing.active_children()  # which would outlive this process for a minute


@pytest.mark.slow
def test_an_exit_does_not_wait_for_processes_that_load_pictures(run_fresh):
    """Those of a loader that is read after the run, and not to its end."""
    code = """
import atexit, multiprocessing
from torch.utils.data import DataLoader
from nextvit_mm.training import stopping
stopping.WORKERS_GRACE = 1
def load():
    loader = DataLoader(list(range(64)), num_workers=1, persistent_workers=True)
    stopping.protect_workers(loader)
    load.loading = iter(loader), loader
    next(load.loading[0])
def run():
    load()
    multiprocessing.util.Finalize(None, print_codes, exitpriority=0)
def print_codes():
    print('exit codes', [worker.exitcode for worker in load.loading[0]._workers], flush=True)
process = multiprocessing.get_context('fork').Process(target=run)
process.start()
process.join()
run()
atexit._run_exitfuncs()
"""
    # Not that of the signal, after WORKERS_GRACE: at the end of a process that another started, and of any other.
    assert run_fresh(code).stdout.count('exit codes [0]') == 2


def test_a_second_ctrl_c_ends_the_run_at_once(monkeypatch, capfd):
    now = [10.0]
    monkeypatch.setattr('nextvit_mm.training.stopping.time.monotonic', lambda: now[0])
    with pytest.raises(KeyboardInterrupt), catch_signals() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == dict(signal='SIGINT')
        now[0] += 1  # torchrun passes the same one on
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += 2
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError('it went on')
    assert capfd.readouterr().err.count('Ctrl-C again ends it at once') == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_in_its_iteration(tmp_path, monkeypatch):
    from mmpretrain.models.heads import LinearClsHead

    loss, calls = LinearClsHead.loss, []

    def spoilt(self, *args, **kwargs):
        calls.append(1)
        losses = loss(self, *args, **kwargs)
        return {name: value * (math.nan if len(calls) == 5 else 1) for name, value in losses.items()}

    monkeypatch.setattr(LinearClsHead, 'loss', spoilt)
    told = r'the loss of iteration 5 is not finite: loss nan; rate 0\.000\d+; pictures: .*\.png, .*\.png\..*epoch_1.pth'
    with pytest.raises(UserError, match=told):
        run(write_config(tmp_path), tmp_path / 'w')
    assert len(calls) == 5 and [path.name for path in (tmp_path / 'w').glob('*.pth')] == ['epoch_1.pth']


@pytest.mark.slow
def test_processes_that_load_pictures_end_with_the_training(tmp_path):
    """Else a finished command would wait for them for a minute, and end in a traceback."""
    before = set(multiprocessing.active_children())
    options = {
        'train_dataloader.num_workers': 1,
        'train_dataloader.persistent_workers': True,
        'train_cfg.max_epochs': 1,
    }
    runner = run(write_config(tmp_path), tmp_path / 'w', cfg_options=options)
    assert runner.epoch == 1 and set(multiprocessing.active_children()) <= before


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 1])
def test_a_bad_picture_stops_the_run_or_is_left_out_and_listed(workers, tmp_path):
    config = write_config(tmp_path)
    shutil.copytree(tmp_path / 'pictures', tmp_path / 'good')
    bad = tmp_path / 'pictures' / 'train' / 'class0' / '2.png'
    bad.write_bytes(b'no picture' * workers)  # of one that is empty OpenCV says so in another way
    options = {'train_dataloader.num_workers': workers, 'train_cfg.max_epochs': 1}
    options['val_dataloader.dataset.data_root'] = str(tmp_path / 'good')
    with pytest.raises(UserError) as caught:
        run(config, tmp_path / 'stop', cfg_options=options)
    assert str(caught.value).startswith(f'{bad} cannot be read as a picture (') and '\n' not in str(caught.value)
    run(config, tmp_path / 'skip', cfg_options=options, bad_pictures='skip')
    assert (tmp_path / 'skip' / 'epoch_1.pth').is_file()
    assert set((tmp_path / 'skip' / 'bad_pictures.txt').read_text().splitlines()) == {str(bad)}
    log = next((tmp_path / 'skip').glob('*/*.log')).read_text()
    assert 'picture could not be read and was left out, 1 different ones, such as' in log
    if workers == 0:
        options['val_dataloader.dataset.data_root'] = str(tmp_path / 'pictures')
        with pytest.raises(UserError, match='2.png cannot be read .* an evaluation leaves none out'):
            run(config, tmp_path / 'validated', cfg_options=options, bad_pictures='skip')


def test_a_class_map_of_another_size_than_its_picture_is_named():
    results = dict(img_path='a.png', seg_map_path='b.png', ori_shape=(4, 6), gt_seg_map=np.zeros((4, 5)))
    with pytest.raises(UserError, match='b.png is 5×4, and its picture a.png is 6×4: both need the same size'):
        GuardedReading(lambda found: found)(results)


@pytest.mark.slow
def test_a_second_run_in_a_work_dir_is_refused_until_the_first_is_dead(tmp_path):
    config = write_config(tmp_path)
    process = run_apart(config, tmp_path / 'w', cfg_options={'train_cfg.max_epochs': 10000})
    deadline = time.monotonic() + 60
    while not (tmp_path / 'w' / 'last_checkpoint').is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(UserError, match=f'another run is at work in .*process {process.pid} on'):
        run(config, tmp_path / 'w')
    second = run_apart(config, tmp_path / 'w')
    second.join()
    assert second.exitcode == 2 and 'UserError: another run is at work in' in (tmp_path / 'w.log').read_text()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with lock_run(str(tmp_path / 'w')):
        pass


def test_signals_are_left_alone_in_a_thread():
    errors = []

    def use():
        try:
            with catch_signals():
                pass
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not errors


def test_class_weights_beside_ignored_pixels_are_one_line():
    losses = pytest.importorskip('mmseg.models.losses')
    loss = losses.CrossEntropyLoss(class_weight=[0.2, 1.0])
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    with clear_errors(torch.nn.Identity(), 'w'):
        loss(torch.zeros(1, 2, 4, 4), labels, ignore_index=255)
    labels[0, 0] = 255
    with (
        pytest.raises(UserError, match='class_weight .* pixels that are ignored'),
        clear_errors(torch.nn.Identity(), ''),
    ):
        loss(torch.zeros(1, 2, 4, 4), labels, ignore_index=255)
    with pytest.raises(IndexError), clear_errors(torch.nn.Identity(), ''):
        [][1]


def test_a_batch_of_one_where_a_norm_cannot_learn_is_one_line(tmp_path):
    config = write_config(tmp_path, train_dataloader=dict(batch_size=1))
    with pytest.raises(UserError, match=r'backbone\.stages\.\S+ gets one value per channel.*batch_size'):
        run(config, tmp_path / 'w')


def test_two_processes_make_the_same_data_at_once(tmp_path):
    from nextvit_mm.demo.digits import make_once

    barrier, made, errors = threading.Barrier(2), [], []

    def write(root):
        (root / 'x').mkdir(parents=True)
        barrier.wait(10)  # both are in the middle of it

    def make():
        try:
            made.append(make_once(tmp_path / 'data', dict(a=1), write))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and sorted(made) == [False, True]
    assert [path.name for path in tmp_path.iterdir()] == ['data']
    with pytest.raises(FileExistsError):
        make_once(tmp_path / 'data', dict(a=2), write)
    (tmp_path / 'empty').mkdir()
    assert make_digits(tmp_path / 'empty', DigitsConfig(train=1, val=1, size=32))


@pytest.mark.parametrize('status, job, requeued', [(75, '7', True), (75, '', False), (2, '7', False), (0, '7', False)])
def test_slurm_train_puts_a_stopped_job_back_into_the_queue(status, job, requeued, tmp_path):
    for name, text in (('srun', f'exit {status}'), ('scontrol', f'echo "$@" > {tmp_path}/asked')):
        (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': job}
    command = ['bash', str(ROOT / 'tools' / 'slurm_train.sh'), 'gpu', 'job', 'config.py', 'w', '--resume']
    assert subprocess.run(command, env=env).returncode == status
    assert (tmp_path / 'asked').exists() is requeued
    if requeued:
        assert (tmp_path / 'asked').read_text().split() == ['requeue', '7']
