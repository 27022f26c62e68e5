"""tools/benchmark.py as a user runs it, at sizes that say nothing of speed."""

import json

import pytest

from ..conftest import ROOT, call_tool

pytestmark = pytest.mark.usefixtures('small_kernels')
TOOL = ROOT / 'tools' / 'benchmark.py'
QUICK = ['--rounds', '1', '--warmup', '0', '--threads', '1']


@pytest.mark.slow
def test_latency(tmp_path):
    files = {kind: tmp_path / f'run.{kind}' for kind in ('md', 'json', 'png')}
    result = call_tool(
        TOOL,
        'latency',
        '--shapes',
        '1x64',
        '--runtimes',
        'eager',
        'folded',
        '--min-time',
        '0',
        *QUICK,
        '--markdown',
        files['md'],
        '--json',
        files['json'],
        '--png',
        files['png'],
    )
    assert 'ratios to timm:nextvit_small/eager/fp32' in result.stdout and '1.00×' in result.stdout
    assert 'round 1/1' in result.stderr and 'round' not in result.stdout.splitlines()[-1]
    rows = {row['key']: row for row in json.loads(files['json'].read_text())['rows']}
    assert set(rows) == {'nextvit_s/eager/fp32', 'nextvit_s/folded/fp32', 'timm:nextvit_small/eager/fp32'}
    assert all(path.stat().st_size for path in files.values())


@pytest.mark.slow
def test_train_measures_memory(tmp_path):
    out = tmp_path / 'train.json'
    call_tool(TOOL, 'train', '--only', 'nextvit_s/fp32', '--shape', '2x32', *QUICK, '--json', out)
    (row,) = json.loads(out.read_text())['rows']
    assert row['ratio'] == 1.0 and (row['memory'] is None or row['memory'] > 2**20)


def test_mistakes_are_named_without_a_traceback():
    for arguments, message in (
        (['latency', '--candidates', 'timm:nothing'], 'timm has no nothing'),
        (['latency', '--shapes', '224'], 'BATCHxSIDE'),
        (['train', '--only', 'nextvit_s'], 'is not one of fp32'),
    ):
        result = call_tool(TOOL, *arguments, check=False)
        assert result.returncode == 2 and message in result.stderr and 'Traceback' not in result.stderr
