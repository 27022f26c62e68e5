"""Training and testing: from a config and the flags of the command line to a finished run."""

import functools

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint

from ..errors import UserError
from ..models import NextViT
from ..predict import exported  # noqa: F401  (registers the model of exported files)
from ..weights.models import load_exactly, load_to_start_from, unwrap_model
from . import config as cfgs
from .console import Console, on_console
from .cpu import use_the_cpu_well
from .preflight import check_checkpoint, check_data, check_pretrained, check_resumable
from .progress import ConsoleHook

EXPORTED = ('.onnx', '.xml')  # what nextvit_mm.deploy writes and runs


@on_console
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
    verbose: bool = False,
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
        verbose: Print MMEngine's log as well, which goes into a file of the work dir in any case.

    Returns:
        Runner: After the last iteration.

    Raises:
        UserError: Config, data or checkpoint is missing or does not fit.
    """
    cfg = _prepare(config, work_dir, data_root, cfg_options, launcher)
    if amp:
        cfgs.use_amp(cfg)
    if auto_scale_lr:
        cfgs.use_auto_scale_lr(cfg)
    if backbone:
        cfgs.use_backbone(cfg, backbone)
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
    if cfg.get('load_from'):
        (check_resumable if cfg.get('resume') else check_checkpoint)(cfg.load_from)
    resumes = cfg.get('resume') and (cfg.load_from or find_latest_checkpoint(cfg.work_dir))
    if 'backbone' in cfg.model and (resumes or cfg.get('load_from')):
        cfg.model.backbone.init_cfg = None  # what is gone on or started from holds every weight of the backbone
    check_pretrained(cfg)
    use_the_cpu_well(cfg)
    runner = _build_runner(cfg)
    if isinstance(getattr(unwrap_model(runner.model), 'backbone', None), NextViT) and not cfg.get('resume'):
        # MMEngine calls this for `load_from`; its own would take what happens to match, and go on without the rest.
        runner.load_checkpoint = functools.partial(load_to_start_from, runner.model)
    runner.train()
    return runner


@on_console
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
    verbose: bool = False,
) -> dict:
    """Evaluate a checkpoint; the arguments are the flags of ``tools/test.py``.

    Args:
        config, work_dir, data_root, cfg_options, launcher: As in :func:`train`.
        checkpoint: The weights, or a model that ``tools/export.py`` wrote, ``.onnx`` or ``.xml``.
        out: ``.pkl`` file for all predictions.
        show_dir: Folder for a picture of every prediction.
        tta: Test with the config's test-time augmentation; metrics are then named ``ms/…``.
        pipeline: Test with the config's pipeline ``<pipeline>_test_pipeline`` instead of its usual one.
        verbose: As in :func:`train`.

    Returns:
        dict: Metrics by name.

    Raises:
        UserError: Config, data or checkpoint is missing or does not fit.
    """
    cfg = _prepare(config, work_dir, data_root, cfg_options, launcher)
    if out and not out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {out} must end in .pkl or .pickle')
    check_data(cfg, ('test',))
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
    runner = _build_runner(cfg, checkpoint)
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
    return cfg


def _build_runner(cfg: Config, weights: str = '') -> Runner:
    # MM configs call every visualizer 'visualizer', and MMEngine would hand a second run of this process the first
    # one's, with its folder; without a name it takes the experiment's.
    cfg.get('visualizer', {}).pop('name', None)
    runner = Console.current.build_runner(cfg)
    if is_main_process():
        runner.register_hook(ConsoleHook(Console.current, weights), priority='VERY_LOW')  # others log before it
    return runner


def _dump_metric(cfg: Config, out: str):
    """A metric that writes all predictions to a pickle; detectors' masks run-length encoded."""
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        return DumpDetResults(out_file_path=out)
    from mmengine.evaluator import DumpResults

    return DumpResults(out_file_path=out)
