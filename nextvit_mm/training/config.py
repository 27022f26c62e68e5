"""What the command line changes in an MM config, each as a function from config to config (in place)."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.config import Config, config as mmengine_config
from mmengine.logging import print_log

from ..adapt.read import read_config as load_config  # noqa: F401  (the tools' name of it)
from ..data.loaders import EVALUATORS, LOADERS, type_name
from ..errors import UserError
from ..utils.metainfo import leaf_datasets

MASK_HEADS = ('mask_head', 'panoptic_head', 'panoptic_fusion_head', 'semantic_head', 'segm_head')  # of MMDetection
PIPELINE = '_test_pipeline'  # how the variables that --pipeline names end


@contextlib.contextmanager
def laid_out_once() -> Iterator[None]:
    """Within the context MMEngine lays a config's text out once.

    It would do so for a run's log, its files and each of its checkpoints: a third of a second a time, or more.
    """
    lay_out, done = mmengine_config.FormatCode, {}

    def lay_out_once(text: str, **style: Any) -> tuple[str, bool]:
        if text not in done:
            done[text] = lay_out(text, **style)
        return done[text]

    with mock.patch.object(mmengine_config, 'FormatCode', lay_out_once):
        yield


def config_file(name: str) -> Path:
    """A config of this project by its name below ``configs``, in a source tree or in an installed package.

    Raises:
        UserError: It is in neither.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent / 'configs', package / '.mim' / 'configs'):
        if (root / f'{name}.py').is_file():
            return root / f'{name}.py'
    raise UserError(f'configs/{name}.py was not found beside or in {package}')


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """The folder for logs and checkpoints: the flag, else the config's own, else ``work_dirs/<config name>``.

    Raises:
        UserError: It cannot be written to.
    """
    chosen = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', Path(cfg.filename).stem)
    cfg.work_dir = os.path.expanduser(chosen)  # a shell leaves the ~ of --work-dir=~/mine
    there = Path(os.path.abspath(cfg.work_dir))
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise UserError(f'the work dir {cfg.work_dir} cannot be made: {there} is a file. Give another --work-dir')
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f'the work dir {cfg.work_dir} cannot be written: no right to {there}. Give another --work-dir')


def set_data_root(cfg: Config, data_root: str) -> None:
    """Point every dataset, and every evaluator that reads the same files, at another copy of the data.

    Raises:
        UserError: A dataset of the config has no ``data_root``.
    """
    old_roots: list[str] = []
    data_root = os.path.expanduser(data_root)
    for name in LOADERS:
        loader = cfg.get(name) or {}
        for dataset in leaf_datasets(loader['dataset']) if 'dataset' in loader else ():
            if not dataset.get('data_root'):
                raise UserError(
                    f'the {dataset["type"]} of {cfg.filename}, {name}, has no data_root for --data-root to replace'
                )
            old_roots.append(dataset.data_root)
            dataset.data_root = data_root
    for name in EVALUATORS:
        if cfg.get(name):
            cfg[name] = _map_strings(cfg[name], lambda s: _move(s, old_roots, data_root))


def train_from_scratch(cfg: Config) -> None:
    """Drop pretrained weights, and with them what only makes sense on top of them: frozen stages, BN in eval mode."""
    if cfg.get('load_from'):
        print_log(f'--no-pretrained: load_from = {cfg.load_from} is left out', 'current')
    cfg.load_from = None
    backbone = _backbone(cfg)
    changes = dict(init_cfg=None, frozen_stages=-1, norm_eval=False)
    for key, value in changes.items():
        if key == 'init_cfg' or key in backbone:
            backbone[key] = value
    print_log('training from scratch: no pretrained weights, no frozen stage, every BN learns', 'current')


