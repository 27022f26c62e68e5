"""What a runtime has to know of an exported model, found in the config, the checkpoint and the data."""

import contextlib
import io
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from ..errors import UserError
from ..predict.predictor import FORMAT, about_file, read_picture
from ..training import config as cfgs
from ..training.preflight import check_data
from ..utils.sizes import parse_size
from ..version import __version__
from .backends import INPUT
from .graphs import Graph

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
VERSIONS = (
    'torch',
    'torchvision',
    'onnx',
    'onnxruntime',
    'openvino',
    'coremltools',
    'nncf',
    'mmcv',
    'mmdet',
    'mmsegmentation',
    'mmpretrain',
)


def describe(
    cfg: Config,
    model: nn.Module,
    graph: Graph,
    dataset_meta: dict[str, Any],
    size: Sequence[int] | None,
    dynamic: Sequence[str],
    normalize_inside: bool,
) -> dict[str, Any]:
    """What a runtime has to know of an exported model: the content of its ``.json``.

    Raises:
        UserError: The config's test pipeline does not say what the input is.
    """
    pre = model.data_preprocessor
    if getattr(pre, 'mean', None) is None:
        raise UserError(f'the data_preprocessor of {cfg.filename} has no mean and std')
    mean, std = ([float(str(value)) for value in getattr(pre, name).flatten().numpy()] for name in ('mean', 'std'))
    # MM packages read pictures as BGR, and the preprocessor may turn them.
    turns = any(getattr(pre, name, False) for name in ('_channel_conversion', 'channel_conversion', 'to_rgb'))
    rule, shape = resize_rule(cfg, graph.task, size, dynamic)
    about = dict(
        format=FORMAT,
        task=graph.task,
        input=dict(
            name=INPUT,
            layout='NCHW',
            dtype='float32',
            color='RGB' if turns else 'BGR',
            size=shape,
            dynamic=list(dynamic),
            mean=mean,
            std=std,
            normalized_inside=normalize_inside,
        ),
        outputs=list(graph.outputs),
        resize=rule,
        versions=_versions(),
    )
    if graph.task != 'backbone':
        info = dataset_meta if dataset_meta else _meta_of_dataset(cfg)
        about['classes'] = list(info['classes']) if info.get('classes') else None
        palette = info.get('palette')
        about['palette'] = [list(map(int, color)) for color in palette] if isinstance(palette, (list, tuple)) else None
    if graph.task == 'detection':
        config = model.roi_head.test_cfg
        about['test_cfg'] = {
            name: config[name] for name in ('score_thr', 'max_per_img', 'mask_thr_binary') if name in config
        }
    return about


def resize_rule(
    cfg: Config, task: str, size: Sequence[int] | None, dynamic: Sequence[str]
) -> tuple[dict[str, Any], list[int] | None]:
    """How a picture becomes the input, from the config's test pipeline, and the input's fixed size, if it has one.

    With a fixed size a picture is resized to fit into it, its ratio kept, and padded to the right and below; a
    classifier crops its center instead, and a pipeline that does not keep the ratio does not here.

    Raises:
        UserError: The runner does not know how to do what the pipeline does.
    """
    steps = {str(getattr(step['type'], '__name__', step['type'])).split('.')[-1]: step for step in _pipeline(cfg)}
    size = parse_size(size)
    if task == 'classification' or 'ResizeEdge' in steps:
        return _classifiers_rule(cfg, steps, size, dynamic)
    resize = steps.get('Resize', {})
    scale, keep_ratio = parse_size(resize.get('scale')), resize.get('keep_ratio', False)
    factor = float(resize.get('scale_factor') or 1.0)
    how = dict(interpolation=_interpolation(cfg, resize, 'bilinear'))
    if 'size' in dynamic:
        if size or (scale and keep_ratio):
            long_short = sorted(size or scale, reverse=True)
            return dict(long_short=long_short, **how), None
        return dict(**(dict(exact=scale[::-1]) if scale else dict(factor=factor)), **how), None
    if scale and not keep_ratio:
        size = size or scale[::-1]  # MM's scale is width, height
        return dict(exact=size, **how), size
    if not size and scale and task == 'segmentation':
        raise UserError(
            f'the test pipeline of {cfg.filename} gives pictures of many shapes, and padding would '
            "change a segmentor's result: give --size HEIGHT WIDTH for pictures of one shape, or "
            '--dynamic size'
        )
    size = size or (scale[::-1] if scale else _size_of_first_picture(cfg, factor))
    return dict(canvas=size, **how), size


