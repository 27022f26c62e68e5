"""Going on from a checkpoint: the right one, with the flags of the start, the same data, or not at all."""

import os
import shutil
import time
from itertools import islice
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.utils.data import DataLoader

from nextvit_mm.errors import UserError
from nextvit_mm.training.changes import find_changes, kind_of, read_config_text
from nextvit_mm.training.resuming import Point, check_changes, find_checkpoint
from nextvit_mm.training.sampling import build_train_loader, move_forward
from nextvit_mm.utils.logs import read_scalars

from .runs import ITERATIONS, run, same, weights, write_config, write_pictures


def rates(work_dir) -> list[float]:
    return [record['lr'] for record in read_scalars(work_dir)[0]]


@pytest.mark.slow
def test_resume_needs_the_work_dir_alone_and_a_new_schedule_is_followed(tmp_path, capfd):
    """The flags of the start come back; more epochs have the rates and the weights of a run that had them at once."""
    pytest.importorskip('mmpretrain')
    config = write_config(tmp_path, model=dict(backbone=dict(frozen_stages=2, norm_eval=True)))
    longer = {'param_scheduler.1.T_max': 3, 'train_cfg.max_epochs': 3}
    options = {'optim_wrapper.optimizer.weight_decay': 0.3}
    shutil.copytree(tmp_path / 'pictures', tmp_path / 'elsewhere')
    flags = dict(no_pretrained=True, data_root=str(tmp_path / 'elsewhere'), seed=7)
    run(config, tmp_path / 'whole', cfg_options={**options, **longer}, **flags)
    shorter = {'param_scheduler.1.T_max': 1, 'train_cfg.max_epochs': 1}
    run(config, tmp_path / 'w', cfg_options={**options, **shorter}, **flags)
    os.rename(tmp_path / 'w', tmp_path / 'moved')
    shutil.rmtree(tmp_path / 'pictures')  # where the config alone would look
    capfd.readouterr()
    run(config, tmp_path / 'moved', resume='auto', cfg_options=longer)
    told = ''.join(capfd.readouterr())
    assert same(tmp_path / 'moved' / 'epoch_3.pth', tmp_path / 'whole' / 'epoch_3.pth')
    assert rates(tmp_path / 'moved') == rates(tmp_path / 'whole')
    for words in ('--no-pretrained', '--data-root', 'optim_wrapper.optimizer.weight_decay=0.3'):
        assert words in told.split('as when the run was started: ')[1].splitlines()[0]
    assert 'schedule: train_cfg.max_epochs 1 → 3' in told and 'the rate follows the new schedule: 0.00' in told


@HOOKS.register_module(force=True)
class DeathHook(Hook):
    """Ends the process, as far as a test can, in an iteration or in the evaluation after an epoch."""

    scores: ClassVar[dict[str, float]] = {}

    def __init__(self, iteration: int = 0, evaluation: int = 0) -> None:
        self.iteration, self.evaluation = iteration, evaluation

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            raise SystemExit

    def before_val_epoch(self, runner):
        if runner.epoch == self.evaluation:
            raise SystemExit
        self.scores['top1'] = {1: 30.0, 2: 5.0, 3: 20.0}[runner.epoch]


@pytest.mark.slow
@pytest.mark.parametrize('death', [dict(iteration=5), dict(iteration=8), dict(evaluation=3)])
def test_an_evaluation_that_a_checkpoint_does_not_know_is_made_again(death, tmp_path, monkeypatch, capsys):
    """Rates that follow a metric, the best checkpoint and the patience of EarlyStoppingHook depend on it."""
    accuracy = pytest.importorskip('mmpretrain.evaluation').Accuracy
    monkeypatch.setattr(accuracy, 'compute_metrics', lambda *_: dict(DeathHook.scores))
    follow = dict(monitor='accuracy/top1', rule='greater')
    hook, patience = dict(type='mmengine.DeathHook'), dict(type='EarlyStoppingHook', patience=2, **follow)
    changes = dict(
        param_scheduler=[dict(type='ReduceOnPlateauLR', factor=0.1, patience=0, by_epoch=True, **follow)],
        default_hooks=dict(checkpoint=dict(save_best='accuracy/top1', rule='greater')),
        train_cfg=dict(max_epochs=5),
    )
    config = write_config(tmp_path, custom_hooks=[hook, patience], **changes)
    dying = write_config(tmp_path, 'dying.py', custom_hooks=[dict(hook, **death), patience], **changes)
    run(config, tmp_path / 'whole')
    with pytest.raises(SystemExit):
        run(dying, tmp_path / 'w')
    run(config, tmp_path / 'w', resume='auto')
    assert same(tmp_path / 'w' / 'epoch_3.pth', tmp_path / 'whole' / 'epoch_3.pth')  # and no epoch_4.pth
    found = [[sorted(path.name for path in (tmp_path / name).glob('*.pth')) for name in ('whole', 'w')]]
    found += [[[record['accuracy/top1'] for record in read_scalars(tmp_path / name)[1]] for name in ('whole', 'w')]]
    assert found == [[['best_accuracy_top1_epoch_1.pth', 'epoch_3.pth']] * 2, [[30.0, 5.0, 20.0]] * 2]
    assert rates(tmp_path / 'w') == rates(tmp_path / 'whole')
    again = 'was written before its evaluation ended: evaluating now'
    assert (again in capsys.readouterr().out) == (death != dict(iteration=5))  # MMEngine saves a new best again


