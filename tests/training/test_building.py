"""Misspelt keys, names and values of a config, and the one line that each leads to."""

import re

import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.training.building import clear_config_errors
from nextvit_mm.training.config import set_work_dir
from nextvit_mm.training.launch import evaluate
from nextvit_mm.training.preflight import check_checkpoint

from .runs import run, write_config

OPTIONS = {
    'train_dataloader.batchsize': (4, "train_dataloader: TypeError: .*'batchsize'"),
    'train_dataloader.batch_size': (0, 'train_dataloader.batch_size=0 must be a whole number, and at least 1'),
    'train_dataloader.sampler.type': ('Nothing', 'train_dataloader: Nothing: Nothing is not .* Correct the name'),
    'train_dataloader.dataset.pipeline.1.type': ('Flip', 'train_dataloader: Flip: Flip is not in the .* registry'),
    'model.backbone.drop_path_rat': (0.2, "model: NextViT: TypeError: .*'drop_path_rat'"),
    'model.head.loss.type': ('CrossEntropy', 'model: CrossEntropy: CrossEntropy is not in the mmpretrain::model'),
    'optim_wrapper.optimiser.lr': (0.1, "optim_wrapper: OptimWrapper: TypeError: .*'optimiser'"),
    'optim_wrapper.optimizer.type': ('Adamm', 'optim_wrapper: Adamm is no optimizer that is known'),
    'optim_wrapper.clip_grad.max_nrm': (1, "optim_wrapper.clip_grad: TypeError: .*'max_nrm'"),
    'train_cfg.max_epoch': (2, "train_cfg: TypeError: .*'max_epoch'"),
    'train_cfg.val_interval': (0, 'train_cfg.val_interval=0 must be'),
    'param_scheduler.0.start': (0.1, "param_scheduler: LinearLR: TypeError: .*'start'"),
    'val_evaluator.topkk': (1, "val_evaluator: Accuracy: TypeError: .*'topkk'"),
    'val_dataloader': (None, 'tiny.py: ValueError: val_dataloader, val_cfg, and val_evaluator should be either all'),
    'default_hooks.checkpoint.intervall': (1, 'CheckpointHook has no intervall: correct default_hooks.checkpoint'),
    'default_hooks.checkpoint.save_best': ('top1', "save_best='top1', and the evaluation has accuracy/top1"),
    'default_hooks.logger.type': ('Logger', 'default_hooks: Logger: Logger is not in'),
    'custom_hooks': ([dict(type='NoHook')], 'custom_hooks: NoHook: NoHook is not in'),
    'visualizer': (
        dict(type='Visualizer', vis_backends=[dict(type='NoBackend')]),
        'visualizer: NoBackend: NoBackend is not in',
    ),
    'randomness.seed': ('abc', 'randomness: TypeError'),
    'default_scope': (None, 'model: ImageClassifier: ImageClassifier is not .* or set default_scope'),
    'model': (None, 'tiny.py has no model'),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('building')


@pytest.mark.slow
@pytest.mark.parametrize('key', OPTIONS)
def test_what_cannot_be_built_is_one_line_with_the_key(key, folder):
    value, expected = OPTIONS[key]
    with pytest.raises(UserError) as error:
        run(write_config(folder), folder / 'work', cfg_options={'train_cfg.max_epochs': 1, key: value})
    assert re.search(expected, str(error.value)) and '\n' not in str(error.value), str(error.value)


def test_an_evaluation_says_the_same(folder):
    with pytest.raises(UserError, match="tiny.py: test_evaluator: Accuracy: .*'topkk'"):
        options = {'test_evaluator.topkk': 1}
        evaluate(write_config(folder), write_config(folder), work_dir=str(folder / 'test'), cfg_options=options)


def test_an_error_in_a_class_of_the_user_has_its_line(folder, monkeypatch):
    (folder / 'own_hook_of_mine.py').write_text(
        'from mmengine.hooks import Hook\nfrom mmengine.registry import HOOKS\n'
        '@HOOKS.register_module()\nclass HookOfMine(Hook):\n    def __init__(self):\n        [][3]\n'
    )
    monkeypatch.syspath_prepend(str(folder))
    config = write_config(folder, 'mine.py', custom_hooks=[dict(type='HookOfMine')])
    (folder / 'mine.py').write_text((folder / 'mine.py').read_text() + '\nimport own_hook_of_mine')
    with pytest.raises(UserError, match=r'custom_hooks: HookOfMine: IndexError: .*own_hook_of_mine.py, line 6\)'):
        run(config, folder / 'work')


def test_what_is_not_building_goes_on_as_it_is():
    with pytest.raises(ZeroDivisionError), clear_config_errors(None):
        1 / 0  # noqa: B018


def test_a_config_of_the_years_before_is_named(folder):
    (folder / 'old.py').write_text("model = dict(type='X')\ndata = dict(train=dict(type='CocoDataset'))")
    with pytest.raises(UserError, match='old.py has no train_dataloader .*; it is of MMDetection 2 or the like'):
        run(str(folder / 'old.py'), folder / 'work')


def test_two_classes_have_no_top_5(folder):
    runner = run(write_config(folder), folder / 'top', epochs=1, cfg_options={'val_evaluator.topk': (1, 5)})
    assert runner.cfg.val_evaluator.topk == (1,)


def test_a_work_dir_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='work dir .*file/mine cannot be made: .*file is a file'):
        run(write_config(tmp_path), tmp_path / 'file' / 'mine')


def test_the_home_of_a_user_is_not_a_folder_called_so(tmp_path, monkeypatch):
    from mmengine.config import Config

    monkeypatch.setenv('HOME', str(tmp_path))
    cfg = Config(dict(), cfg_text=' ', filename='some.py')
    set_work_dir(cfg, '~/mine')
    assert cfg.work_dir == str(tmp_path / 'mine')


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match='is a folder: name a file of it'):
        check_checkpoint(str(tmp_path))
