"""A tiny model of each task with random weights, as a training leaves it: work dir, config, checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

from ..conftest import ROOT, TINY, randomise

WIDTHS = [32, 64, 128, 128]
CHANGES = dict(
    detection=(
        'mask_rcnn_nextvit_s_digits',
        f'model = dict(backbone=dict(_delete_=True, type="NextViT", arch={TINY}), neck=dict(in_channels={WIDTHS}),'
        ' test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=5)))',
    ),
    segmentation=(
        'semantic_fpn_nextvit_s_digits_scratch',
        f'model = dict(backbone=dict(_delete_=True, type="NextViT", arch={TINY}, out_norm="all"),'
        f' neck=dict(in_channels={WIDTHS}))',
    ),
    classification=(
        'nextvit_s_digits',
        f'model = dict(backbone=dict(_delete_=True, type="NextViT", arch={TINY}, out_indices=(3,), out_norm="last"),'
        ' head=dict(in_channels=128))',
    ),
)


@dataclass(frozen=True)
class Made:
    """A work dir as a training leaves it."""

    folder: Path
    config: Path
    checkpoint: Path


def make(task: str, folder: Path) -> Made:
    recipe, change = CHANGES[task]
    folder.mkdir(parents=True)
    config, checkpoint = folder / f'{task}.py', folder / 'epoch_3.pth'
    source = folder.parent / f'{task}_source.py'
    source.write_text(f"_base_ = '{ROOT}/configs/demo/{recipe}.py'\n{change}\n")
    cfg = Config.fromfile(source)
    cfg.dump(config)
    DefaultScope._instance_dict.clear()
    init_default_scope(cfg.default_scope)
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    torch.manual_seed(0)
    state_dict = randomise(MODELS.build(cfg.model)).state_dict()
    if task == 'detection':
        state_dict['roi_head.bbox_head.fc_cls.weight'] *= 0.1  # large random weights make every score 1
    classes = tuple('0123456789') if task != 'segmentation' else ('ground', *'0123456789')
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=classes), epoch=3, iter=30, experiment_name=f'{task}_x')
    torch.save(dict(meta=meta, state_dict=state_dict, optimizer=dict(state={}, param_groups=[])), checkpoint)
    (folder / 'last_checkpoint').write_text(f'/moved/away/{checkpoint.name}')
    DefaultScope._instance_dict.clear()
    return Made(folder, config, checkpoint)


@pytest.fixture(scope='session')
def made(tmp_path_factory):
    """A function from a task to its work dir."""
    folder, there = tmp_path_factory.mktemp('made'), {}

    def get(task: str) -> Made:
        pytest.importorskip(dict(detection='mmdet', segmentation='mmseg', classification='mmpretrain')[task])
        if task not in there:
            there[task] = make(task, folder / task)
        return there[task]

    return get
