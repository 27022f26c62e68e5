"""A trained model with the face of an exported one, on top of MM's own inferencers."""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from ..errors import UserError
from ..predict.predictor import TOP, About, Predictor, swap_colors
from ..training.building import clear_config_errors
from ..training.channels import fit_channels, rule_of
from ..training.config import load_config
from ..training.preflight import check_checkpoint
from ..utils.metainfo import read_metainfo
from ..utils.recipes import find_recipe
from ..weights.models import load_exactly
from ..weights.publish import embedded_config, is_weights_name
from ..weights.zoo import ZOO

EXPORTED = ('.onnx', '.xml')
TASKS = dict(mmdet='detection', mmseg='segmentation', mmpretrain='classification')
INFERENCERS = dict(
    mmdet=('mmdet.apis', 'DetInferencer'),
    mmseg=('mmseg.apis', 'MMSegInferencer'),
    mmpretrain=('mmpretrain.apis', 'ImageClassificationInferencer'),
)


def load_predictor(model: str, checkpoint: str | None = None, device: str | None = None) -> Predictor:
    """What finds objects, classes or class maps in a picture, from whatever holds a trained model.

    Args:
        model: A config or the name of one (``mask_rcnn_nextvit_s_1x``), a work dir, a checkpoint that holds its config,
            or an exported file (``.onnx``, ``.xml``).
        checkpoint: The weights. Default: the best or the last of a work dir; a recipe's published ones where they can
            be fetched.
        device: ``'cpu'``, ``'cuda'`` … of a checkpoint. Default: CUDA where there is one.

    Returns:
        Predictor: Called with a picture it returns results; ``draw`` draws them.

    Raises:
        UserError: Something is missing, does not fit, or is of another kind.

    Example:
        >>> predict = load_predictor('work_dirs/demo')
        >>> result = predict('photo.jpg')
        >>> predict.draw('photo.jpg', result).save('drawn.png')
    """
    exported = next((path for path in (checkpoint, model) if path and path.endswith(EXPORTED)), None)
    if exported:
        return _open_exported(exported)
    cfg, weights = resolve(model, checkpoint)
    return Trained(cfg, weights, device)


def resolve(model: str, checkpoint: str | None) -> tuple[Config, str]:
    """The config and the weights of :func:`load_predictor`'s arguments.

    Raises:
        UserError: One of the two is not to be found.
    """
    path = Path(model)
    if path.is_dir():
        return load_config(str(_config_of(path))), checkpoint or str(_checkpoint_of(path))
    if is_weights_name(model) and model not in ZOO:
        check_checkpoint(model)
        if checkpoint:
            raise UserError(f'{model} and {checkpoint} are both weights: give one of them, or a config first')
        return embedded_config(model), model
    if path.suffix == '.py':
        if not checkpoint:
            raise UserError(f'{model} needs its weights: give a CHECKPOINT after the config')
        return load_config(model), checkpoint
    recipe = find_recipe(model)
    if recipe is None:
        raise UserError(
            f'{model} is no config, work dir, checkpoint, exported file or recipe; recipes are named as the files of '
            'configs/detection, segmentation and classification'
        )
    weights = checkpoint or recipe.weights
    if not weights:
        where = f'download {recipe.page}, and give the file' if recipe.page else 'give a CHECKPOINT'
        raise UserError(f'{model} needs its weights: {where} after the name')
    return load_config(str(recipe.config)), weights


