"""tools/reproduce.py: the paper's tables with this project's columns."""

import csv
import io
import json

import matplotlib.image
import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.reproduction.compare import Comparison
from nextvit_mm.reproduction.figures import draw_table
from nextvit_mm.reproduction.printing import print_table
from nextvit_mm.reproduction.tables import make_table

from ..conftest import ROOT, call_tool
from .test_report import write_run

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')


def as_text(table, style):
    file = io.StringIO()
    print_table(table, style, file)
    return file.getvalue()


def as_dicts(table):
    return list(csv.DictReader(io.StringIO(as_text(table, 'csv'))))


def write_config(work_dir, name, time='20260101_000000'):
    file = work_dir / time / 'vis_data' / 'config.py'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"custom_hooks = [dict(type='PublishedRunHook', run='{name}')]\n")
    return file.parent.parent


@pytest.fixture(scope='module')
def table5():
    return make_table(5)


@pytest.mark.slow
def test_every_row_and_nothing_run(table5):
    rows = as_dicts(table5)
    assert len(rows) == 51 + 6  # the paper's, and from 6M weights
    ours = [row for row in rows if row['backbone'].startswith('Next-ViT')]
    assert len(ours) == 12 and {row['mIoU: ours'] for row in ours} == {'not run'}
    assert {row['mIoU: ours'] for row in rows if row not in ours} == {''}
    upernet = next(row for row in ours if (row['method'], row['backbone']) == ('UperNet 160k', 'Next-ViT-B'))
    assert (upernet['mIoU: paper'], upernet['mIoU: release'], upernet['mIoU MS: release']) == ('49.3†', '50.4', '51.1')
    assert (upernet['Params (M): actual'], upernet['FLOPs (G): counted so']) == ('78.3', '1021')
    assert next(r for r in rows if r['backbone'] == 'ConvNeXt-B')['paper: coreml_ms'] == '1074.4'


def test_text_and_markdown_have_the_misprints_explained(table5):
    for style in ('text', 'markdown'):
        text = as_text(table5, style)
        assert '331†' in text and 'prints 331 for 311' in text and 'not run' in text
    lines = [line for line in text.splitlines() if line.startswith('|')]
    assert len(lines) == 2 + 57 and len({line.count('|') for line in lines}) == 1


@pytest.mark.slow
def test_runs_are_found_and_measured_up(tmp_path):
    finished, tested, going_on, other = (tmp_path / name for name in ('a', 'b', 'c', 'd'))
    write_run(finished, 'fpn_80k_nextvit_small', scale=2.0)
    write_config(finished, 'fpn_80k_nextvit_small')
    # Only tested, with several scales.
    folder = write_config(tested, 'upernet_160k_nextvit_small')
    (folder / 'x.json').write_text(json.dumps({'mIoU': 48.3, 'time': 1.0}))
    folder = write_config(tested, 'upernet_160k_nextvit_small', '20260102_000000')
    (folder / 'y.json').write_text(json.dumps({'ms/mIoU': 49.2}))
    write_run(going_on, 'upernet_160k_nextvit_base', until=0.5)
    write_config(going_on, 'upernet_160k_nextvit_base')
    write_run(other, 'fpn_80k_nextvit_large', comparison=False)
    write_config(other, 'fpn_80k_nextvit_large')
    Comparison('fpn_80k_nextvit_large', None, ['the training set has 7 images']).save(other)
    (tmp_path / 'e' / '1' / 'vis_data').mkdir(parents=True)
    (tmp_path / 'e' / '1' / 'vis_data' / 'config.py').write_text('a = 1')  # of something else

    table = make_table(5, [str(tmp_path)], baselines=False)
    found = {(r['method'], r['backbone']): r for r in as_dicts(table)}
    assert found['Semantic FPN 80k', 'Next-ViT-S']['mIoU: ours'] == '46.5'
    assert found['Semantic FPN 80k', 'Next-ViT-S']['mIoU: Δ'] == '+0.0'
    upernet = found['UperNet 160k', 'Next-ViT-S']
    assert [upernet[c] for c in ('mIoU: ours', 'mIoU: Δ', 'mIoU MS: ours', 'mIoU MS: Δ')] == [
        '48.3‡',
        '+0.2',
        '49.2‡',
        '+0.2',
    ]
    assert found['UperNet 160k', 'Next-ViT-B']['mIoU: ours'].endswith('*')
    assert found['Semantic FPN 80k', 'Next-ViT-L']['mIoU: ours'].endswith('*')
    assert found['Semantic FPN 80k', 'Next-ViT-B']['mIoU: ours'] == 'not run'
    text = as_text(table, 'text')
    assert 'mIoU, mIoU MS by tools/test.py' in text
    assert 'at iter 80,000 of 160,000' in text and '7 images' in text and str(finished) in text
    draw_table(table, str(tmp_path / 'figure.png'))
    assert matplotlib.image.imread(tmp_path / 'figure.png').std() > 0.02