def _classifiers_rule(
    cfg: Config, steps: dict[str, dict], size: list[int] | None, dynamic: Sequence[str]
) -> tuple[dict[str, Any], list[int] | None]:
    """ResizeEdge and CenterCrop, or a Resize to one size; another ``size`` scales both."""
    if steps and 'ResizeEdge' not in steps:
        scale = parse_size(steps.get('Resize', {}).get('scale'))
        if not scale or steps['Resize'].get('keep_ratio'):
            raise UserError(f'the test pipeline of {cfg.filename} has neither ResizeEdge nor a Resize to one size')
        exact = size or scale[::-1]
        return (
            dict(exact=exact, interpolation=_interpolation(cfg, steps['Resize'], 'bilinear')),
            None if 'size' in dynamic else exact,
        )
    edge = steps.get('ResizeEdge', dict(scale=256, backend='pillow', interpolation='bicubic'))
    usual = parse_size(steps.get('CenterCrop', {}).get('crop_size', 224))
    crop = size or usual
    return (
        dict(
            short_edge=max(round(edge['scale'] * min(crop) / min(usual)), *crop),
            center_crop=crop,
            interpolation=_interpolation(cfg, edge, 'bilinear'),
        ),
        None if 'size' in dynamic else crop,
    )


def _interpolation(cfg: Config, step: dict[str, Any], default: str) -> str:
    """The runner's name for a resizing step's."""
    known = {('cv2', 'bilinear'): 'bilinear', ('pillow', 'bicubic'): 'bicubic'}
    found = step.get('backend') or 'cv2', step.get('interpolation') or default
    if found not in known:
        raise UserError(
            f'the runner does not resize as the test pipeline of {cfg.filename} does ({found[1]} of '
            f'{found[0]}); it knows ' + ', '.join(f'{name} of {library}' for library, name in known)
        )
    return known[found]


def find_pictures(
    cfg: Config, images: str | None, count: int, size: Sequence[int] | None = None, split: str = 'test'
) -> tuple[list[np.ndarray], str]:
    """Up to ``count`` RGB pictures (H, W, 3): of a file or folder, else of the config's data, else one of noise.

    The noise, of ``size``, serves a network whose config has no data here: it shows whether the file computes the same.

    Returns:
        tuple: The pictures, and where they are from: ``'given'``, ``'config'`` or ``'noise'``.
    """
    paths: Sequence[str | Path]
    if images:
        path = Path(images)
        paths = sorted(p for p in path.rglob('*') if p.suffix.lower() in PICTURES) if path.is_dir() else [path]
        if not paths or not Path(paths[0]).is_file():
            raise UserError(f'no pictures ({", ".join(PICTURES)}) at {images}')
    else:
        paths = _paths_of_dataset(cfg, split, count)
    source = 'given' if images else 'config' if paths else 'noise'
    if paths:
        try:
            return [read_picture(path) for path in paths[:count]], source
        except (OSError, ValueError) as error:
            raise UserError(f'a picture cannot be read: {error}') from None
    if split == 'train':
        raise UserError(
            "int8 needs pictures to calibrate with: give --calibration-images DIR, or the config's "
            'training data with --data-root'
        )
    height, width = size or (256, 320)
    return [np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)], source


def save_about(about: dict[str, Any], path: Path) -> None:
    about_file(path).write_text(json.dumps(about, indent=2) + '\n', encoding='utf-8')


def _pipeline(cfg: Config) -> list[dict]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    return next((leaf.get('pipeline', []) for leaf in cfgs.leaf_datasets(dataset)), []) if dataset else []


def _dataset(cfg: Config, split: str):
    """The config's data set without pictures read, or None where its files are not here."""
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        return None
    only = Config(dict(test_dataloader=loader), filename=cfg.filename)
    try:
        check_data(only, ('test',))
    except UserError:
        return None
    leaf = next(cfgs.leaf_datasets(loader['dataset']))
    with contextlib.redirect_stdout(io.StringIO()):  # of pycocotools
        return DATASETS.build(dict(leaf, pipeline=[]))


def _paths_of_dataset(cfg: Config, split: str, count: int) -> list[str]:
    dataset = _dataset(cfg, split)
    if dataset is None:
        return []
    # All over the data: files that lie together are often of one kind.
    picked = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return [dataset.get_data_info(int(i))['img_path'] for i in picked]


def _size_of_first_picture(cfg: Config, factor: float) -> list[int]:
    paths = _paths_of_dataset(cfg, 'test', 1)
    if not paths:
        raise UserError(
            "the config's test pipeline takes pictures at their own size: give --size HEIGHT WIDTH, or --dynamic size"
        )
    return [round(side * factor) for side in read_picture(paths[0]).shape[:2]]


def _meta_of_dataset(cfg: Config) -> dict[str, Any]:
    """Classes and palette without the data's files."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if not dataset:
        return {}
    leaf = next(cfgs.leaf_datasets(dataset))
    with DATASETS.switch_scope_and_registry(None) as registry:  # of the library whose config it is
        kind = registry.get(leaf['type']) if isinstance(leaf['type'], str) else leaf['type']
    return {**getattr(kind, 'METAINFO', {}), **leaf.get('metainfo', {})}


def _versions() -> dict[str, str]:
    found = dict(nextvit_mm=__version__, python=platform.python_version())
    for name in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
