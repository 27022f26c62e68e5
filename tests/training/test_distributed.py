"""Two processes without a GPU: what they compute is what one computes, and when one fails all end."""

import argparse
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from nextvit_mm.demo import DigitClassesConfig, DigitsConfig, make_digit_classes, make_digits
from nextvit_mm.deploy.export import export
from nextvit_mm.errors import UserError
from nextvit_mm.training import distributed, launch
from nextvit_mm.utils import processes
from nextvit_mm.weights import fetch as weights_fetch
from nextvit_mm.weights.checkpoint import load_checkpoint

from ..conftest import ROOT
from . import recipes

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
LONG = pytest.mark.skipif(
    not os.environ.get('NEXTVIT_MM_LONG'), reason='whole runs in two processes, ten minutes: set NEXTVIT_MM_LONG=1'
)

# Of Semantic FPN a bias of values below 0.002 was 2.9e-6 away after ten steps, which is float32's rounding: run in
# float64, the largest difference of all tensors was 4e-11.
WEIGHTS = dict(semantic_fpn=5e-3)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


TORCHRUN = 'import sys; from torch.distributed.run import main; main(sys.argv[1:])'
# The same agent, whose processes have what this one has imported.
FORKS = """
import runpy, sys
import nextvit_mm.utils.command
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
def run(*argv):
    sys.argv = list(argv)
    runpy.run_path(argv[0], run_name='__main__')
port, *argv = sys.argv[4:]
agent = LaunchConfig(
    1, 1, 2, run_id='none', max_restarts=0, monitor_interval=0.1, start_method='fork', rdzv_backend='static',
    rdzv_endpoint=f'127.0.0.1:{port}', rdzv_configs=dict(rank=0))
elastic_launch(agent, run)(*argv)
"""


@pytest.fixture(scope='module')
def start_two(run_fresh):
    """A function that runs a file in two processes, as torchrun does."""

    def start(*args, launcher=TORCHRUN, check=True, **env) -> subprocess.CompletedProcess:
        return run_fresh(
            launcher,
            *('--nproc_per_node', 2, '--master_port', free_port(), *args),
            check=check,
            **{'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **env},
        )

    return start


@pytest.fixture(scope='module')
def both(tmp_path_factory, start_two):
    """Every recipe trained and tested by one process, here, and by two, started once."""
    folder = tmp_path_factory.mktemp('both')
    make_digits(folder / 'data', DigitsConfig(train=20, val=3, size=64))
    make_digit_classes(folder / 'data' / 'imagenet', DigitClassesConfig(train=20, val=11, size=32))
    metrics, checkpoints = {}, {}
    for name in recipes.CONFIGS:
        work_dir = recipes.run(name, folder)
        trained = Path((work_dir / 'last_checkpoint').read_text())
        checkpoints[name] = [str(trained)]
        metrics[str(trained)] = recipes.test(name, folder, trained)
    exported = export(
        recipes.config('classifier'),
        checkpoints['classifier'][0],
        out=str(folder / 'classifier.onnx'),
        data_root=f'{folder}/data/imagenet',
        cfg_options=recipes.options('classifier', True),
    )
    checkpoints['classifier'].append(str(exported))
    metrics[str(exported)] = recipes.test('classifier', folder, exported)
    (folder / 'checkpoints.json').write_text(json.dumps(checkpoints))
    done = start_two(recipes.__file__, folder)
    return SimpleNamespace(folder=folder, metrics=metrics, checkpoints=checkpoints, log=done.stdout + done.stderr)


def records(both, name: str) -> tuple[dict, dict]:
    files = f'{name}_none/record.pt', f'{name}_pytorch/record0.pt'
    return tuple(torch.load(both.folder / file, weights_only=True) for file in files)


def largest_difference(one: dict, two: dict) -> float:
    """Over all tensors, relative to the largest value of each, or to a thousandth of the largest of all."""
    assert one.keys() == two.keys()
    least = 1e-3 * max(float(v.abs().max()) for v in one.values())
    return max(float((one[n] - two[n]).abs().max() / max(float(one[n].abs().max()), least)) for n in one)


@LONG
@pytest.mark.slow
@pytest.mark.parametrize('name', recipes.CONFIGS)
def test_two_processes_train_as_one_does(both, name):
    one, two = records(both, name)
    assert one['wrapper'] != two['wrapper'] == 'DistributedOnCPU'
    assert (one['losses'] - two['losses']).abs().max() < 1e-6 * one['losses'].max() * 10  # after ten steps
    assert abs(one['losses'][0] - two['losses'][0]) < 1e-6 * one['losses'][0]
    assert largest_difference(one['gradients'], two['gradients']) < 1e-5
    assert largest_difference(one['weights'], two['weights']) < WEIGHTS.get(name, 1e-5)
    other = torch.load(both.folder / f'{name}_pytorch' / 'record1.pt', weights_only=True)
    assert all(torch.equal(value, other['weights'][key]) for key, value in two['weights'].items())
    assert (one['losses'][0] - one['losses'][-1]).abs() > 1e-3  # ten steps have changed something


@LONG
@pytest.mark.slow
@pytest.mark.parametrize('name', recipes.CONFIGS)
def test_two_processes_evaluate_as_one_does(both, name):
    """An odd number of pictures; metrics and predictions to the last digit, of the exported classifier too."""
    found = json.loads((both.folder / 'metrics0.json').read_text())
    for checkpoint in both.checkpoints[name]:
        assert found[checkpoint] == pytest.approx(both.metrics[checkpoint], rel=0, abs=0, nan_ok=True)
        suffix = Path(checkpoint).suffix
        one, two = (
            pickle.loads((both.folder / f'{name}_{launcher}{suffix}.pkl').read_bytes())
            for launcher in ('none', 'pytorch')
        )
        assert len(one) == len(two) and len(one) % 2
        assert_equal(one, two)


def assert_equal(one, two) -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for a, b in zip(one, two):
            assert_equal(a, b)
    elif isinstance(one, (torch.Tensor, np.ndarray)):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(two))
    else:
        assert one == two


