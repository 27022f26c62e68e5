"""Which upstream configs are run: one of each combination of model, neck and heads, with a ResNet-50 where there is."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nextvit_mm.adapt import read_config
from nextvit_mm.errors import UserError

PACKAGES = ('mmdet', 'mmseg', 'mmpretrain')
NOT_CONFIGS = ('_base_', 'dsdl')  # parts of configs; data of another tool
HEAVY = re.compile(r'(^|[-_])(b|base|m|l|large|x|xl|xlarge|h|huge|g|giant|gigantic)([-_]|\d+[-_]|$)')


def combinations() -> dict[str, str]:
    """Every combination, and the name of the config that stands for it, as ``package::path``.

    Raises:
        ImportError: One of the three libraries is not installed.
    """
    best: dict[str, tuple[tuple, str]] = {}
    for package in PACKAGES:
        root = Path(str(importlib.import_module(package).__file__)).parent / '.mim' / 'configs'
        for path in sorted(root.rglob('*.py')):
            inner = path.relative_to(root)
            if not set(NOT_CONFIGS) & set(inner.parts):
                _enter(best, package, f'{package}::{inner.as_posix()}')
    return {kind: name for kind, (_, name) in best.items()}


def _enter(best: dict[str, tuple[tuple, str]], package: str, name: str) -> None:
    """Put a config in, if it is the first of its kind or better than the one there."""
    try:
        model = read_config(name).get('model')
    except UserError:  # some of upstream's name a base that does not exist
        return
    if 'type' not in (model or {}):  # a part of a config
        return
    kind, order = f'{package} {kind_of(model)}', (*_rank(model, name), name)
    if kind not in best or order < best[kind][0]:
        best[kind] = (order, name)


def backbone_of(model: dict) -> dict:
    """The config of a model's backbone, or of the detector's in it; empty if there is none."""
    return model.get('backbone') or (model.get('detector') or {}).get('backbone') or {}


def kind_of(model: dict) -> str:
    """A model's class, and those of its necks and heads: ``FCOS: neck FPN, bbox_head FCOSHead``."""
    parts = ', '.join(dict.fromkeys(_parts(model)))
    return f'{class_of(model)}: {parts}' if parts else class_of(model)


def class_of(config: dict) -> str:
    kind = config.get('type')
    return str(kind).split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', str(kind))


def _parts(node: dict) -> Iterator[str]:
    for key, value in node.items():
        if not key.endswith(('neck', 'head')) and key != 'detector':
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, dict):
                if 'type' in one:
                    yield f'{key} {class_of(one)}'
                yield from _parts(one)


def _rank(model: dict, name: str) -> tuple[Any, ...]:
    """What comes first: ResNet-50, then another ResNet, then what is not large by its name."""
    backbone = backbone_of(model)
    resnet = class_of(backbone).startswith('ResNet')
    return (not resnet or backbone.get('depth') != 50, not resnet, bool(HEAVY.search(Path(name).stem)))
