"""The shell scripts of tools/ hand everything to the tools."""

import os
import socket
import subprocess
import sys

import pytest

from ..conftest import DETECTOR, ROOT

TORCHRUN = [
    ('dist_train.sh', [DETECTOR, '1'], 'CONFIG GPUS'),
    ('dist_test.sh', [DETECTOR, 'gone.pth', '1'], 'CONFIG CHECKPOINT GPUS'),
]


@pytest.mark.slow
def test_torchrun_hands_everything_to_the_tool(tmp_path):
    """Without a GPU no process group comes up; the arguments arrive and are checked before one is asked for."""
    script, arguments, _ = TORCHRUN[0]
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': port}
    command = ['bash', str(ROOT / 'tools' / script), *arguments, '--data-root', 'not here']
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode != 0 and 'not here' in result.stderr and 'MISSING' in result.stderr


def test_both_torchrun_scripts_hand_over_alike(tmp_path):
    """What arrives of the one in a real run arrives of the other, too."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    python.chmod(0o755)
    said = []
    for script, arguments, usage in TORCHRUN:
        command = ['bash', str(ROOT / 'tools' / script)]
        bare = subprocess.run(command, capture_output=True, text=True)
        assert bare.returncode == 2 and usage in bare.stderr
        command += [*arguments, '--data-root', 'not here']
        env = {**os.environ, 'PYTHON': str(python)}
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        said.append(result.stdout.splitlines())
    train, test = said
    train.remove('--max_restarts=0')  # tools/train.py alone can go on
    tool = str(ROOT / 'tools' / 'train.py')
    at = train.index(tool)
    assert train[at:] == [tool, DETECTOR, '--launcher', 'pytorch', '--data-root', 'not here']
    assert test == [*train[:at], str(ROOT / 'tools' / 'test.py'), DETECTOR, 'gone.pth', *train[at + 2 :]]


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
