"""What a runtime has to know of an exported model, found in the config, the checkpoint and the data."""

import contextlib
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from mmengine.config import Config
from torch import nn

from ..errors import UserError
from ..predict.predictor import FORMAT, About, Input, about_file
from ..training.channels import USUAL, channels_of
from ..utils.metainfo import Metainfo
from ..version import __version__
from .backends import INPUT
from .detectors import DetectorGraph
from .graphs import Graph
from .pictures import find_pictures
from .steps import Plan

__all__ = ['describe', 'describe_input', 'find_pictures', 'save_about']

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
    info: Metainfo,
    planned: Plan,
    dynamic: Sequence[str],
    normalize_inside: bool,
) -> About:
    """What a runtime has to know of an exported model: the content of its ``.json``.

    Raises:
        UserError: The config normalises colors twice.
    """
    about: About = {
        'format': FORMAT,
        'task': graph.task,
        **describe_input(cfg, model, planned, dynamic, normalize_inside),
        'outputs': list(graph.outputs),
        'versions': _versions(),
    }
    if graph.task != 'backbone':
        names = fitting(info, graph.class_count)
        about['classes'], about['palette'] = names.classes, names.palette
    if isinstance(graph, DetectorGraph):
        config = graph.test_cfg
        about['test_cfg'] = {
            name: config[name] for name in ('score_thr', 'max_per_img', 'mask_thr_binary') if name in config
        }
    if getattr(graph, 'multi_label', None):
        about['multi_label'] = graph.multi_label
    return about


def fitting(info: Metainfo, count: int | None) -> Metainfo:
    """The names of the classes where there are as many as a network has; else none, which is said."""
    if count is None or info.classes is None or len(info.classes) == count:
        return info
    print(
        f'the model has {count} classes and {len(info.classes)} are named: the file names none. Set '
        'metainfo=dict(classes=…) of the data'
    )
    return Metainfo()


def describe_input(
    cfg: Config, model: nn.Module, planned: Plan, dynamic: Sequence[str], normalize_inside: bool = False
) -> About:
    """How a picture becomes a model's input, as :func:`nextvit_mm.predict.predictor.place` takes it.

    Raises:
        UserError: The config normalises colors twice.
    """
    color, mean, std = _colors(cfg, model.data_preprocessor, planned)
    return About(
        input=Input(
            name=INPUT,
            layout='NCHW',
            dtype='float32',
            channels=channels_of(cfg),
            size=planned.size,
            dynamic=list(dynamic),
            normalized_inside=normalize_inside,
            color=color,
            mean=mean,
            std=std,
        ),
        read=planned.read,
        steps=planned.steps,
    )


def _colors(cfg: Config, pre: nn.Module, planned: Plan) -> tuple[str, list[float], list[float]]:
    """Order, mean and standard deviation of the colors, from the preprocessor or a ``Normalize`` step."""
    # MM packages read pictures as BGR, and the preprocessor may turn them where they have three channels.
    channels, flags = channels_of(cfg), ('_channel_conversion', 'channel_conversion', 'to_rgb')
    turns = channels == USUAL and any(getattr(pre, name, False) for name in flags)
    mean, std = (getattr(pre, name, None) for name in ('mean', 'std'))
    if planned.normalize:
        if mean is not None or turns:
            raise UserError(f'{cfg.filename} normalises twice: by Normalize in the pipeline and by data_preprocessor')
        return planned.normalize['color'], planned.normalize['mean'], planned.normalize['std']
    if mean is None:  # the network takes pixels from 0 to 255
        mean, std = [0.0] * channels, [1.0] * channels
    else:
        mean, std = ([float(str(value)) for value in values.flatten().cpu().numpy()] for values in (mean, std))
    return 'gray' if channels == 1 else 'RGB' if turns else 'BGR', mean, std


def save_about(about: About, path: Path) -> None:
    about_file(path).write_text(json.dumps(about, indent=2) + '\n', encoding='utf-8')


def _versions() -> dict[str, str]:
    found = dict(nextvit_mm=__version__, python=platform.python_version())
    for name in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