class Trained(Predictor):
    """A checkpoint in the place of an exported file: the same call, the same results, the same drawings.

    MM's inferencer prepares the picture and runs the model. The picture is read as an exported file's is.

    Args:
        cfg: The config.
        checkpoint: Weights that fit it exactly.
        device: As :func:`load_predictor` takes it.

    Raises:
        UserError: The config is of no library that is known here, or the weights do not fit.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str | None = None) -> None:
        scope = cfg.get('default_scope')
        if scope not in TASKS:
            raise UserError(f'{cfg.filename} is of {scope}; what is known here are {", ".join(TASKS)}')
        if not (cfg.get('test_dataloader') or {}).get('dataset'):
            raise UserError(f'{cfg.filename} has no test_dataloader, whose pipeline prepares the pictures')
        fit_channels(cfg, ('test',))
        check_checkpoint(checkpoint)
        self.path = Path(checkpoint)
        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f'--device {device}: {str(error).splitlines()[0]}') from None
        with _quiet(), clear_config_errors(cfg):
            self.inferencer = _build(cfg, scope, device)
            loaded = load_exactly(self.inferencer.model, checkpoint, cfg.filename or 'the config')
        info = read_metainfo(cfg, loaded)
        self.about = About(task=TASKS[scope], read=rule_of(cfg), classes=info.classes, palette=info.palette)
        if self.about['task'] == 'detection':
            self.inferencer.model.dataset_meta = asdict(info)

    def __call__(self, picture: str | Path | np.ndarray) -> dict[str, Any]:
        pixels = np.ascontiguousarray(swap_colors(self.read(picture)))  # MM's packages read pictures as BGR
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        with _quiet():
            sample = self._run(pixels)
        if self.about['task'] == 'segmentation':
            return dict(class_map=sample.pred_sem_seg.data[0].cpu().numpy())
        if self.about['task'] == 'classification':
            scores = sample.pred_score.cpu().numpy()
            return dict(scores=scores, labels=np.argsort(-scores, kind='stable')[:TOP])
        found = sample.pred_instances.cpu().numpy()
        result = dict(boxes=found.bboxes, scores=found.scores, labels=found.labels)
        if 'masks' in found:
            result['masks'] = np.asarray(found.masks, bool).reshape(-1, *pixels.shape[:2])
        return result

    def _run(self, pixels: np.ndarray) -> Any:
        if self.about['task'] == 'detection':
            return self.inferencer(pixels, return_datasamples=True)['predictions'][0]
        samples = self.inferencer([pixels], return_datasamples=True)
        return samples[0] if isinstance(samples, (list, tuple)) else samples


def _open_exported(path: str) -> Predictor:
    try:
        predictor = Predictor(path)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(str(error)) from None
    if predictor.about['task'] == 'backbone':
        raise UserError(f'{path} is a backbone, which finds nothing by itself: export --what model')
    return predictor


def _build(cfg: Config, scope: str, device: str) -> Any:
    """MM's inferencer of a config, without weights yet."""
    module, name = INFERENCERS[scope]
    try:
        inferencer = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(f'{cfg.filename} needs {scope}: {error}') from None
    # MMPretrain's inferencer does not do so, and another model of this process may have had its own.
    init_default_scope(scope)
    # The weights of the checkpoint come over those that a recipe starts from, which may not even be here.
    backbone = cfg.model.get('backbone')
    if backbone:
        backbone.init_cfg = None
    if scope == 'mmpretrain':
        return inferencer(cfg, pretrained=False, device=device)
    built = inferencer(cfg, device=device)
    built.show_progress = False
    return built


def _config_of(work_dir: Path) -> Path:
    configs = sorted(work_dir.glob('*.py'), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise UserError(f'{work_dir} holds no config (*.py), which a training leaves there: give CONFIG and CHECKPOINT')
    return configs[-1]


def _checkpoint_of(work_dir: Path) -> Path:
    """The best checkpoint of a work dir where the run kept one, else the last."""
    best = sorted(work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if best:
        return best[-1]
    note = work_dir / 'last_checkpoint'
    # The folder may have been moved since the note was written.
    last = work_dir / Path(note.read_text().strip()).name if note.is_file() else None
    if last and last.is_file():
        return last
    rest = sorted(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime)
    if not rest:
        raise UserError(f'{work_dir} holds no checkpoint (*.pth): give one after it')
    return rest[-1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what MM says of a model that gets its weights here, and without its bar for each single picture."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        stack.callback(logger.setLevel, level)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        with contextlib.suppress(ImportError):
            progress: Any = importlib.import_module('mmpretrain.utils.progress')
            stack.callback(setattr, progress, 'disable_progress_bar', progress.disable_progress_bar)
            progress.disable_progress_bar = True
        yield
