"""Training and testing: from a config and the flags of the command line to a finished run."""

import functools
import os
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from ..data.check import check_contents, count_pictures, use_boxes_only
from ..data.length import Length
from ..data.loaders import allow_no_workers
from ..data.own import use_own_data
from ..errors import UserError
from ..models import NextViT
from ..predict import exported  # noqa: F401  (registers the model of exported files)
from ..weights.models import load_exactly, load_to_start_from, unwrap_model
from . import config as cfgs
from .preflight import check_checkpoint, check_data, check_pretrained, check_resumable

EXPORTED = ('.onnx', '.xml')  # what nextvit_mm.deploy writes and runs


def train(
    config: str,
    work_dir: str | None = None,
    data_root: str | None = None,
    cfg_options: dict | None = None,
    launcher: str = 'none',
    resume: str | None = None,
    no_pretrained: bool = False,
    backbone: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    seed: int | None = None,
    own_classes: bool = False,
    boxes_only: bool = False,
    **length: Any,
) -> Runner:
    """Train; the arguments are the flags of ``tools/train.py``.

    Args:
        config: Config file.
        work_dir: Folder for logs and checkpoints. Default: the config's, or ``work_dirs/<config name>``.
        data_root: Folder of the data, instead of the config's.
        cfg_options: Dotted keys and values merged into the config.
        launcher: ``'none'``, or what started the processes of a distributed run.
        resume: A checkpoint to go on from, or ``'auto'`` for the latest one of the work dir, if any.
        no_pretrained: Train from scratch, with nothing frozen.
        backbone: A config whose backbone's network is taken, such as one of ``configs/ablation/``.
        amp: Automatic mixed precision.
        auto_scale_lr: Scale the rate with the batch size.
        seed: Seed of Python, NumPy and torch. Default: the config's, or a random one, which is logged.
        own_classes: Take classes, splits and annotations from what lies in ``data_root``, in any known layout.
        boxes_only: Train a detector without its mask branch.
        length: As of :class:`nextvit_mm.data.length.Length`.

    Returns:
        Runner: After the last iteration.

    Raises:
        UserError: Config, data or checkpoint is missing or does not fit.
    """
    wanted = Length(**length)
    if own_classes and not data_root:
        raise UserError('--own-classes reads the data of a folder: give it with --data-root DIR')
    cfg = _prepare(config, work_dir, None if own_classes else data_root, cfg_options, launcher)
    if amp:
        cfgs.use_amp(cfg)
    if auto_scale_lr:
        cfgs.use_auto_scale_lr(cfg)
    if backbone:
        cfgs.use_backbone(cfg, backbone)
    if own_classes:
        use_own_data(cfg, data_root, boxes_only)
    elif boxes_only:
        use_boxes_only(cfg)
    if own_classes or any(value is not None for value in length.values()):
        wanted.apply(cfg, count_pictures(cfg), own_classes)
    if no_pretrained:
        cfgs.train_from_scratch(cfg)
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if resume == 'auto' and not find_latest_checkpoint(cfg.work_dir):
        print_log(f'nothing to resume in {cfg.work_dir}: starting anew', 'current')
    elif resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    check_data(cfg, ('train', 'val'))
    check_contents(cfg, ('train', 'val'))
    if cfg.get('load_from'):
        (check_resumable if cfg.get('resume') else check_checkpoint)(cfg.load_from)
    resumes = cfg.get('resume') and (cfg.load_from or find_latest_checkpoint(cfg.work_dir))
    if 'backbone' in cfg.model and (resumes or cfg.get('load_from')):
        cfg.model.backbone.init_cfg = None  # what is gone on or started from holds every weight of the backbone
    check_pretrained(cfg)
    cfgs.drop_amp_without_accelerator(cfg)
    runner = _build_runner(cfg)
    if isinstance(getattr(unwrap_model(runner.model), 'backbone', None), NextViT) and not cfg.get('resume'):
        # MMEngine calls this for `load_from`; its own would take what happens to match, and go on without the rest.
        runner.load_checkpoint = functools.partial(load_to_start_from, runner.model)
    runner.train()
    return runner


def evaluate(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    data_root: str | None = None,
    cfg_options: dict | None = None,
    launcher: str = 'none',
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    pipeline: str | None = None,
) -> dict:
    """Evaluate a checkpoint; the arguments are the flags of ``tools/test.py``.

    Args:
        config, work_dir, data_root, cfg_options, launcher: As in :func:`train`.
        checkpoint: The weights, or a model that ``tools/export.py`` wrote, ``.onnx`` or ``.xml``.
        out: ``.pkl`` file for all predictions.
        show_dir: Folder for a picture of every prediction.
        tta: Test with the config's test-time augmentation; metrics are then named ``ms/…``.
        pipeline: Test with the config's pipeline ``<pipeline>_test_pipeline`` instead of its usual one.

    Returns:
        dict: Metrics by name.

    Raises:
        UserError: Config, data or checkpoint is missing or does not fit.
    """
    cfg = _prepare(config, work_dir, data_root, cfg_options, launcher)
    if out and not out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {out} must end in .pkl or .pickle')
    if not work_dir and os.path.realpath(os.path.dirname(config) or '.') == os.path.realpath(cfg.work_dir):
        cfg.work_dir = os.path.join(cfg.work_dir, 'test')  # MMEngine would write what is tested over what was trained
    check_data(cfg, ('test',))
    check_contents(cfg, ('test',))
    check_checkpoint(checkpoint)
    if show_dir:
        cfgs.draw_predictions(cfg, show_dir)
    is_exported = checkpoint.endswith(EXPORTED)
    if is_exported:
        cfg.model = dict(type='ExportedModel', path=checkpoint)
        # It reads the pictures itself; and processes that fork workers beside OpenVINO's threads were seen to crash.
        cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    if (tta or pipeline) and is_exported:
        raise UserError(f'{"--tta" if tta else "--pipeline"} is for checkpoints, and {checkpoint} is an exported model')
    if tta and pipeline:
        raise UserError('--tta and --pipeline both say how to test: give one of them')
    if tta:
        cfgs.use_tta(cfg)
    if pipeline:
        cfgs.use_test_pipeline(cfg, pipeline)
    # The runner would load what training starts or goes on from over the checkpoint.
    cfg.load_from, cfg.resume = None, False
    runner = _build_runner(cfg)
    if not is_exported:
        loaded = load_exactly(runner.model, checkpoint, cfg.filename, runner.logger)
        runner.call_hook('after_load_checkpoint', checkpoint=loaded)
    if out:
        runner.test_evaluator.metrics.append(_dump_metric(cfg, out))
    return runner.test()


def _prepare(
    config: str, work_dir: str | None, data_root: str | None, cfg_options: dict | None, launcher: str
) -> Config:
    cfg = cfgs.load_config(config, cfg_options)
    cfg.launcher = launcher
    cfgs.set_work_dir(cfg, work_dir)
    if data_root:
        cfgs.set_data_root(cfg, data_root)
    allow_no_workers(cfg)
    return cfg


def _build_runner(cfg: Config) -> Runner:
    # MM configs call every visualizer 'visualizer', and MMEngine would hand a second run of this process the first
    # one's, with its folder; without a name it takes the experiment's.
    cfg.get('visualizer', {}).pop('name', None)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _dump_metric(cfg: Config, out: str):
    """A metric that writes all predictions to a pickle; detectors' masks run-length encoded."""
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        return DumpDetResults(out_file_path=out)
    from mmengine.evaluator import DumpResults

    return DumpResults(out_file_path=out)