@pytest.mark.slow
def test_detection_from_the_command_line(tmp_path):
    write_run(tmp_path / 'runs' / 'det', 'mask_rcnn_3x_nextvit_large')
    write_config(tmp_path / 'runs' / 'det', 'mask_rcnn_3x_nextvit_large')
    call_tool(
        ROOT / 'tools' / 'reproduce.py',
        '--table',
        6,
        '--runs',
        tmp_path / 'runs',
        '--format',
        'csv',
        '--out',
        tmp_path / 'table.csv',
        '--plot',
        tmp_path / 'figure.png',
    )
    with open(tmp_path / 'table.csv') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 49
    large = next(r for r in rows if (r['method'], r['backbone']) == ('Mask R-CNN 3x', 'Next-ViT-L'))
    assert [large[c] for c in ('box AP: ours', 'box AP: Δ', 'mask AP: ours')] == ['50.2', '+0.0', '44.8']
    assert (tmp_path / 'figure.png').stat().st_size > 10000


def test_a_missing_folder_of_runs():
    with pytest.raises(UserError, match='nowhere'):
        make_table(6, ['nowhere'])


def test_of_several_runs_the_finished_one_is_shown_and_the_others_are_named(tmp_path):
    for name, kwargs in (('plain', dict(scale=2.0)), ('z_released', dict(until=0.5))):
        write_run(tmp_path / name, 'fpn_80k_nextvit_small', **kwargs)
        write_config(tmp_path / name, 'fpn_80k_nextvit_small')
    table = make_table(5, [str(tmp_path)], baselines=False)
    row = next(r for r in as_dicts(table) if (r['method'], r['backbone']) == ('Semantic FPN 80k', 'Next-ViT-S'))
    assert row['mIoU: ours'] == '46.5'
    note = f'{tmp_path / "z_released"} (at iter 20,000 of 40,000; not shown: there is another)'
    assert note in as_text(table, 'text')


def test_a_test_counts_only_if_it_is_newer_than_the_training(tmp_path):
    write_run(tmp_path, 'fpn_80k_nextvit_small')
    write_config(tmp_path, 'fpn_80k_nextvit_small')
    for time, miou in (('20250101_000000', 10.0), ('20270101_000000', 46.6)):
        folder = write_config(tmp_path, 'fpn_80k_nextvit_small', time)
        (folder / 'x.json').write_text(json.dumps({'mIoU': miou}))
    rows = as_dicts(make_table(5, [str(tmp_path)], baselines=False))
    assert rows[0]['mIoU: ours'] == '46.6‡'


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    for name, spoil in (
        ('json', lambda d: (d / 'x.json').write_text('{')),
        ('config', lambda d: (d / 'vis_data' / 'config.py').write_text('a = ')),
        ('name', lambda d: write_config(d.parent, 'fpn_80k', d.name)),
        ('log', lambda d: (d / 'vis_data' / 'scalars.json').write_bytes(b'\xff\n{}')),
    ):
        folder = write_config(tmp_path / name, 'fpn_80k_nextvit_small')
        (folder / 'y.json').write_text(json.dumps({'mIoU': 10.0}))
        spoil(folder)
    table = make_table(5, [str(tmp_path)], baselines=False)
    assert len(table.problems) == 4 and {row['mIoU: ours'] for row in as_dicts(table)} == {'not run'}
    text = as_text(table, 'text')
    assert all(f'{tmp_path / name} was left out' in text for name in ('json', 'config', 'name', 'log'))


@pytest.mark.slow
@pytest.mark.parametrize('flags, words', [(['--plot', 'x.pdf'], 'PNG'), (['--out', '/proc/x'], '/proc/x cannot be')])
def test_what_cannot_be_written(flags, words, tmp_path):
    result = call_tool(
        ROOT / 'tools' / 'reproduce.py', '--table', 6, *flags, cwd=tmp_path, check=False, PYTHONPATH=str(ROOT)
    )
    assert result.returncode == 2 and words in result.stderr and 'Traceback' not in result.stderr
