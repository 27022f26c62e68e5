"""tools/compare_run.py on logs as MMEngine writes them."""

import json

import matplotlib.image
import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.published import load_run
from nextvit_mm.reproduction.compare import Comparison
from nextvit_mm.reproduction.report import RunReport, compare_run

from ..conftest import ROOT, call_tool


def write_run(work_dir, name, until=1.0, scale=1.0, factor=1.0, interval=50, comparison=True, torn=False):
    """A log of the published run itself, every loss times ``factor``, at ``scale`` times the iterations."""
    run = load_run(name)
    last = round(until * run.max_iters * scale)
    epochs = run.unit == 'epochs'
    lines = []
    for record in run.train:
        for k in range(10):  # ten lines a mean, all of the same value
            iteration = round((record['iter'] - 500 + (k + 1) * interval) * scale)
            if iteration <= last and record.get('loss') is not None:
                values = {key: factor * value for key, value in record.items() if 'loss' in key and value is not None}
                lines.append(
                    dict(
                        lr=record['lr'],
                        **values,
                        iter=iteration,
                        step=iteration,
                        **{'published/loss': 1.0, 'published/loss_difference': 0.0},
                    )
                )
    for number, record in enumerate(run.val, start=1):
        if round(record['iter'] * scale) <= last:
            metrics = {key: value for key, value in record.items() if key != 'iter'}
            lines.append(dict(metrics, step=number if epochs else round(record['iter'] * scale)))
            lines.append({'published/evaluation/x': 1.0, 'step': 1})
    file = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(map(json.dumps, lines)) + ('\n{"loss": 1.0, "it' if torn else '\n'))
    if comparison:
        Comparison(name, scale).save(work_dir)
    return run


@pytest.mark.parametrize('name', ['mask_rcnn_1x_nextvit_small', 'fpn_80k_nextvit_small', 'upernet_160k_nextvit_large'])
def test_the_published_run_beside_itself(name, tmp_path):
    run = write_run(tmp_path, name)
    points = RunReport(tmp_path).points()
    losses = [p for p in points if p.name == 'loss']
    assert len(losses) == 10 and losses[-1].iteration == run.train[-1]['iter']
    metrics = [p for p in points if p.name != 'loss']
    assert len(metrics) == len(run.val) * (2 if 'rcnn' in name else 1)
    assert all(p.inside and p.own == pytest.approx(p.published) for p in points)


def test_a_run_at_half_the_batch_still_going_on(tmp_path):
    write_run(tmp_path, 'fpn_80k_nextvit_small', until=0.26, scale=2.0, torn=True)
    points = RunReport(tmp_path).points()
    assert [p.iteration for p in points if p.name == 'mIoU'] == [8000, 16000]
    assert max(p.iteration for p in points) <= 0.26 * 80000
    assert all(p.own == pytest.approx(p.published) for p in points)


@pytest.mark.slow
def test_a_run_outside_the_band(tmp_path, capsys):
    write_run(tmp_path, 'fpn_80k_nextvit_small', factor=1.2)
    report = compare_run(str(tmp_path))
    assert {p.inside for p in report.points() if p.name == 'loss'} == {False}
    assert 'OUTSIDE' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mask_rcnn_3x_nextvit_base', 'upernet_160k_nextvit_small'])
def test_table_and_picture_from_the_command_line(name, tmp_path):
    write_run(tmp_path / 'run', name, until=0.5, factor=1.03)
    result = call_tool(ROOT / 'tools' / 'compare_run.py', tmp_path / 'run', '--out', tmp_path / 'out.png')
    assert f'beside {name}' in ' '.join(result.stdout.split()) and 'inside' in result.stdout
    assert matplotlib.image.imread(tmp_path / 'out.png').std() > 0.02


@pytest.mark.slow
def test_a_run_that_has_hardly_begun(tmp_path, capsys):
    write_run(tmp_path, 'fpn_80k_nextvit_small', until=0.005)
    report = compare_run(str(tmp_path))
    assert report.points() == [] and 'first mean takes 500' in capsys.readouterr().out
    assert (tmp_path / 'published_run.png').is_file()


def test_runs_of_before_the_hook(tmp_path):
    write_run(tmp_path, 'fpn_80k_nextvit_small', scale=2.0, comparison=False)
    with pytest.raises(UserError, match='--run'):
        RunReport(tmp_path)
    points = RunReport(tmp_path, run='fpn_80k_nextvit_small', scale=2).points()
    assert len(points) == 20 and all(p.inside for p in points)


def test_what_cannot_be_compared_says_why(tmp_path):
    write_run(tmp_path, 'fpn_80k_nextvit_small', comparison=False)
    Comparison('fpn_80k_nextvit_small', None, ['the training set has 7 images']).save(tmp_path)
    with pytest.raises(UserError, match='7 images'):
        RunReport(tmp_path)


def test_other_runs_are_refused(tmp_path):
    write_run(tmp_path, 'fpn_80k_nextvit_small')
    with pytest.raises(UserError, match='not a published run'):
        RunReport(tmp_path, run='resnet')


def test_a_folder_without_a_log(tmp_path):
    result = call_tool(ROOT / 'tools' / 'compare_run.py', tmp_path, check=False)
    assert result.returncode == 2 and 'holds no log' in result.stderr and 'Traceback' not in result.stderr


@pytest.mark.parametrize('scale', ['0', '-1', 'nan'])
def test_a_scale_that_makes_no_sense(scale, tmp_path):
    write_run(tmp_path, 'fpn_80k_nextvit_small')
    result = call_tool(ROOT / 'tools' / 'compare_run.py', tmp_path, '--scale', scale, check=False)
    assert result.returncode == 2 and 'must be more than 0' in result.stderr


@pytest.mark.slow
def test_a_run_that_diverged_is_outside(tmp_path, capsys):
    write_run(tmp_path, 'fpn_80k_nextvit_small')
    file = next(tmp_path.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text(
        '\n'.join(json.dumps({**r, 'loss': float('nan')} if r.get('iter', 0) > 20000 else r) for r in records)
    )
    points = [p for p in compare_run(str(tmp_path)).points() if p.name == 'loss']
    assert [p.inside for p in points] == [p.iteration <= 20000 for p in points]
    assert 'not finite from iteration 20,050 on' in capsys.readouterr().out


def test_the_hooks_own_means_are_taken(tmp_path):
    """They are over every iteration and process; a log's lines are not."""
    write_run(tmp_path, 'fpn_80k_nextvit_small', factor=3.0)
    file = next(tmp_path.glob('*/vis_data/scalars.json'))
    with open(file, 'a') as log:
        log.write(json.dumps({'published/mean/loss': 1.0, 'published/mean/loss_difference': 0.25, 'step': 500}) + '\n')
    assert RunReport(tmp_path).window_means('loss')[1][0] == 1.25
