"""The published classification runs: as data, in the hook, the report and Table 4."""

import csv
import io
import json
import re

import numpy as np
import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.published import PublishedEpochs, list_runs, load_run
from nextvit_mm.reproduction import hook as hook_module
from nextvit_mm.reproduction.compare import (
    EPOCH_LOSS_BAND,
    HEADLINES,
    TOP1_BAND,
    Comparison,
    is_printed_rate,
    loss_band,
    metrics_outside,
    plan_comparison,
    same_schedule_iteration,
)
from nextvit_mm.reproduction.printing import footnotes, print_table
from nextvit_mm.reproduction.report import RunReport, compare_run
from nextvit_mm.reproduction.results import find_runs
from nextvit_mm.reproduction.tables import make_table

from .test_hook import LR, build_runner, train  # noqa: F401 (a fixture)
from .test_tables import write_config

RUNS = [name for name in list_runs() if name.startswith('nextvit_')]
BEST = dict(
    nextvit_small_in1k_224=82.49,
    nextvit_base_in1k_224=83.21,
    nextvit_large_in1k_224=83.58,
    nextvit_small_in1k_384=83.58,
    nextvit_base_in1k_384=84.27,
    nextvit_large_in1k_384=84.68,
)
SMALL = load_run('nextvit_small_in1k_224')


@pytest.mark.parametrize('name', RUNS)
def test_epochs_are_means_and_evaluations(name):
    run = load_run(name)
    assert isinstance(run, PublishedEpochs) and len(run.train) == len(run.val) == run.length
    assert run.epoch_length == run.window == run.train[0]['iters'] == (625 if name.endswith('224') else 1251)
    assert (
        [r['iter'] for r in run.train]
        == [r['iter'] for r in run.val]
        == [run.epoch_length * i for i in range(1, run.length + 1)]
    )
    assert run.max_iters == run.train[-1]['iter']
    assert run.rate_iteration(run.train[0]) == 1 and run.rate_iteration(run.train[1]) == run.epoch_length + 1
    assert round(max(r['accuracy/top1'] for r in run.val), 2) == pytest.approx(BEST[name], abs=0.011)
    assert [r['accuracy/top5'] for r in run.val] == [r['acc5'] for r in run.train]


def neighbours(values):
    """Each value but the first and last three, and the mean of the six around it."""
    return [(values[i], np.mean([*values[i - 3 : i], *values[i + 1 : i + 4]])) for i in range(3, len(values) - 3)]


@pytest.mark.parametrize('name', RUNS)
def test_the_bands_are_wider_than_the_published_scatter(name):
    """The figures of the comment beside the bands; the first epochs of the curves are steep, and left out."""
    run = load_run(name)
    losses = np.array([value / mean - 1 for value, mean in neighbours([r['loss'] for r in run.train])][2:])
    assert 0.0045 < losses.std() < 0.0065 and 0.01 < abs(losses).max() < 0.0185
    both = np.minimum(abs(losses[1:]), abs(losses[:-1]))[losses[1:] * losses[:-1] > 0]
    assert both.max() < 0.0135 < EPOCH_LOSS_BAND / 2
    errors = np.array(
        [abs(value - mean) / (100 - mean) for value, mean in neighbours([r['accuracy/top1'] for r in run.val])][2:]
    )
    if name.endswith('384'):
        assert errors.max() < 0.0095
    else:
        assert 0.049 < errors.max() < 0.0595 < TOP1_BAND and errors[-100:].max() < 0.0315
    assert loss_band(run) == EPOCH_LOSS_BAND and loss_band(load_run('fpn_80k_nextvit_small')) == 0.1
    assert HEADLINES['accuracy/top1'](82.0) == pytest.approx(1.8)


def test_top1_is_measured_by_its_error():
    assert metrics_outside({'accuracy/top1': 80.7}, {'accuracy/top1': 82.4}) == []
    assert metrics_outside({'accuracy/top1': 80.6}, {'accuracy/top1': 82.4}) == ['accuracy/top1']


@pytest.mark.parametrize(
    'rate, printed, same',
    [
        (1.978197e-3, 1.978e-3, True),
        (1.0488e-5, 1e-5, True),
        (1.06e-5, 1e-5, False),
        (3e-6, 3e-6, True),
        (4e-6, 3e-6, False),
    ],
)
def test_rates_with_six_decimals(rate, printed, same):
    assert is_printed_rate(SMALL, rate, printed) is same


def test_the_published_recipe_is_compared_as_it_is():
    assert plan_comparison(SMALL, 2048, 300 * 625, 1281167) == Comparison(SMALL.name, 1.0)


