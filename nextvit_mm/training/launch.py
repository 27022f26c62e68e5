"""Training and testing: from a config and the flags of the command line to a finished run."""

import copy
import functools
import logging
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..adapt import use_nextvit
from ..adapt.optimizer import use_our_layer_decay
from ..adapt.read import differences
from ..data.check import check_contents, count_pictures, use_boxes_only
from ..data.length import Length, raise_rate_from_scratch
from ..data.loaders import allow_no_workers
from ..data.own import use_own_data, weaken_augmentation
from ..errors import UserError
from ..predict import exported  # noqa: F401  (registers the model of exported files)
from ..utils.files import check_writable
from ..weights.models import load_exactly
from . import config as cfgs, distributed
from .building import clear_config_errors
from .channels import fit_channels
from .console import on_console
from .cpu import use_the_cpu_well
from .options import EvaluateOptions, TrainOptions
from .pictures import PicturesHook
from .preflight import check_checkpoint, check_data, check_keys, check_numbers, check_pretrained
from .resuming import Point, check_changes, find_checkpoint, read_point, repeat_flags
from .run import Start, build_runner, run_training
from .stopping import end_workers

EXPORTED = ('.onnx', '.xml')  # what nextvit_mm.deploy writes and runs


@on_console
def train(
    config: str,
    work_dir: str | None = None,
    data_root: str | None = None,
    cfg_options: dict | None = None,
    **options: Any,
) -> Runner | None:
    """Train; the arguments are the flags of ``tools/train.py``.

    Args:
        config: Config file.
        work_dir: Folder for logs and checkpoints. Default: the config's, or ``work_dirs/<config name>``.
        data_root: Folder of the data, instead of the config's.
        cfg_options: Dotted keys and values merged into the config.
        options: Those of :class:`.options.TrainOptions`. ``resume='auto'`` takes the latest checkpoint of the work
            dir, if any.

    Returns:
        Runner: After the last iteration; None after a dry run.

    Raises:
        UserError: Config, data or checkpoint is missing or does not fit.
    """
    wanted = TrainOptions(**options)
    flags = dict(data_root=data_root, cfg_options=cfg_options, **wanted.repeated())
    if wanted.dry_run:
        _print_changes(config, cfg_options, wanted.backbone, wanted.recipe)
        return None
    # What the flags of the start say, such as where the data lie, is not known before the checkpoint is.
    cfg = _prepare(config, work_dir, cfg_options, wanted.launcher)
    check_keys(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    point = _point_to_go_on_from(cfg, wanted.resume)
    if point:
        flags = repeat_flags(flags, point)
        cfg = _prepare(config, work_dir, flags['cfg_options'], wanted.launcher)
    _apply(cfg, flags)
    seed = cfgs.keep_seed(cfg, point.seed, wanted.seed) if point else wanted.seed
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    cfg.started_with = {name: value for name, value in flags.items() if value}
    fit_channels(cfg, ('train', 'val'))
    check_data(cfg, ('train', 'val'))
    check_contents(cfg, ('train', 'val'))
    if point:
        cfg.resume, cfg.load_from = True, None  # what is gone on from is no part of the config
    elif cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    if 'backbone' in cfg.model and (point or cfg.get('load_from')):
        cfg.model.backbone.init_cfg = None  # what is gone on or started from holds every weight of the backbone
    check_pretrained(cfg)
    use_our_layer_decay(cfg)
    use_the_cpu_well(cfg)
    changes = check_changes(point, cfg.pretty_text, wanted.allow_changes) if point else []
    if not point and is_main_process():
        _warn_of_earlier_run(cfg.work_dir)
    return run_training(cfg, Start(point, changes, wanted.allow_changes, wanted.bad_pictures))


@on_console
def evaluate(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    data_root: str | None = None,
    cfg_options: dict | None = None,
    **options: Any,
) -> dict:
    """Evaluate a checkpoint; the arguments are the flags of ``tools/test.py``.

    Args:
        config, work_dir, data_root, cfg_options: As in :func:`train`.
        checkpoint: The weights, or a model that ``tools/export.py`` wrote, ``.onnx`` or ``.xml``.
        options: Those of :class:`.options.EvaluateOptions`. ``backbone`` is for a checkpoint that was trained so.

    Returns:
        dict: Metrics by name.

    Raises:
        UserError: Config, data or checkpoint is missing or does not fit.
    """
    wanted = EvaluateOptions(**options)
    if wanted.out:
        check_writable(wanted.out)  # it is written after the last picture
    cfg = _prepare(config, work_dir, cfg_options, wanted.launcher)
    check_keys(cfg, 'model', 'test_dataloader', 'test_evaluator')
    if data_root:
        cfgs.set_data_root(cfg, data_root)
    if wanted.backbone:
        use_nextvit(cfg, wanted.backbone, options=cfg_options)
    if not work_dir and os.path.realpath(os.path.dirname(config) or '.') == os.path.realpath(cfg.work_dir):
        cfg.work_dir = os.path.join(cfg.work_dir, 'test')  # MMEngine would write what is tested over what was trained
    fit_channels(cfg, ('test',))
    check_data(cfg, ('test',))
    check_contents(cfg, ('test',))
    checkpoint = distributed.same_checkpoint(checkpoint, cfg.work_dir)
    check_checkpoint(checkpoint)
    if wanted.show_dir:
        cfgs.draw_predictions(cfg, wanted.show_dir)
    is_exported = checkpoint.endswith(EXPORTED)
    if is_exported:
        cfg.model = dict(type='ExportedModel', path=checkpoint)
        # It reads the pictures itself; and processes that fork workers beside OpenVINO's threads were seen to crash.
        cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    if (wanted.tta or wanted.pipeline) and is_exported:
        flag = '--tta' if wanted.tta else '--pipeline'
        raise UserError(f'{flag} is for checkpoints, and {checkpoint} is an exported model')
    if wanted.tta:
        cfgs.use_tta(cfg)
    if wanted.pipeline:
        cfgs.use_test_pipeline(cfg, wanted.pipeline)
    # The runner would load what training starts or goes on from over the checkpoint.
    cfg.load_from, cfg.resume = None, False
    with clear_config_errors(cfg):
        return _test(cfg, checkpoint, is_exported, wanted)


def _test(cfg: Config, checkpoint: str, is_exported: bool, wanted: EvaluateOptions) -> dict:
    runner = build_runner(cfg, checkpoint, wanted.show_dir)
    runner.register_hook(PicturesHook())
    if not is_exported:
        # MMEngine calls it after the hooks' before_run, in which EMA's makes its model.
        notify = functools.partial(runner.call_hook, 'after_load_checkpoint')
        runner._load_from = checkpoint
        runner.load_checkpoint = functools.partial(
            load_exactly, runner.model, where=cfg.filename, logger=runner.logger, notify=notify
        )
    if wanted.out:
        runner.test_evaluator.metrics.append(_dump_metric(cfg, wanted.out))
    with end_workers(runner):
        return runner.test()


def _prepare(config: str, work_dir: str | None, cfg_options: dict | None, launcher: str) -> Config:
    cfg = cfgs.load_config(config, cfg_options)
    cfg.launcher = launcher
    distributed.start(cfg)
    cfgs.set_work_dir(cfg, work_dir)
    check_numbers(cfg)
    allow_no_workers(cfg)
    return cfg


def _apply(cfg: Config, flags: dict[str, Any]) -> None:
    own = flags['own_classes']
    if own and not flags['data_root']:
        raise UserError('--own-classes reads the data of a folder: give it with --data-root DIR')
    if flags['recipe'] and not flags['backbone']:
        raise UserError('--recipe goes with --backbone')
    if flags['backbone']:
        use_nextvit(cfg, flags['backbone'], flags['recipe'], flags['cfg_options'])
    if flags['data_root'] and not own:
        cfgs.set_data_root(cfg, flags['data_root'])
    if flags['amp']:
        cfgs.use_amp(cfg)
    if flags['auto_scale_lr']:
        cfgs.use_auto_scale_lr(cfg)
    if own:
        with distributed.first_process_first():  # it writes what it has read into the work dir
            use_own_data(cfg, flags['data_root'], flags['boxes_only'])
    elif flags['boxes_only']:
        use_boxes_only(cfg)
    length = {field.name: flags[field.name] for field in fields(Length)}
    if own or any(value is not None for value in length.values()):
        check_data(cfg, ('train',))  # whose pictures are counted
        Length(**length).apply(cfg, count_pictures(cfg), own)
    if own:
        weaken_augmentation(cfg, flags['no_pretrained'])
    if flags['no_pretrained']:
        if own and flags['lr'] is None:
            raise_rate_from_scratch(cfg)
        cfgs.train_from_scratch(cfg)


def _print_changes(config: str, cfg_options: dict | None, backbone: str | None, recipe: str | None) -> None:
    if not backbone:
        raise UserError('--dry-run shows what --backbone changes: give it too')
    before = cfgs.load_config(config, cfg_options)
    print('\n'.join(differences(before, use_nextvit(copy.deepcopy(before), backbone, recipe, cfg_options))))


def _point_to_go_on_from(cfg: Config, resume: str | None) -> Point | None:
    """The checkpoint that the flag, or else the config, says to go on from."""
    if not isinstance(cfg.get('resume', False), (bool, type(None))):
        raise UserError(f'{cfg.filename}: resume={cfg.resume!r} must be True or False: give --resume CKPT instead')
    starts_anew = resume is None and not cfg.get('resume')
    path = cfg.get('load_from') if resume is None else resume
    if (starts_anew or path not in ('auto', None)) and int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0)):
        raise UserError(
            'torchrun would start this run again after a failure, and the run would lose what it has done since its '
            'start. With MAX_RESTARTS or --max-restarts give --resume, without a checkpoint'
        )
    if starts_anew:
        return None
    if path in ('auto', None):  # the first process looks: work dirs of several machines need not be shared
        path = find_checkpoint(cfg.work_dir) if is_main_process() else None
    path = distributed.same_checkpoint(path, cfg.work_dir)
    if path is None:
        print_log(f'nothing to resume in {cfg.work_dir}: starting anew', 'current')
        cfg.resume = False
        return None
    check_checkpoint(path)
    return read_point(path)


def _warn_of_earlier_run(work_dir: str) -> None:
    earlier = sorted(Path(work_dir).glob('*_[0-9]*.pth'), key=lambda path: path.stat().st_mtime)
    if earlier:
        print_log(
            f'{work_dir} holds checkpoints of an earlier run, such as {earlier[-1].name}. This run starts anew, and '
            'writes over those of the same names. --resume goes on instead; --work-dir gives another folder',
            'current',
            level=logging.WARNING,
        )


def _dump_metric(cfg: Config, out: str):
    """A metric that writes all predictions to a pickle; detectors' masks run-length encoded."""
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        return DumpDetResults(out_file_path=out)
    from mmengine.evaluator import DumpResults

    return DumpResults(out_file_path=out)