def use_amp(cfg: Config) -> None:
    """Automatic mixed precision, as MM's ``--amp``; a config that has it already keeps its own loss scale."""
    if cfg.optim_wrapper.get('type', 'OptimWrapper') == 'AmpOptimWrapper':
        return
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def keep_seed(cfg: Config, of_checkpoint: int | None, given: int | None) -> int | None:
    """The seed of a run that goes on: that of its start, whose order of pictures depends on it."""
    seed = cfg.get('randomness', {}).get('seed') if given is None else given
    if of_checkpoint is None:
        return seed
    if seed is not None and seed != of_checkpoint:
        print_log(f'the run keeps the seed of its start, {of_checkpoint}, and not {seed}', 'current')
    return of_checkpoint


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the rate with the batch, from the config's ``auto_scale_lr.base_batch_size``.

    Raises:
        UserError: The config does not say for which batch its rate is.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {cfg.filename} does not have')
    cfg.auto_scale_lr.enable = True


def draw_predictions(cfg: Config, show_dir: str) -> None:
    """Have the config's visualization hook write a picture of every test image's prediction below ``show_dir``.

    Raises:
        UserError: The config has no ``default_hooks.visualization``.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError(f'--show-dir needs default_hooks.visualization, which {cfg.filename} does not have')
    # Absolute, because MMDetection's hook would join a relative path to the work dir anew at every image.
    show_dir = os.path.abspath(show_dir)
    if 'Det' in hook['type']:
        hook.update(draw=True, test_out_dir=show_dir)
    elif 'Seg' in hook['type']:
        hook.update(draw=True, interval=1)
        cfg.visualizer.save_dir = show_dir
    else:  # MMPretrain
        hook.update(enable=True, interval=1, out_dir=show_dir)


def use_tta(cfg: Config) -> None:
    """Test with the config's test-time augmentation; its metrics are named ``ms/…``.

    Raises:
        UserError: The config has no ``tta_model`` or no ``tta_pipeline``, or its model has masks.
    """
    missing = [name for name in ('tta_model', 'tta_pipeline') if not cfg.get(name)]
    if missing:
        raise UserError(f'--tta needs {" and ".join(missing)}, which {cfg.filename} does not have')
    masks = _predicts_masks(cfg)
    if masks:
        raise UserError(f'--tta: MMDetection cannot merge masks, and {cfg.filename} has {masks}; boxes work')
    for dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    evaluators = cfg.test_evaluator
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        evaluator.prefix = 'ms'
    cfg.model = dict(**cfg.tta_model, module=cfg.model)


def use_test_pipeline(cfg: Config, name: str) -> None:
    """Test with another of the config's pipelines, its variable ``<name>_test_pipeline``, such as timm's.

    Raises:
        UserError: The config has no such pipeline.
    """
    pipeline = cfg.get(name + PIPELINE)
    if not pipeline:
        there = sorted(key[: -len(PIPELINE)] for key in cfg if key.endswith(PIPELINE))
        raise UserError(
            f'--pipeline {name} needs {name}{PIPELINE} in {cfg.filename}, which has '
            + (f'those of {", ".join(there)}' if there else 'none of such a name')
        )
    for dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = pipeline
    cfg.tested_pipeline = name  # kept with the results, by the config that MMEngine writes beside them


def _predicts_masks(cfg: Config) -> str | None:
    """What of a detector's config says that masks come out, by its key."""
    if cfg.get('default_scope') not in (None, 'mmdet'):
        return None
    for key, node in (('model', cfg.model), ('model.detector', cfg.model.get('detector') or {})):
        for name, part in ((key, node), (f'{key}.roi_head', node.get('roi_head') or {})):
            found = next((head for head in MASK_HEADS if part.get(head)), None)
            if found:
                return f'{name}.{found}'
    evaluators = cfg.get('test_evaluator') or {}
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        metrics = evaluator.get('metric') or ()
        if 'segm' in ([metrics] if isinstance(metrics, str) else metrics) or 'Panoptic' in type_name(evaluator):
            return 'a test_evaluator of masks'
    return None


def _backbone(cfg: Config) -> dict:
    model = cfg.get('model', {})
    if 'backbone' not in model:
        raise UserError(f'{cfg.filename} has no model.backbone')
    return model.backbone


def _map_strings(value: Any, function: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, dict):
        return type(value)({k: _map_strings(v, function) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_map_strings(v, function) for v in value)
    return value


def _move(path: str, old_roots: list[str], new_root: str) -> str:
    for old in old_roots:
        if path.startswith(os.path.join(old, '')):
            return os.path.join(new_root, os.path.relpath(path, old))
    return path
