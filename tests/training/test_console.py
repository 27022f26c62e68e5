"""What a run shows on the console, and that its log file has everything."""

import io
import logging
import re
import time

import numpy as np
import pytest
from mmengine.logging import MMLogger
from rich.console import Console as Screen

from nextvit_mm.training.console import Console
from nextvit_mm.training.launch import evaluate, train
from nextvit_mm.training.progress import _Pace
from nextvit_mm.training.run import wait_for_a_new_second
from nextvit_mm.training.summary import as_table
from nextvit_mm.utils import silence

from ..conftest import DEMO, TINY, write_small

ONE_BY_ONE = {
    f'{split}_dataloader.{key}': value
    for split in ('train', 'val', 'test')
    for key, value in dict(num_workers=0, persistent_workers=False).items()
}


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    path = tmp_path_factory.mktemp('backbone') / 'tiny.py'
    path.write_text(f"model = dict(backbone=dict(type='NextViT', arch={TINY}))\n")
    return str(path)


@pytest.mark.slow
def test_a_run_in_less_than_sixty_lines_with_all_of_it_in_the_log(backbone, digits, tmp_path, capfd):
    pytest.importorskip('mmdet')
    options = {**ONE_BY_ONE, 'train_cfg.max_epochs': 2, 'default_hooks.logger.interval': 2}
    work, root = tmp_path / 'w', str(digits / 'coco')
    config = write_small(DEMO, tmp_path, backbone=False)
    train(config, str(work), root, options, backbone=backbone)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) < 60 and max(map(len, lines)) < 400
    for words in (
        f'config    {config}',
        f'data      8 pictures to train, 4 pictures to evaluate, of {root}',
        'classes   10: 0, 1, 2',
        'weights   random',
        'length    2 epochs of 4 iterations, 2 pictures each, evaluated every epoch',
        'rate      AdamW 0.0004; LinearLR, then CosineAnnealingLR',
        'evaluation after epoch 2, iteration 8',
        'epoch_2.pth (',
    ):
        assert words in out, out
    assert re.search(r'iteration 8/8 \(epoch 2/2\)  0:00:00 left  loss \d+\.\d+  rpn_cls \d', out)
    assert re.search(r'  bbox +[\d.]+ ', out) and re.search(r'  segm +[\d.]+ ', out)
    log = next(work.glob('*/*.log')).read_text()
    for words in ('System environment', 'Config:', 'Hooks will be executed', 'Epoch(train)', 'Epoch(val) [2]'):
        assert words in log and words not in out
    assert 'Running per image evaluation' in log and 'Average Precision' in log  # what pycocotools prints
    assert 'per image evaluation' not in out and 'INFO' not in out
    assert 'not compared' not in out and 'deprecated' not in out

    trained = str(work / 'mask_rcnn_nextvit_s_digits.py'), str(work / 'epoch_2.pth')
    metrics = evaluate(*trained, str(tmp_path / 't'), root)
    out = capfd.readouterr().out
    assert f'weights   {work / "epoch_2.pth"}' in out and 'data      4 pictures to test' in out
    assert as_table(metrics) in out and len(out.splitlines()) < 25

    evaluate(*trained, str(tmp_path / 'v'), root, verbose=True)
    out = capfd.readouterr().out
    assert 'System environment' in out and 'Epoch(test)' in out and as_table(metrics) in out


def test_warnings_errors_and_own_words_reach_the_console_and_others_do_not(capsys):
    MMLogger._instance_dict.clear()
    with Console() as console:
        logger = MMLogger.get_current_instance()
        logger.info('of MM')
        logger.warning('a warning')
        logger.warning('a warning')
        logger.warning('"HardDiskBackend" is the alias of "LocalBackend"')
        logger.error('an error')
        exec('logger.info("own words")', dict(logger=logger, __name__='nextvit_mm.training.x'))
        exec('logger.info("a table")', dict(logger=logger, __name__='nextvit_mm.reproduction.hook'))
        console.stop()
    assert capsys.readouterr().out == 'warning: a warning\nerror: an error\nown words\n'
    assert [type(handler) for handler in MMLogger.get_current_instance().handlers] == [logging.StreamHandler]
    with Console(verbose=True):
        assert [type(handler) for handler in MMLogger.get_current_instance().handlers] == [logging.StreamHandler]


def test_a_bar_on_a_terminal_keeps_what_is_said_above_it():
    console = Console()
    console.screen = Screen(
        file=io.StringIO(), force_terminal=True, width=90, color_system=None, _environ={'TERM': 'xterm'}
    )
    with console:
        console.advance('training', 1, 4, 'loss 1.5')
        console.say('said')
        console.advance('evaluation', 1, 2, '')
        console._bar.refresh()
        console.drop('evaluation')
        console.advance('training', 2, 4, 'loss 1.4, ' + 100 * 'x')
        console._bar.refresh()
    shown = console.screen.file.getvalue()
    assert 'said\n' in shown and 'loss 1.4' in shown and 'evaluation' in shown and '2/4' in shown
    assert max(len(re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', line)) for line in re.split(r'[\r\n]', shown)) <= 90


@pytest.mark.parametrize(
    'metrics, shown',
    [
        (
            {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': -1.0, 'coco/segm_mAP': 0.25, 'coco/bbox_mAP_copypaste': '0.5 0'},
            ['           mAP   mAP_l', '  bbox   0.500       -', '  segm   0.250        '],
        ),
        ({'aAcc': 95.0, 'mIoU': 62.5}, ['      aAcc    mIoU', '     95.00   62.50']),
        ({'aAcc': np.float32(95.0), 'mIoU': np.float32(62.5)}, ['      aAcc    mIoU', '     95.00   62.50']),
        ({}, ['no metrics']),
    ],
)
def test_evaluations_are_small_tables(metrics, shown):
    assert [line.rstrip() for line in as_table(metrics).splitlines()] == [line.rstrip() for line in shown]


def test_a_line_at_every_twentieth_and_after_a_time(monkeypatch):
    pace = _Pace()
    assert sum(pace.is_due(i, 1000) for i in range(1, 1001)) == 20
    clock = [0.0]
    monkeypatch.setattr('nextvit_mm.training.progress.time.monotonic', lambda: clock[0])
    pace, due = _Pace(share=0), []
    for second in range(0, 3000):
        clock[0] = float(second)
        if pace.is_due(second, 10**6):
            due.append(second)
    assert due == [15, 45, 105, 225, 465, 945, 1545, 2145, 2745]


def test_every_silenced_warning_has_a_reason():
    for table in (silence.OF_PYTHON, silence.OF_MMENGINE):
        assert all(len(reason) > 20 and re.compile(pattern) for pattern, reason in table.items())
    assert silence.is_silenced('"FileClient" will be deprecated in future.')
    assert not silence.is_silenced('The model and loaded state dict do not match exactly')


def test_two_runs_of_one_second_share_no_logger_and_no_visualizer():
    """MMEngine names both by the second, and would hand out the first run's, with its folder."""
    second = time.localtime(time.time())  # without an argument it is a coarser clock, some milliseconds behind
    MMLogger.get_instance(f'first_{time.strftime("%Y%m%d_%H%M%S", second)}', logger_name='mmengine')
    wait_for_a_new_second()
    assert time.localtime(time.time()) > second