@pytest.mark.parametrize('images, epoch', [(1024, 1251), (4096, 312), (2048, 626)])
def test_another_batch_is_laid_epoch_on_epoch(images, epoch):
    """Epochs of 1,251 iterations are not twice as long as those of 625."""
    found = plan_comparison(SMALL, images, 300 * epoch, 1281167)
    assert found.scale == pytest.approx(epoch / 625) and len(found.remarks) == 1
    for number, record in enumerate(SMALL.train):
        assert round(record['iter'] * found.scale) == epoch * (number + 1)
        first = same_schedule_iteration(SMALL.rate_iteration(record), found.scale)
        assert epoch * number < first <= epoch * (number + 1)


def test_another_length_is_not_compared():
    assert plan_comparison(SMALL, 2048, 100 * 625, 1281167).scale is None


# --- the hook -----------------------------------------------------------------------------------------------------


def small_epochs(name='nextvit_small_in1k_224', loss=1.0, miou=50.0, lr=LR):
    """Four epochs of 100 iterations of 4 images; two are left over."""
    ends = range(100, 401, 100)
    return PublishedEpochs(
        name,
        4,
        'epochs',
        4,
        402,
        train=[dict(epoch=i, iter=e, lr=lr, loss=loss, acc1=1.0) for i, e in enumerate(ends)],
        val=[dict(iter=e, mIoU=miou) for e in ends],
    )


@pytest.mark.slow
def test_the_hook_compares_every_epoch(train):  # noqa: F811
    runner, log = train(small_epochs(loss=1.04, miou=49.0), images=400, epochs=4, pretrained=False)
    assert 'compared with the published run nextvit_small_in1k_224' in log and 'not compared' not in log
    assert len(re.findall('mean over 100 iterations', log)) == 4 and len(re.findall(', evaluation,', log)) == 4
    assert 'left the published run' not in log


@pytest.mark.slow
@pytest.mark.parametrize(
    'run, words',
    [(small_epochs(loss=1.06), 'the loss is 1.0000'), (small_epochs(lr=0.010001), 'learning rate is 1.000e-02')],
)
def test_the_hook_notices_an_epoch_outside(train, run, words):  # noqa: F811
    log = train(run, images=400, epochs=4, pretrained=False)[1]
    assert log.count('left the published run') == 1 and words in log


@pytest.mark.slow
def test_epochs_of_half_the_batch_in_the_hook(train):  # noqa: F811
    log = train(small_epochs(), images=402, epochs=4, batch_size=2, pretrained=False)[1]
    assert 'i / 2.01' in log and len(re.findall('mean over 201 iterations', log)) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, cfg, words',
    [
        (
            'nextvit_small_in1k_224',
            dict(checkpoint='nextvit-small_in1k'),
            'from nextvit-small_in1k, the published one from random weights',
        ),
        ('nextvit_small_in1k_384', dict(pretrained=False), 'random weights, the published one from nextvit-small_in1k'),
        ('nextvit_small_in1k_384', dict(checkpoint='nextvit-base_in1k'), 'from nextvit-base_in1k, the published one'),
        ('nextvit_small_in1k_384', dict(checkpoint='nextvit-small_6m'), 'from nextvit-small_6m, the published one'),
        ('nextvit_small_in1k_384', dict(checkpoint='nextvit-small_in1k'), None),
        ('nextvit_small_in1k_384', dict(checkpoint='work_dirs/nextvit_s_224/epoch_300.pth'), None),
    ],
)
def test_what_a_classifier_must_start_from(train, name, cfg, words):  # noqa: F811
    log = train(small_epochs(name), images=400, epochs=4, **cfg)[1]
    assert ('not compared' in log) == (words is not None) and (words or '') in log


@pytest.mark.slow
def test_weights_of_the_whole_classifier_count_as_its_start(tmp_path, monkeypatch):
    """A 384 run starts by ``load_from``; in one of 224 that is not the published recipe."""
    for name, off in (('nextvit_small_in1k_384', False), ('nextvit_small_in1k_224', True)):
        monkeypatch.setattr(hook_module, 'load_run', lambda _, name=name: small_epochs(name))
        runner = build_runner(tmp_path / name, images=400, epochs=4, pretrained=False)
        runner.cfg.load_from = 'nextvit-small_in1k'
        runner.train()
        assert (Comparison.load(tmp_path / name).scale is None) is off


# --- the report ---------------------------------------------------------------------------------------------------


