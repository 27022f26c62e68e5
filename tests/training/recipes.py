"""The recipes with tiny networks, run alone by tests or by two processes (``python recipes.py FOLDER``)."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm

from nextvit_mm.training.launch import evaluate, train

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where torchrun runs this file
from tests.conftest import ROOT, TINY

STEPS = 10
WIDTHS = [32, 64, 128, 128]  # of TINY's maps
LAYOUTS = dict(
    mask_rcnn='coco',
    semantic_fpn='ade',
    upernet='ade',
    classifier='imagenet',
    averaging='imagenet',
    ablation='imagenet',
    drop_in='coco',
)
CONFIGS = dict(
    mask_rcnn='mask_rcnn_nextvit_s_digits',
    semantic_fpn='semantic_fpn_nextvit_s_digits',
    upernet='upernet_nextvit_s_digits',
    classifier='nextvit_s_digits',
    averaging='nextvit_s_digits',  # the classifier with gradients that wait, averaged weights, frozen parts, with_cp
    ablation='nextvit_s_digits',  # the classifier with another network's blocks, by --backbone
    drop_in='mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',  # with Next-ViT, by --backbone
)
DIGITS = tuple('0123456789')
# MMDetection's losses are means over the boxes of one process. So two processes are the same as one that takes their
# batches in turn and adds the gradients up; everywhere else they are the same as one with twice the batch.
IN_TURN = ('mask_rcnn', 'drop_in')
HEADS: dict[str, dict] = dict(
    mask_rcnn={
        'model.neck.in_channels': WIDTHS,
        # No random choice of regions: all are taken.
        'model.train_cfg.rpn.sampler.num': 10**6,
        'model.train_cfg.rcnn.sampler.num': 10**6,
        'model.train_cfg.rpn_proposal.max_per_img': 40,
        'model.test_cfg.rpn.max_per_img': 40,
        'model.test_cfg.rcnn.score_thr': 0.0,
        'train_cfg.max_epochs': 1,
    },
    # With weights of classes, which the published recipes lack, MMSegmentation's losses are means of one process, too.
    semantic_fpn={'model.neck.in_channels': WIDTHS, 'model.decode_head.loss_decode.class_weight': None},
    upernet={
        'model.decode_head.in_channels': WIDTHS,
        'model.decode_head.loss_decode.class_weight': None,
        'model.auxiliary_head.in_channels': WIDTHS[2],
        'model.auxiliary_head.loss_decode.class_weight': None,
    },
    classifier={'model.head.in_channels': WIDTHS[3], 'train_cfg.max_epochs': 1},
    averaging={
        'model.head.in_channels': WIDTHS[3],
        'train_cfg.max_epochs': 1,
        'model.backbone.frozen_stages': 1,
        'model.backbone.with_cp': True,
    },
    ablation={'model.head.in_channels': WIDTHS[3], 'train_cfg.max_epochs': 1},
    drop_in={
        'model.neck.out_channels': 32,
        'model.bbox_head.in_channels': 32,
        'model.bbox_head.feat_channels': 32,
        'model.bbox_head.stacked_convs': 1,
        'model.bbox_head.num_classes': 10,
        'model.test_cfg.score_thr': 0.0,
        **{f'{loader}_dataloader.dataset.metainfo.classes': DIGITS for loader in ('train', 'val', 'test')},
        'train_dataloader.dataset.pipeline.2.scale': (64, 64),
        'train_dataloader.dataset.pipeline.3.prob': 0.0,  # of RandomFlip
        'train_cfg.max_epochs': 1,
    },
)


# What a BN that was not trained lets through must neither explode nor vanish.
START = dict(type='Xavier', layer=['Conv2d', 'Linear'], gain=0.7)


@HOOKS.register_module(force=True)
class KeepBatchNorms(Hook):
    """Every BN, also of the heads, stays as it was made: otherwise each process would have its own pictures' means."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


@HOOKS.register_module(force=True)
class RecordingHook(Hook):
    """Writes the mean loss of every step, the gradients of the first, and the last weights into ``record.pt``."""

    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        self.losses, self.gradients = [], {}
        runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: self._keep(inner(runner)))

    def _keep(self, model) -> None:
        if not self.gradients:
            self.gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(float(outputs['loss']))

    def after_train(self, runner) -> None:
        losses = torch.tensor(self.losses, dtype=torch.float64)
        all_reduce(losses, 'mean')
        turns = len(losses) // STEPS
        torch.save(
            dict(
                losses=losses.view(STEPS, turns).mean(1),
                gradients=self.gradients,
                weights=inner(runner).state_dict(),
                wrapper=type(runner.model).__name__,
            ),
            Path(runner.work_dir, f'record{os.environ.get("RANK", "")}.pt'),
        )