@pytest.mark.slow
def test_a_run_that_is_finished_says_so(tmp_path, capsys):
    config = write_config(tmp_path, train_cfg=dict(max_epochs=1))
    for _ in range(2):
        run(config, tmp_path / 'w', resume='auto')
    out = capsys.readouterr().out
    assert out.count('this run is finished, with epoch 1 of 1: nothing is left to train') == 1
    assert out.count('evaluation after epoch') == 1


@pytest.mark.slow
def test_epochs_that_were_shorter_count_as_epochs(tmp_path):
    """In the rate of a new schedule."""
    schedule = [dict(type='MultiStepLR', by_epoch=True, milestones=[1])]
    config = write_config(tmp_path, param_scheduler=schedule, train_dataloader=dict(batch_size=6))
    run(config, tmp_path / 'w', cfg_options={'train_cfg.max_epochs': 1})
    options = {'train_cfg.max_epochs': 2, 'train_dataloader.batch_size': 2}
    run(config, tmp_path / 'w', resume='auto', allow_changes=True, cfg_options=options)
    assert rates(tmp_path / 'w') == pytest.approx([1e-3, 1e-4, 1e-4, 1e-4])


@pytest.mark.slow
def test_a_schedule_that_ends_before_the_run_is_said(tmp_path, capfd):
    pytest.importorskip('mmpretrain')
    schedule = [dict(type='MultiStepLR', by_epoch=True, milestones=[1], begin=0, end=1)]
    config = write_config(tmp_path, param_scheduler=schedule)
    run(config, tmp_path / 'w', cfg_options={'train_cfg.max_epochs': 1})
    run(config, tmp_path / 'w', resume='auto', cfg_options={'train_cfg.max_epochs': 2})
    told = ''.join(capfd.readouterr())
    assert 'the last scheduler ends at epoch 1 of 2: the rate stays' in told and 'param_scheduler.0.end=' in told


@pytest.mark.slow
def test_what_differs_is_named_and_refused_unless_it_is_allowed(tmp_path):
    pytest.importorskip('mmpretrain')
    config = write_config(tmp_path)
    run(config, tmp_path / 'w', cfg_options={'train_cfg.max_epochs': 1})
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / 'w').iterdir()}
    for options, words in (
        ({'model.backbone.frozen_stages': 1}, r'frozen parts: model.backbone.frozen_stages -1 → 1'),
        ({'model.backbone.drop_path_rate': 0.1}, r'network: model.backbone.drop_path_rate 0.2 → 0.1'),
        ({'model.data_preprocessor.num_classes': 3}, r'classes: model.data_preprocessor.num_classes 2 → 3'),
        ({'train_dataloader.batch_size': 3}, r'data: train_dataloader.batch_size 2 → 3'),
        ({'optim_wrapper.optimizer.lr': 1.0}, r'optimizer: optim_wrapper.optimizer.lr 0.001 → 1.0'),
    ):
        with pytest.raises(UserError, match=words) as caught:
            run(config, tmp_path / 'w', resume='auto', cfg_options=options)
        assert '--allow-changes' in str(caught.value)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / 'w').iterdir()} == before
    write_pictures(tmp_path / 'pictures', 8)
    with pytest.raises(UserError, match='data: number of pictures 6 → 8'):
        run(config, tmp_path / 'w', resume='auto')
    allowed = {'optim_wrapper.optimizer.lr': 1e-5, 'train_cfg.max_epochs': 2}
    run(config, tmp_path / 'w', resume='auto', allow_changes=True, cfg_options=allowed)
    assert max(rates(tmp_path / 'w')[3:]) <= 1e-5  # and not the checkpoint's
    with pytest.raises(UserError, match='does not fit the model'):  # every weight, or none
        other = {'model.backbone.arch.stem_channels': (16, 8, 24), 'train_cfg.max_epochs': 3}
        run(config, tmp_path / 'w', resume='auto', allow_changes=True, cfg_options=other)