def write_epochs(work_dir, name, epochs, factor=1.0, top1=0.0):
    """A log of a published run itself, of five lines an epoch, and its record."""
    run = load_run(name)
    lines = []
    for i, (record, val) in enumerate(zip(run.train[:epochs], run.val), start=1):
        for k in range(4, -1, -1):
            step = record['iter'] - k * (run.epoch_length // 5)
            lines.append(dict(lr=record['lr'], loss=factor * record['loss'], iter=step, step=step))
        lines.append({'accuracy/top1': val['accuracy/top1'] + top1, 'accuracy/top5': val['accuracy/top5'], 'step': i})
    file = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    Comparison(name, 1.0).save(work_dir)
    return run


@pytest.mark.parametrize('name', RUNS)
def test_a_published_classifier_beside_itself(name, tmp_path):
    run = write_epochs(tmp_path, name, epochs=30)
    points = RunReport(tmp_path).points()
    assert len(points) == 10 + 30 and all(p.inside and p.own == pytest.approx(p.published) for p in points)
    assert [p.iteration for p in points if p.name == 'accuracy/top1'] == [r['iter'] for r in run.val[:30]]


@pytest.mark.slow
def test_a_classifier_outside_the_bands_in_table_and_picture(tmp_path, capsys):
    write_epochs(tmp_path, 'nextvit_base_in1k_384', epochs=12, factor=1.06, top1=-1.7)
    report = compare_run(str(tmp_path))
    assert not any(p.inside for p in report.points())
    assert 'OUTSIDE' in capsys.readouterr().out and (tmp_path / 'published_run.png').stat().st_size > 10000


# --- Table 4 ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_table_4_finds_trained_and_tested_classifiers(tmp_path):
    pytest.importorskip('mmpretrain')
    write_epochs(tmp_path / 'a', 'nextvit_small_in1k_384', epochs=30)
    write_config(tmp_path / 'a', 'nextvit_small_in1k_384')
    for folder, config in (
        ('b', "custom_hooks = [dict(type='PublishedRunHook', run='nextvit_base_in1k_224')]"),
        ('c', "custom_hooks = []\nweights = 'nextvit-large_6m-384'"),
        ('d', "weights = 'nextvit-small_6m'"),
    ):
        file = tmp_path / folder / '20260101_000000' / 'vis_data' / 'config.py'
        file.parent.mkdir(parents=True)
        file.write_text(config + '\n')
        (file.parents[1] / 'x.json').write_text(json.dumps({'accuracy/top1': dict(b=83.15, c=86.32, d=84.9)[folder]}))
    # Another evaluation of the same weights, later, with timm's transform: told, but not the table's metric.
    other = tmp_path / 'd' / '20260102_000000'
    (other / 'vis_data').mkdir(parents=True)
    (other / 'vis_data' / 'config.py').write_text("weights = 'nextvit-small_6m'\ntested_pipeline = 'timm'\n")
    (other / 'x.json').write_text(json.dumps({'accuracy/top1': 85.0}))
    table = make_table(4, [str(tmp_path)], baselines=False)
    assert any('top-1 85.0 with --pipeline timm' in note for note in footnotes(table))
    text = io.StringIO()
    print_table(table, 'csv', text)
    found = {(r['method'], r['backbone']): r['top-1: ours'] for r in csv.DictReader(io.StringIO(text.getvalue()))}
    assert len(found) == 12 and table.problems == []
    assert {key: value for key, value in found.items() if value != 'not run'} == {
        ('ImageNet-1K 384', 'Next-ViT-S'): '83.6',
        ('ImageNet-1K 224', 'Next-ViT-B'): '83.2‡',
        ('ImageNet-1K 384', 'Next-ViT-L, 6M'): '86.3‡',
        ('ImageNet-1K 224', 'Next-ViT-S, 6M'): '84.9‡',
    }


def test_a_run_of_other_weights_is_named(tmp_path):
    file = tmp_path / 'a' / '20260101_000000' / 'vis_data' / 'config.py'
    file.parent.mkdir(parents=True)
    file.write_text("weights = 'resnet50'\n")
    results, problems = find_runs(str(tmp_path))
    assert results == [] and problems[0].startswith(f'{tmp_path / "a"} was left out') and 'resnet50' in problems[0]


def test_the_report_of_a_detector_against_a_classifier_has_nothing_to_compare(tmp_path):
    from .test_report import write_run

    write_run(tmp_path, 'fpn_80k_nextvit_small', until=0.3)
    points = RunReport(tmp_path, run='nextvit_small_in1k_224').points()
    assert {p.name for p in points} <= {'loss'}
    with pytest.raises(UserError, match='not a published run'):
        RunReport(tmp_path, run='nextvit_small')
