"""The set-up, without its downloads: what it refuses, skips and goes on with."""

import importlib.util
import os
import re
import sys
import zipfile
from collections import namedtuple

import pytest

from ..conftest import ROOT


@pytest.fixture
def setup_venv():
    spec = importlib.util.spec_from_file_location('setup_venv', ROOT / 'tools' / 'setup_venv.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['setup_venv'] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def venv(tmp_path):
    (tmp_path / 'stamps').mkdir()
    return tmp_path


def step(setup_venv, code, **kwargs):
    return setup_venv.Step('a step', 'no time', [sys.executable, '-c', code], **kwargs)


@pytest.mark.slow
def test_a_done_step_is_skipped_until_what_it_depends_on_changes(setup_venv, venv):
    ran = venv / 'ran'
    code = f'open({str(ran)!r}, "a").write("x")'
    for depends_on in ('1', '1', '2'):
        setup_venv.run_step(venv, step(setup_venv, code, depends_on=depends_on), '[1/1] a step')
    assert ran.read_text() == 'xx'


@pytest.mark.slow
def test_a_failed_step_stops_with_its_output_and_runs_again(setup_venv, venv):
    code = f'import os, sys; print("the reason"); sys.exit(not os.path.exists({str(venv / "mended")!r}))'
    for _ in range(2):
        with pytest.raises(SystemExit) as error:
            setup_venv.run_step(venv, step(setup_venv, code), '[1/1] a step')
        assert 'the reason' in str(error.value) and 'setup.log' in str(error.value)
    (venv / 'mended').touch()
    setup_venv.run_step(venv, step(setup_venv, code), '[1/1] a step')


@pytest.mark.slow
@pytest.mark.parametrize(
    'line, said',
    [
        ('  [3/77] c++ …', 'compiled 3/77 files'),
        ('DEBUG [3/77] c++ …', 'compiled 3/77 files'),
        ('Downloading torch (1.2GiB)', 'Downloading torch (1.2GiB)'),
    ],
)
def test_progress_is_shown(setup_venv, venv, capsys, monkeypatch, line, said):
    monkeypatch.setattr(setup_venv, 'REPORT_EVERY', 0.1)
    code = f'import time; print({line!r}); time.sleep(0.5)'
    setup_venv.run_step(venv, step(setup_venv, code), '[2/5] mmcv')
    out = capsys.readouterr().out
    assert '[2/5] mmcv (no time)' in out and f'0:00 min, {said}' in out and 'done in 0:0' in out


@pytest.mark.slow
def test_uv_finds_packages_where_pip_would(setup_venv, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith('PIP_')]:
        monkeypatch.delenv(name)
    (tmp_path / 'pip.conf').write_text(
        '[global]\nindex-url = https://mirror/simple\nextra-index-url =\n    file:///one\n    file:///two\n'
        'timeout = 7\n[install]\ntimeout = 8\nfind-links = /a /b\n'
    )
    monkeypatch.setenv('PIP_CONFIG_FILE', str(tmp_path / 'pip.conf'))
    monkeypatch.setenv('PIP_TRUSTED_HOST', 'mirror')
    sources = setup_venv.list_package_sources(sys.executable)
    assert {
        'UV_DEFAULT_INDEX': 'https://mirror/simple',
        'UV_INDEX': 'file:///one file:///two',
        'UV_FIND_LINKS': '/a,/b',
        'UV_HTTP_TIMEOUT': '8',
        'UV_INSECURE_HOST': 'mirror',
        'UV_INDEX_STRATEGY': 'unsafe-best-match',
    }.items() <= sources.items()


@pytest.mark.slow
@pytest.mark.parametrize('setting, how', [('', 'uv'), ('timeout = 60.0', 'pip')])
def test_pip_is_tried_where_uv_fails(setup_venv, venv, monkeypatch, capsys, setting, how):
    """On a folder of packages. pip takes half seconds, and uv refuses them."""
    pytest.importorskip('uv')
    for name in [name for name in os.environ if name.startswith(('PIP_', 'UV_'))]:
        monkeypatch.delenv(name)
    with zipfile.ZipFile(venv / 'zzdemo-1.0-py3-none-any.whl', 'w') as wheel:
        wheel.writestr('zzdemo.py', '')
        wheel.writestr('zzdemo-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: zzdemo\nVersion: 1.0\n')
        wheel.writestr('zzdemo-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        wheel.writestr('zzdemo-1.0.dist-info/RECORD', '')
    (venv / 'pip.conf').write_text(f'[global]\nno-index = true\nfind-links = {venv}\n{setting}\n')
    monkeypatch.setenv('PIP_CONFIG_FILE', str(venv / 'pip.conf'))
    command = setup_venv.list_steps(sys.executable)[1].command
    command = command[: command.index('--python') + 2] + ['--dry-run', 'zzdemo']
    setup_venv.run_step(venv, setup_venv.Step('a step', 'no time', command), '[1/1] a step')
    assert ('uv failed: trying pip' in capsys.readouterr().out) is (how == 'pip')
    assert ('Would install zzdemo' if how == 'pip' else '+ zzdemo==1.0') in (venv / 'setup.log').read_text()


@pytest.mark.slow
def test_on_a_terminal_one_line_is_written_over(setup_venv, venv, monkeypatch):
    screen, terminal = pytest.importorskip('pty').openpty()
    with open(terminal, 'w') as file:
        monkeypatch.setattr(sys, 'stdout', file)
        setup_venv.run_step(venv, step(setup_venv, 'import time; print("Downloading"); time.sleep(1.5)'), '[2/5] mmcv')
        shown = b''
        while b'done' not in shown:
            shown += os.read(screen, 4096)
    lines = [line.strip() for line in re.sub('0:0.', '0:00', shown.decode()).split('\r')]
    assert lines[:2] == ['[2/5] mmcv (no time)', '0:00 min, Downloading']
    assert lines[-3] == '' and lines[-2].startswith('done in') and set(lines[1:-3]) == {lines[1]}


def test_a_users_own_settings_of_uv_count(setup_venv, venv, monkeypatch):
    monkeypatch.setattr(setup_venv, 'list_package_sources', lambda python: {'UV_INDEX': 'pip', 'UV_OFFLINE': '1'})
    monkeypatch.setenv('UV_INDEX', 'mine')
    code = 'import os; print(os.environ["UV_INDEX"], os.environ["UV_OFFLINE"])'
    setup_venv.run_step(venv, step(setup_venv, code), '[1/1] a step')
    assert (venv / 'setup.log').read_text() == 'mine 1\n'


def test_unsupported_python(setup_venv, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 7, 1))
    with pytest.raises(SystemExit, match='Python 3.7 is not supported: use one from 3.10 to 3.13'):
        setup_venv.check_machine(tmp_path, True)


def test_missing_compiler(setup_venv, tmp_path, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(SystemExit, match='no C.. compiler'):
        setup_venv.check_machine(tmp_path, True)


def test_without_compiled_operators_neither_compiler_nor_headers_are_asked_for(setup_venv, tmp_path, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    monkeypatch.setattr(setup_venv.sysconfig, 'get_paths', lambda: dict(include=str(tmp_path)))
    monkeypatch.setattr(setup_venv, 'NEEDED_GB', 0)  # of a disk that may be full by now
    setup_venv.check_machine(tmp_path, False)
    commands = ' '.join(' '.join(s.command) for s in setup_venv.list_steps(sys.executable))
    assert 'mmcv-lite==' in commands and 'ninja' not in commands and ' mmcv==' not in commands


def test_an_environment_keeps_its_operators(setup_venv, venv, monkeypatch):
    assert setup_venv.choose_operators(venv, True) and not setup_venv.choose_operators(venv, False)
    stamp = venv / 'stamps' / setup_venv.KIND
    stamp.write_text(setup_venv.COMPILED)
    assert setup_venv.choose_operators(venv, False)
    stamp.write_text(setup_venv.TESTED)
    assert not setup_venv.choose_operators(venv, False)
    with pytest.raises(SystemExit, match='made without mmcv.s compiled operators'):
        setup_venv.choose_operators(venv, True)


def test_missing_headers(setup_venv, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_venv.sysconfig, 'get_paths', lambda: dict(include=str(tmp_path)))
    with pytest.raises(SystemExit, match='Python.h is missing'):
        setup_venv.check_machine(tmp_path, True)


def test_too_little_disk(setup_venv, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')(10, 9, 1e9)
    monkeypatch.setattr(setup_venv.shutil, 'disk_usage', lambda _: usage)
    with pytest.raises(SystemExit, match='1.0 GB free, and the environment needs'):
        setup_venv.check_machine(tmp_path / 'not' / 'there' / 'yet', False)


@pytest.mark.slow
def test_a_half_made_environment_is_completed(setup_venv, tmp_path):
    (tmp_path / 'venv' / 'stamps').mkdir(parents=True)
    (tmp_path / 'venv' / 'bin').mkdir(parents=True)
    (tmp_path / 'venv' / 'bin' / 'python').write_text('#!/bin/sh\nexit 1\n')
    (tmp_path / 'venv' / 'bin' / 'python').chmod(0o755)
    python = setup_venv.make_venv(tmp_path / 'venv')
    assert python.exists() and (tmp_path / 'venv' / 'bin' / 'pip').exists()


@pytest.mark.parametrize('compiled, file', [(False, 'tested.txt'), (True, 'compiled.txt')])
def test_every_pin_is_installed(setup_venv, compiled, file):
    commands = ' '.join(' '.join(s.command) for s in setup_venv.list_steps(sys.executable, compiled))
    pins = [line for line in (ROOT / 'requirements' / file).read_text().splitlines() if '==' in line]
    assert pins and all(pin in commands for pin in pins)


def test_a_folder_of_something_else_is_left_alone(setup_venv, tmp_path):
    (tmp_path / 'thesis.txt').write_text('years')
    with pytest.raises(SystemExit, match='was not made by this set-up'):
        setup_venv.make_venv(tmp_path)
    assert (tmp_path / 'thesis.txt').read_text() == 'years'
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.txt']