def test_kinds_of_changes():
    old = read_config_text(
        "a = 1\nmodel = dict(type='mmdet.MaskRCNN', norm=dict(type='SyncBN'), s=(1, 2), init_cfg=dict(type='X'))\n"
        "optim_wrapper = dict(type='AmpOptimWrapper', clip_grad=None)\nwork_dir = __import__('os').getcwd()\n"
        "train_dataloader = dict(num_workers=2, dataset=dict(data_root='a', pipeline=[dict(type='Resize', k=1)]))\n"
    )
    assert old['work_dir'] == "__import__('os').getcwd()"  # nothing is run
    new = read_config_text(
        "model = dict(type='MaskRCNN', norm=dict(type='BN'), s=[1, 2], init_cfg=None)\n"
        "optim_wrapper = dict(type='OptimWrapper')\n"
        "train_dataloader = dict(num_workers=0, dataset=dict(data_root='b', pipeline=[dict(type='Resize', k=2)]))\n"
    )
    assert [str(change) for change in find_changes(old, new)] == [
        'precision: optim_wrapper.type AmpOptimWrapper → OptimWrapper',
        'place of the data: train_dataloader.dataset.data_root a → b',
        'data: train_dataloader.dataset.pipeline.0.k 1 → 2',
    ]
    assert kind_of('model.roi_head.bbox_head.num_classes') == 'classes' and kind_of('val_cfg.type') is None
    assert check_changes(Point('x', 0, 0), 'a = 1', False) == []  # a file without a config is said, and gone on from


def checkpoint(path, number: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(number=number), path)
    os.utime(path, ns=(number, number))
    return str(path)


def test_which_checkpoint_is_gone_on_from(tmp_path):
    assert find_checkpoint(str(tmp_path / 'none')) is None
    original = checkpoint(tmp_path / 'a' / 'epoch_1.pth', 1)
    (tmp_path / 'a' / 'last_checkpoint').write_text(original)
    assert find_checkpoint(str(tmp_path / 'a')) == original
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    copied = str(tmp_path / 'b' / 'epoch_1.pth')
    assert find_checkpoint(str(tmp_path / 'b')) == copied  # and not the original's
    shutil.rmtree(tmp_path / 'a')
    assert find_checkpoint(str(tmp_path / 'b')) == copied
    other = checkpoint(tmp_path / 'elsewhere' / 'b' / 'epoch_5.pth', 5)
    (tmp_path / 'b' / 'last_checkpoint').write_text(other)
    assert find_checkpoint(str(tmp_path / 'b')) == other  # out_dir of the hook
    checkpoint(tmp_path / 'b' / 'epoch_2.pth', 2)
    for broken in ('', str(tmp_path / 'b' / 'epoch_3.pth')):  # cut off, or removed
        (tmp_path / 'b' / 'last_checkpoint').write_text(broken)
        assert find_checkpoint(str(tmp_path / 'b')) == str(tmp_path / 'b' / 'epoch_2.pth')
    (tmp_path / 'b' / 'epoch_3.pth').write_bytes((tmp_path / 'b' / 'epoch_2.pth').read_bytes()[:300])
    assert find_checkpoint(str(tmp_path / 'b')) == str(tmp_path / 'b' / 'epoch_2.pth')
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        (tmp_path / 'b' / name).unlink()
    with pytest.raises(UserError, match='holds no other checkpoint'):
        find_checkpoint(str(tmp_path / 'b'))


class Pictures(torch.utils.data.Dataset):
    """As many as ADE20K's; reading one is an error."""

    def __init__(self, readable: bool = False) -> None:
        self.readable = readable

    def __len__(self) -> int:
        return 20210

    def __getitem__(self, i: int) -> int:
        assert self.readable
        return i


