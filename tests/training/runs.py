"""Whole runs of train(…) on a network and pictures so small that one takes a second."""

import multiprocessing
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from nextvit_mm.training.launch import train

from ..conftest import TINY, forget_runs

CONFIG = """
custom_imports = dict(imports=['nextvit_mm', 'mmpretrain.models', 'mmpretrain.datasets', 'mmpretrain.evaluation'])
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier', data_preprocessor=dict(num_classes=2, to_rgb=True),
    backbone=dict(type='NextViT', arch=ARCH, out_indices=(3, ), out_norm='last', drop_path_rate=0.2),
    neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=2, in_channels=128))
loader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='PICTURES', data_prefix='train', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]))
train_dataloader = loader
val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1, ))
train_cfg = dict(by_epoch=True, max_epochs=3)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=3, eta_min=1e-6)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1))
env_cfg = dict(cudnn_benchmark=False)
randomness = dict(seed=1, deterministic=True)
"""
ITERATIONS = dict(
    train_cfg=dict(by_epoch=False, max_iters=9, val_interval=100, _delete_=True),
    train_dataloader=dict(sampler=dict(type='InfiniteSampler')),
    default_hooks=dict(checkpoint=dict(by_epoch=False, interval=3)),
    param_scheduler=[dict(type='PolyLR', power=0.9, eta_min=1e-6, by_epoch=False)],
    log_processor=dict(by_epoch=False),
)


def write_pictures(folder: Path, pictures: int = 6) -> None:
    rng = np.random.default_rng(0)
    for i in range(pictures):
        path = folder / 'train' / f'class{i % 2}' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)


def write_config(folder: Path, name: str = 'tiny.py', **changes) -> str:
    """A config of the run, with pictures beside it; by iterations with ``**ITERATIONS``."""
    if not (folder / 'pictures').is_dir():
        write_pictures(folder / 'pictures')
        text = CONFIG.replace('ARCH', repr(TINY)).replace('PICTURES', str(folder / 'pictures'))
        (folder / 'base.py').write_text(text)
    lines = ["_base_ = 'base.py'", *(f'{key} = {value!r}' for key, value in changes.items())]
    (folder / name).write_text('\n'.join(lines))
    return str(folder / name)


def run(config: str, work_dir: Path, **flags):
    """train(…) with MMEngine's loggers and scope fresh, as in a process of its own."""
    forget_runs()
    # Half of such a run's time: the layout of the config's text, and tidying up after the data set.
    layout = mock.patch('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
    with layout, mock.patch('mmengine.dataset.base_dataset.gc'):
        return train(config, work_dir=str(work_dir), **flags)


def run_apart(config: str, work_dir: Path, **flags) -> multiprocessing.Process:
    """The same in a process that can be killed; it has what this one has imported."""
    process = multiprocessing.get_context('fork').Process(target=_run_quietly, args=(config, work_dir, flags))
    process.start()
    return process


def _run_quietly(config: str, work_dir: Path, flags: dict) -> None:
    import os
    import sys
    import traceback

    work_dir.parent.mkdir(parents=True, exist_ok=True)
    with open(work_dir.parent / f'{work_dir.name}.log', 'a', buffering=1) as log:
        # Pytest has put objects of its own in the places of these two, whose text would die with this process.
        sys.stdout = sys.stderr = log
        for standard in (1, 2):
            os.dup2(log.fileno(), standard)
        try:
            run(config, work_dir, **flags)
        except BaseException as error:
            traceback.print_exc()
            os._exit(getattr(error, 'status', 1))
        os._exit(0)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)['state_dict']


def same(left: Path, right: Path) -> bool:
    """Whether two checkpoints have the same weights, bit for bit."""
    one, other = weights(left), weights(right)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