@HOOKS.register_module(force=True)
class KilledOnceHook(Hook):
    """Kills the second process after its third step, unless torchrun has started it again."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if (runner.rank, runner.iter, os.environ['TORCHELASTIC_RESTART_COUNT']) == (1, 2, '0'):
            os.kill(os.getpid(), signal.SIGKILL)


def inner(runner):
    return getattr(runner.model, 'module', runner.model)


def options(name: str, alone: bool, **more) -> dict:
    """What makes a recipe tiny and repeatable; alone it takes as many pictures for a step as two processes."""
    turns = 2 if alone and name in IN_TURN else 1
    small: dict = {
        'train_dataloader.batch_size': 2 if alone and turns == 1 else 1,
        'train_dataloader.sampler.shuffle': False,
    }
    for loader in ('train', 'val', 'test'):
        small.update({f'{loader}_dataloader.num_workers': 0, f'{loader}_dataloader.persistent_workers': False})
    small.update({f'{loader}_dataloader.batch_size': 1 for loader in ('val', 'test')})
    small.update(HEADS[name])
    if LAYOUTS[name] == 'ade':
        small.update({'train_cfg.max_iters': STEPS, 'train_cfg.val_interval': STEPS})
        small['model.data_preprocessor.size'] = (64, 64)
    if name != 'drop_in':  # of which the file of --backbone has it all
        small['model.backbone.arch'] = dict(TINY, _delete_=True)
        small['model.backbone.norm_eval'] = True
        small['model.backbone.init_cfg'] = START if LAYOUTS[name] == 'imagenet' else dict(START, _delete_=True)
    small['optim_wrapper'] = dict(
        _delete_=True,
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=1e-2),
        accumulative_counts=2 if name == 'averaging' else turns,
    )
    small['param_scheduler'] = []
    small['custom_hooks'] = [dict(type='KeepBatchNorms'), dict(type='RecordingHook')]
    if name == 'averaging':
        small['custom_hooks'].append(dict(type='EMAHook', momentum=0.3))
    small['default_hooks.checkpoint.interval'] = STEPS if LAYOUTS[name] == 'ade' else 1
    small['default_hooks.checkpoint.save_best'] = None
    return {**small, **more}


def config(name: str) -> str:
    return CONFIGS[name] if '::' in CONFIGS[name] else str(ROOT / 'configs' / 'demo' / f'{CONFIGS[name]}.py')


def backbone(name: str, folder: Path) -> str | None:
    """The config for ``--backbone``, tiny, of the recipes that take one."""
    file = folder / f'backbone_{name}.py'
    if name == 'drop_in':
        file.write_text(f"model = dict(backbone=dict(type='NextViT', arch={TINY!r}, init_cfg={START!r}))\n")
    elif name == 'ablation':
        row = ROOT / 'configs' / 'ablation' / 'table7_poolformer.py'
        kinds = [stage['conv_block'] for stage in Config.fromfile(row).model.backbone.arch.stages]
        stages = [dict(stage, conv_block=kind) for stage, kind in zip(TINY['stages'], kinds)]
        arch = dict(TINY, stages=stages, _delete_=True)
        file.write_text(f'_base_ = {str(row)!r}\nmodel = dict(backbone=dict(arch={arch!r}))\n')
    else:
        return None
    return str(file)


def run(name: str, folder: Path, launcher: str = 'none', **more) -> Path:
    """Train a recipe on the data in ``folder/data``, and return its work dir."""
    work_dir = folder / f'{name}_{launcher}'
    train(
        config(name),
        work_dir=str(work_dir),
        data_root=f'{folder}/data/{LAYOUTS[name]}/',
        launcher=launcher,
        backbone=backbone(name, folder),
        seed=0,
        cfg_options=options(name, launcher == 'none', **more),
    )
    return work_dir


def test(name: str, folder: Path, checkpoint: Path, launcher: str = 'none') -> dict:
    """Evaluate a checkpoint or exported file; metrics, with the predictions in a pickle beside."""
    return evaluate(
        config(name),
        str(checkpoint),
        work_dir=str(folder / f'{name}_{launcher}_test'),
        data_root=f'{folder}/data/{LAYOUTS[name]}/',
        launcher=launcher,
        backbone=backbone(name, folder),
        out=str(folder / f'{name}_{launcher}{checkpoint.suffix}.pkl'),
        cfg_options=options(name, True),
    )


def main(folder: Path) -> None:
    """What two processes do: train every recipe, then evaluate what one process has trained."""
    os.chdir(folder)
    metrics = {}
    for name in CONFIGS:
        run(name, folder, 'pytorch')
        assert get_world_size() == 2
        for checkpoint in json.loads((folder / 'checkpoints.json').read_text())[name]:
            metrics[checkpoint] = test(name, folder, Path(checkpoint), 'pytorch')
    Path(folder, f'metrics{os.environ["RANK"]}.json').write_text(json.dumps(metrics, default=float))


if __name__ == '__main__':
    from nextvit_mm.utils.processes import together

    with together('pytorch'):
        main(Path(sys.argv[1]))
