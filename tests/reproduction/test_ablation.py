"""Tables 1, 2, 7, 8 and 9: trained on the demo data, timed, printed."""

import csv
import io
import json

import pytest

from nextvit_mm.demo import DigitsConfig
from nextvit_mm.errors import UserError
from nextvit_mm.reproduction import ablation, ablation_runs, ablation_table

from ..conftest import ROOT, call_tool

pytest.importorskip('mmpretrain')


@pytest.fixture(scope='module')
def table8():
    return ablation.load_rows(8)


@pytest.fixture
def rows(table8):
    for row in table8:
        row.results, row.latency, row.ratio = {}, None, None
    return table8


def write_result(folder, config, metric, task='segmentation', seed=0, iterations=250):
    folder = folder / task / config / f'seed{seed}'
    folder.mkdir(parents=True)
    (folder / ablation_runs.RESULT).write_text(
        json.dumps(
            dict(
                task=task,
                config=config,
                seed=seed,
                metric=metric,
                iterations=iterations,
                batch_size=4,
                seconds=60.0,
                threads=2,
                settings={},
            )
        )
    )
    return folder


def printed(rows, style='csv', machine=None):
    file = io.StringIO()
    ablation_table.print_rows(8, rows, style, file, machine)
    return file.getvalue()


def as_dicts(rows):
    return list(csv.DictReader(io.StringIO(printed(rows))))


@pytest.mark.slow
def test_printed_figures_beside_what_was_run(rows, tmp_path):
    write_result(tmp_path, 'table2_n4_l2', 40.0)  # the network of r = 0.75, under its first row's name
    write_result(tmp_path, 'table2_n4_l2', 42.0, seed=1)
    write_result(tmp_path, 'table8_r000', 30.0)
    ablation_runs.add_results(rows, [str(tmp_path)])
    found = {row['row']: row for row in as_dicts(rows)}
    ours = found['r = 0.75 (Next-ViT-S)']
    assert (ours['mIoU: paper'], ours['mIoU: demo'], ours['box AP: demo']) == ('47.0', '41.0 ±1.4 (2)', 'not run')
    assert (ours['Params (M)'], ours['FLOPs (G)'], ours['latency (ms): paper']) == ('31.8', '5.79', '7.7')
    assert found['r = 0']['mIoU: demo'] == '30.0' and found['r = 1']['mIoU: demo'] == 'not run'
    text = printed(rows, 'markdown')
    assert '250 iterations of 4 digit pictures' in text and 'over seeds 0, 1' in text


@pytest.mark.slow
def test_runs_of_different_length_stand_in_no_table(rows, tmp_path):
    write_result(tmp_path, 'table8_r000', 30.0)
    write_result(tmp_path, 'table8_r025', 30.0, iterations=100)
    with pytest.raises(UserError, match='segmentation .* differ'):
        ablation_runs.add_results(rows, [str(tmp_path)])


def test_overlapping_folders_count_a_run_once(rows, tmp_path):
    write_result(tmp_path / 'a', 'table8_r000', 30.0)
    ablation_runs.add_results(rows, [str(tmp_path), str(tmp_path / 'a')])
    assert len(rows[0].results['segmentation']) == 1
    write_result(tmp_path / 'b', 'table8_r000', 31.0)
    with pytest.raises(UserError, match='lies twice'):
        ablation_runs.add_results(rows, [str(tmp_path)])


def test_damaged_results_and_missing_folders_are_named(rows, tmp_path):
    with pytest.raises(UserError, match='nowhere is not a folder'):
        ablation_runs.add_results(rows, [str(tmp_path / 'nowhere')])
    folder = write_result(tmp_path, 'table8_r000', 30.0)
    (folder / ablation_runs.RESULT).write_text('{"metric":')
    with pytest.raises(UserError, match=ablation_runs.RESULT):
        ablation_runs.add_results(rows, [str(tmp_path)])


@pytest.mark.slow
def test_latencies_are_measured_beside_next_vit_s(rows):
    few = [row for row in rows if row.config in ('table8_r000', 'table8_r075')]
    machine = ablation.measure_latencies(few, rounds=1, shape=(1, 3, 64, 64))
    assert few[1].ratio == 1.0 and few[0].ratio == pytest.approx(few[0].latency / few[1].latency)
    assert machine['cpu'] in printed(few, 'text', machine)
    assert as_dicts(few)[1]['latency (ms): to S'] == '1.00×'


@pytest.mark.slow
def test_rows_train_on_the_demo_data(digits, tmp_path, capsys):
    options = {
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 2,
        'train_dataloader.batch_size': 2,
        'model.data_preprocessor.size': (64, 64),
    }

    def train(cfg_options: dict) -> None:
        ablation_runs.train_rows(
            [8],
            ['segmentation'],
            str(digits),
            str(tmp_path),
            cfg_options=cfg_options,
            configs=['table8_r000'],
            digits=DigitsConfig(train=8, val=4, size=64),
        )

    for _ in range(2):  # the second time it is done before
        train(options)
    folder = tmp_path / 'segmentation' / 'table8_r000' / 'seed0'
    result = ablation_runs.read_result(folder)
    assert (result['iterations'], result['batch_size']) == (2, 2) and 0 <= result['metric'] <= 100
    text = (folder / ablation_runs.RESULT).read_text()
    older = text.replace(result['settings']['config'], '0' * 8)  # with other heads
    for found, given in ((text, {}), (older, options)):
        (folder / ablation_runs.RESULT).write_text(found)
        with pytest.raises(UserError, match='was run with other settings'):
            train(given)
    assert not list(folder.glob('*.pth')) and 'done before' in capsys.readouterr().out


@pytest.mark.slow
def test_the_tool(tmp_path):
    out = tmp_path / 'table9.md'
    call_tool(ROOT / 'tools' / 'reproduce.py', '--table', '9', '--format', 'markdown', '--out', out)
    text = out.read_text()
    assert text.count('\n| ') == 4 and 'were not legible' in text
    for arguments, message in (
        (['--table', '9', '--plot', 'x.png'], '--plot is for tables 4, 5, 6'),
        (['--table', '4', '--latency'], '--latency is for tables 1, 2, 7, 8, 9'),
    ):
        result = call_tool(ROOT / 'tools' / 'reproduce.py', *arguments, check=False)
        assert result.returncode == 2 and message in result.stderr