@LONG
@pytest.mark.slow
def test_the_first_process_says_once_that_syncbn_is_bn(both):
    logs = [path.read_text() for path in both.folder.glob('*_pytorch/*/*.log')]
    assert sum(log.count('SyncBN are BN here') for log in logs) == 2  # of Semantic FPN and of UperNet
    assert both.log.count('SyncBN are BN here') == 4  # and of their evaluations


@LONG
@pytest.mark.slow
def test_torchrun_brings_a_killed_run_back(tmp_path):
    """With MAX_RESTARTS: from the last checkpoint, to the weights of a run that nobody killed."""
    make_digit_classes(tmp_path / 'data' / 'imagenet', DigitClassesConfig(train=20, val=10, size=32))
    alone = recipes.run('classifier', tmp_path)
    cfg = Config.fromfile(recipes.config('classifier'))
    cfg.merge_from_dict(recipes.options('classifier', False))
    cfg.custom_imports = dict(imports=[recipes.__name__])
    cfg.custom_hooks = [dict(type='KeepBatchNorms'), dict(type='KilledOnceHook')]
    cfg.default_hooks.checkpoint.update(interval=1, by_epoch=False)
    cfg.dump(tmp_path / 'killed.py')
    done = subprocess.run(
        [ROOT / 'tools/dist_train.sh', 'killed.py', '2', '--resume', '--data-root', 'data/imagenet/', '--seed', '0'],
        cwd=tmp_path,
        env={
            **os.environ,
            **dict(MAX_RESTARTS='1', PORT=str(free_port()), PYTHON=sys.executable, PYTHONPATH=str(ROOT)),
            **dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert 'nothing to resume' in said and 'resumed from work_dirs/killed/iter_2.pth' in said
    one, two = alone / 'epoch_1.pth', tmp_path / 'work_dirs' / 'killed' / 'iter_10.pth'
    assert largest_difference(*(load_checkpoint(str(path))['state_dict'] for path in (one, two))) < 1e-5


def test_processes_that_are_started_again_do_not_meet_those_that_are_gone(monkeypatch):
    assert distributed._store_after_a_restart() == {}
    kept = torch.distributed.HashStore()
    kept.set('address', 'of a process that is gone')
    monkeypatch.setattr(torch.distributed, 'rendezvous', lambda *_: iter([(kept, 1, 2)]))
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    found = distributed._store_after_a_restart()
    assert (found['rank'], found['world_size']) == (1, 2) and not found['store'].check(['address'])


@pytest.mark.parametrize('resume', [None, 'epoch_1.pth'])
def test_a_run_that_may_start_again_must_find_its_own_checkpoint(resume, monkeypatch, tmp_path):
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '3')
    with pytest.raises(UserError, match='give --resume, without a checkpoint'):
        launch.train(recipes.config('classifier'), work_dir=str(tmp_path), resume=resume)


FAILING = """
import argparse, os, time
import torch
from nextvit_mm.errors import UserError
from nextvit_mm.utils.command import run_command

def command(launcher, what):
    rank = int(os.environ['RANK'])
    if what == 'all':
        raise UserError('no data')
    torch.distributed.init_process_group('gloo')
    if rank:
        raise UserError('no data here') if what == 'one' else ValueError('a mistake')
    if what == 'one':
        time.sleep(600)  # as in a call that waits for the other
    torch.distributed.all_reduce(torch.ones(1))

parser = argparse.ArgumentParser(prog='tool')
parser.add_argument('what')
parser.add_argument('--launcher')
run_command(command, parser)
"""


@pytest.mark.slow
@pytest.mark.parametrize('what', ['all', 'one', 'bug'])
def test_one_process_speaks_and_all_end(tmp_path, what, start_two):
    (tmp_path / 'tool.py').write_text(FAILING)
    launcher = TORCHRUN if what == 'one' else FORKS
    done = start_two(tmp_path / 'tool.py', what, '--launcher', 'pytorch', launcher=launcher, check=False)
    assert done.returncode
    ours, banner = done.stderr.split('ChildFailedError', 1)
    cause = dict(all='no data', one='no data here (process 1 of 2', bug='ValueError: a mistake')[what]
    assert ours.count(cause) == 1 and cause in banner
    assert what == 'bug' or ours.count('tool:') == 1 and 'in command' not in ours  # no traceback of ours


@pytest.mark.parametrize(
    'launcher, given, words',
    [
        ('pytorch', {}, 'RANK is not set. Start the processes with tools/dist_train.sh or torchrun'),
        ('slurm', {}, 'SLURM_PROCID is not set. Start the processes with srun'),
        ('mpi', {}, 'OMPI_COMM_WORLD_RANK is not set'),
        (
            'mpi',
            dict(OMPI_COMM_WORLD_RANK='0', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='0'),
            'set MASTER_ADDR',
        ),
    ],
)
def test_a_process_that_no_launcher_started(launcher, given, words, monkeypatch):
    fresh_environment(monkeypatch, given)
    with pytest.raises(UserError, match=words):
        processes.set_environment(launcher)


def fresh_environment(monkeypatch, given: dict) -> None:
    monkeypatch.setattr(os, 'environ', {**given, 'PATH': os.environ['PATH']})


def test_what_slurm_and_mpi_tell_is_torchs_environment(monkeypatch):
    slurm = dict(SLURM_PROCID='3', SLURM_NTASKS='4', SLURM_LOCALID='1', SLURM_NODELIST='node7', LOCAL_RANK='0')
    fresh_environment(monkeypatch, slurm)
    processes.set_environment('slurm')
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
    assert [os.environ[name] for name in names] == ['3', '4', '1', 'node7', '29500']
    mpi = {f'OMPI_COMM_WORLD_{name}': value for name, value in dict(RANK='1', SIZE='2', LOCAL_RANK='1').items()}
    fresh_environment(monkeypatch, dict(mpi, OMPI_COMM_WORLD_LOCAL_SIZE='2', MASTER_PORT='1234'))
    processes.set_environment('mpi')
    assert [os.environ[name] for name in names] == ['1', '2', '1', '127.0.0.1', '1234']


@pytest.mark.parametrize(
    'options, name',
    [
        (dict(strategy=dict(type='FSDPStrategy')), 'FSDPStrategy'),
        (dict(runner_type='FlexibleRunner'), 'FlexibleRunner'),
        (dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')), 'MMFullyShardedDataParallel'),
    ],
)
def test_sharded_parameters_are_refused_by_name(options, name):
    with pytest.raises(UserError, match=f'wants {name}, and these tools share out pictures'):
        distributed.start(Config(dict(launcher='pytorch', **options), filename=None))


def test_a_gpu_run_drops_the_wrapper_of_a_run_on_cpus(monkeypatch):
    monkeypatch.setattr(distributed, 'has_accelerator', lambda: True)
    cfg = Config(dict(launcher='pytorch', model=dict(type='X'), model_wrapper_cfg=dict(type='DistributedOnCPU')))
    distributed.set_wrapper(cfg)
    assert 'model_wrapper_cfg' not in cfg


def test_of_many_processes_one_fetches(tmp_path, monkeypatch):
    """Here threads that ask for one address at the same time."""
    fetched = []

    def fetch(url, path):
        fetched.append(url)
        torch.save(dict(state_dict=nn.Linear(2, 2).state_dict()), f'{path}.part')
        threading.Event().wait(0.2)
        Path(f'{path}.part').replace(path)

    monkeypatch.setattr(weights_fetch, '_download', fetch)
    results: list = []
    threads = [
        threading.Thread(
            target=lambda: results.append(weights_fetch.fetch_from_url('http://host/weights.pth', tmp_path))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1 and len(results) == 4


def test_a_machine_that_is_gone_without_a_word(monkeypatch):
    """Nothing closes its connections: only its signs of life are missing."""
    store = torch.distributed.HashStore()
    first, other = processes._Voice(store, 0, 2), processes._Voice(store, 1, 2)
    assert other.look() is None and first.look() is None
    monkeypatch.setattr(processes, 'SILENCE', 0.05)
    threading.Event().wait(0.1)
    assert other.look() is None and first.look() is None  # it was there in time
    threading.Event().wait(0.1)
    failure = first.look()
    assert failure['rank'] == 1 and 'silent' in failure['text'] and other.look() == failure


@pytest.mark.slow
def test_the_first_process_speaks_first(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(processes, 'PATIENCE', 5.0)
    ends: list = []
    other = threading.Thread(target=lambda: ends.append(processes._Voice(store, 1, 2).speaks(UserError('theirs'))))
    other.start()
    error = UserError('ours')
    assert processes._Voice(store, 0, 2).speaks(error) is error and str(error) == 'ours'
    other.join()
    assert isinstance(ends[0], SystemExit)


def test_a_lost_connection_is_not_the_cause(monkeypatch):
    monkeypatch.setattr(processes, 'PATIENCE', 0.1)
    error = RuntimeError('[../gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:4242')
    found = processes._Voice(torch.distributed.HashStore(), 0, 2).speaks(error)
    assert isinstance(found, processes.LostProcessError) and 'gone without a message' in str(found)
    mine = processes._Voice(torch.distributed.HashStore(), 1, 2).speaks(UserError('no data'))
    assert str(mine).startswith('no data (process 1 of 2, on ')


@pytest.mark.parametrize('rank, said', [('0', True), ('1', False)])
def test_of_wrong_flags_the_first_process_speaks(rank, said, monkeypatch, capsys):
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setattr(processes, 'HEAD_START', 0.0)
    with pytest.raises(SystemExit), processes.first_says():
        argparse.ArgumentParser().parse_args(['--wrong'])
    assert ('--wrong' in capsys.readouterr().err) == said
