"""Which versions are claimed, looked for and tried."""

import importlib.util
import re
import subprocess
import sys

import pytest
import torch

from nextvit_mm.deploy import backends
from nextvit_mm.errors import UserError
from nextvit_mm.needed import NEEDED

from ..conftest import ROOT

MM = {'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmsegmentation', 'mmpretrain'}


def pins(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return dict(line.partition('#')[0].strip().split('==') for line in lines if '==' in line)


def name_of(requirement):
    return re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')


@pytest.fixture
def claimed():
    """The metadata of the project, with the extras that others name put in their places."""
    tomllib = pytest.importorskip('tomllib')  # of Python 3.11
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']

    def flat(requirements):
        for requirement in requirements:
            own = re.fullmatch(r'nextvit_mm\[(.*)\]', requirement)
            yield from (r for name in own[1].split(',') for r in flat(extras[name])) if own else [requirement]

    return {**project, 'optional-dependencies': {name: list(flat(value)) for name, value in extras.items()}}


@pytest.fixture
def matrix(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location('matrix', ROOT / 'tools' / 'matrix.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'FOLDER', tmp_path)
    return module


def test_installing_this_package_brings_no_mm_package(claimed):
    """pip would put mmengine over onedl-mmengine, which has the same module."""
    assert not MM & {name_of(requirement) for requirement in claimed['dependencies']}
    for extra in ('weights', 'demo', 'analysis', 'deploy', 'visualize', 'benchmark', 'tests'):
        assert not MM & {name_of(requirement) for requirement in claimed['optional-dependencies'][extra]}, extra


def test_every_lower_bound_is_a_version_of_the_oldest_row(claimed, matrix):
    oldest = pins('oldest')
    extras = claimed['optional-dependencies']
    others = {name_of(requirement) for requirement in extras['deploy'] + extras['lint'] + ['grad-cam']}
    bounds = {
        name_of(r): re.search(r'>=([\d.]+)', r)[1]
        for r in claimed['dependencies'] + extras['all'] + extras['benchmark']
        if '>=' in r
    }
    assert {'torch', 'mmengine', 'mmdet', 'timm', 'huggingface-hub'} < bounds.keys()
    for name, bound in bounds.items():
        if name not in others:  # no part of the core
            pinned = {name_of(key): value for key, value in oldest.items()}[name]
            assert (pinned + '.0').startswith(bound + '.'), f'{name}>={bound}, and the oldest row has {pinned}'
    assert NEEDED['mmengine'][0] == oldest['mmengine'] and NEEDED['mmcv'][0] == oldest['mmcv-lite']
    assert claimed['requires-python'] == '>=' + next(row.python for row in matrix.ROWS if row.name == 'oldest')


def test_both_whole_sets_differ_in_torch_and_mmcv_only():
    tested, compiled = pins('tested'), pins('compiled')
    rest = tested.keys() & compiled.keys() - {'torch', 'torchvision'}
    assert len(rest) == 4 and all(tested[name] == compiled[name] for name in rest)
    assert tested['mmcv-lite'] == compiled['mmcv']


def import_with(tmp_path, monkeypatch, **modules):
    """Import the package where modules are as described: ``None`` for none, or the version that they give."""
    for name, version in modules.items():
        if version:
            (tmp_path / f'{name}.py').write_text(f'__version__ = {version!r}\n')
    blocked = [name for name, version in modules.items() if version is None]
    code = f'import sys; sys.modules.update(dict.fromkeys({blocked})); import nextvit_mm'
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    'modules, message',
    [
        (dict(mmengine=None), "nextvit_mm needs mmengine 0.10.3 or later, and there is none: pip install 'mmengine>="),
        (dict(mmengine='0.10.2'), 'nextvit_mm needs mmengine 0.10.3 or later, and 0.10.2 is installed: pip install'),
        (
            dict(mmengine='0.10.12', mmcv=None),
            'nextvit_mm needs mmcv 2.0.0 or later, and there is none: pip install mmcv-',
        ),
        (dict(mmengine='0.10.3', mmcv='1.7.2'), 'nextvit_mm needs mmcv 2.0.0 or later, and 1.7.2 is installed'),
    ],
)
def test_a_missing_or_old_mm_package_is_one_line(modules, message, tmp_path, monkeypatch):
    assert import_with(tmp_path, monkeypatch, **modules).startswith(f'ImportError: {message}')


@pytest.mark.parametrize('write', [backends.write_torch, backends.write_coreml])
def test_torch_2_1_exports_no_program(write, tmp_path, monkeypatch):
    monkeypatch.delattr(torch.export, 'Dim')
    with pytest.raises(UserError, match='needs torch 2.2 or later, and .* is installed'):
        write(torch.nn.Identity(), torch.rand(1, 3, 8, 8), tmp_path / 'model', ['out'])
    assert not list(tmp_path.iterdir())


def test_the_core_is_there_and_every_row_has_its_file(matrix):
    assert not [path for path in matrix.CORE if not (ROOT / path).exists()]
    assert all((ROOT / 'requirements' / f'{row.requirements}.txt').is_file() for row in matrix.ROWS)


def test_a_row_without_its_python_is_named_as_not_run(matrix):
    result = matrix.run_row(matrix.Row('tested', 'tested', '3.99'), keep=False)
    assert result['not_run'] == 'no python3.99 on the PATH'
    assert '| tested | 3.11 | not run: no python3.99 on the PATH |' in matrix.table(dict(tested=result))


def test_an_environment_other_than_asked_for_is_no_result(matrix, monkeypatch):
    """Such as one in which pip put mmengine over onedl-mmengine."""
    row = matrix.Row('onedl', 'onedl', '3.11')
    there = pins('onedl')
    for changes, word in (
        (dict(numpy='2.4.6'), 'numpy==1.26.4 is asked for, and 2.4.6 was installed'),
        (dict(mmengine='0.10.7'), 'mmengine and onedl-mmengine'),
    ):
        found = {**there, **changes}
        monkeypatch.setattr(matrix.subprocess, 'check_output', lambda _, found=found: matrix.json.dumps(found))
        with pytest.raises(matrix.NotRun, match=word):
            matrix.installed(sys.executable, row)
    monkeypatch.setattr(matrix.subprocess, 'check_output', lambda _: matrix.json.dumps(there))
    assert matrix.shown(matrix.installed(sys.executable, row), 'mmengine') == 'onedl-mmengine 0.10.12'


@pytest.mark.slow
def test_counts_are_those_of_the_tests_that_ran(matrix, monkeypatch, tmp_path):
    test = tmp_path / 'test_core.py'
    test.write_text(
        'import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip("no")\n'
        '@pytest.fixture\ndef broken(): 1 / 0\ndef test_d(broken): pass\n'
    )
    monkeypatch.setattr(matrix, 'CORE', (str(test),))
    (tmp_path / 'row').mkdir()
    monkeypatch.setattr(matrix, 'ROOT', tmp_path)
    assert matrix.run_core(sys.executable, tmp_path / 'row') == dict(passed=1, failed=2, skipped=1)


def test_the_table_of_the_docs_is_one_that_the_command_prints(matrix):
    printed = matrix.table({}).splitlines()
    table = (ROOT / 'docs' / 'install.md').read_text().split(printed[0])[1].split('\n\n')[0].splitlines()[1:]
    assert table[0] == printed[1] and len(table) == len(printed) - 1
    for line, empty in zip(table[1:], printed[2:]):
        assert line.split(' | ')[:2] == empty.split(' | ')[:2] and line.count('|') == empty.count('|')
        assert 'not run' in line or re.search(r'\| [1-9]\d* \| 0 \| \d+ \| 20\d\d-\d\d-\d\d \|$', line), line