@pytest.mark.slow
@pytest.mark.parametrize('rank, world', [(0, 1), (0, 8), (7, 8)])
@pytest.mark.parametrize('kind', [InfiniteSampler, DefaultSampler])
def test_eighty_thousand_iterations_are_skipped_in_seconds_and_the_order_is_the_same(kind, rank, world):
    def loader():
        with mock.patch(f'{kind.__module__}.get_dist_info', return_value=(rank, world)):
            return DataLoader(Pictures(), batch_size=2, sampler=kind(Pictures(), shuffle=True, seed=3))

    expected, whole, passes = [], loader(), 0
    batches = iter(whole.batch_sampler)
    while len(expected) < 80_100:
        expected += islice(batches, 80_100 - len(expected))
        passes += 1
        whole.sampler.set_epoch(passes)
        batches = iter(whole.batch_sampler)
        if kind is InfiniteSampler:
            break
    moved, start = loader(), time.process_time()
    assert move_forward(moved, 0, 80_000, by_epoch=False) == 80_000
    assert time.process_time() - start < 5
    assert list(islice(iter(moved.batch_sampler), 50)) == expected[80_000:80_050]
    assert len(moved) == len(whole)


def test_joined_data_sets_of_other_colors_tell_the_classes_once():
    class Joined(list):  # as MMDetection's ConcatDataset does
        _metainfo = [dict(classes=('cat',), palette=[(1, 2, 3)]), dict(classes=('cat',), palette=[(4, 5, 6)])]

    runner = SimpleNamespace(_train_dataloader=DataLoader(Joined([1, 2])), seed=0)
    assert build_train_loader(runner).dataset._metainfo == dict(classes=('cat',), palette=[(1, 2, 3)])


def test_an_epoch_is_gone_on_with_where_it_was_left():
    loader = DataLoader(Pictures(), batch_size=100, sampler=DefaultSampler(Pictures(), shuffle=True, seed=3))
    assert len(loader) == 203 and move_forward(loader, 2, 2 * 203, by_epoch=True) == 0
    loader.sampler.set_epoch(2)
    expected = list(loader.batch_sampler)
    loader.sampler.set_epoch(0)
    assert move_forward(loader, 2, 2 * 203 + 5, by_epoch=True) == 5
    assert list(loader.batch_sampler) == expected[5:] and list(loader.batch_sampler) == expected


@pytest.mark.parametrize('batch, by_epoch, skipped', [(100, True, 5), (250, True, 2), (50, False, 10), (7, True, 71)])
def test_pictures_are_left_out_whatever_their_number_in_a_step_is_now(batch, by_epoch, skipped):
    """Of 500 that were seen; in iterations alone the next batches would begin elsewhere."""
    loader = DataLoader(Pictures(), batch_size=batch, sampler=DefaultSampler(Pictures(), shuffle=True, seed=3))
    assert move_forward(loader, 2, 2 * 203 + 5, by_epoch, seen=500) == skipped


@pytest.mark.slow
def test_an_average_of_weights_is_tested_resumed_and_started_from(tmp_path):
    """MMEngine's hooks are called where MMEngine calls them: EMAHook in tests and with load_from."""
    pytest.importorskip('mmpretrain')
    from nextvit_mm.training.launch import evaluate

    config = write_config(tmp_path, **ITERATIONS, custom_hooks=[dict(type='EMAHook', momentum=0.5)])
    run(config, tmp_path / 'w')
    last = str(tmp_path / 'w' / 'iter_9.pth')
    torch.save(weights(last), tmp_path / 'bare.pth')
    results = [evaluate(config, path, str(tmp_path / 't')) for path in (last, str(tmp_path / 'bare.pth'))]
    assert results[0] == results[1]
    one = {'train_cfg.max_iters': 1, 'optim_wrapper.optimizer.lr': 0.0, 'optim_wrapper.optimizer.weight_decay': 0.0}
    run(config, tmp_path / 'from', cfg_options={**one, 'load_from': last})
    loaded, started = weights(last), weights(tmp_path / 'from' / 'iter_1.pth')
    assert torch.equal(loaded['backbone.stem.0.conv.weight'], started['backbone.stem.0.conv.weight'])
    run(config, tmp_path / 'w', resume='auto', cfg_options={'train_cfg.max_iters': 10})
    assert (tmp_path / 'w' / 'iter_10.pth').is_file()


@pytest.mark.slow
def test_a_new_start_over_an_earlier_run_is_said(tmp_path, capsys):
    config = write_config(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1))
    words = 'holds checkpoints of an earlier run'
    run(config, tmp_path / 'w')
    run(config, tmp_path / 'w', resume='auto')
    assert words not in capsys.readouterr().out
    run(config, tmp_path / 'w')
    out = capsys.readouterr().out
    assert f'\nwarning: {tmp_path / "w"} {words}, such as epoch_1.pth' in f'\n{out}' and '--resume goes on' in out
