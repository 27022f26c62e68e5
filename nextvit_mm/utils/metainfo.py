"""The classes of a model and their colors, as its checkpoint or the data sets of its config have them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS


@dataclass(frozen=True)
class Metainfo:
    """What is drawn and written of the classes.

    Attributes:
        classes: Their names, by label; None where nothing says them.
        palette: Red, green and blue (0 to 255) of each; None where some have none.
    """

    classes: list[str] | None = None
    palette: list[list[int]] | None = None


def read_metainfo(cfg: Config, checkpoint: Any = None) -> Metainfo:
    """The classes of a model, of its checkpoint where that has them, else of its config's test data.

    The files of the data are not read.

    Args:
        cfg: The model's config.
        checkpoint: What its file holds. MMEngine writes ``meta['dataset_meta']``, mmcv 1.x ``meta['CLASSES']``.
    """
    meta = (checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None) or {}
    info = {key.lower(): value for key, value in (meta.get('dataset_meta') or meta).items()}
    if info.get('classes') is None or not len(info['classes']):
        info = _of_test_data(cfg)
    classes, palette = info.get('classes'), info.get('palette')
    names = None if classes is None else [str(name) for name in classes]
    # MMDetection also has palettes by name, and a config's may be one of other classes.
    if not names or not isinstance(palette, (list, tuple, np.ndarray)) or len(palette) < len(names):
        return Metainfo(names)
    return Metainfo(names, np.asarray(palette, int).tolist())


def leaf_datasets(dataset: dict) -> Iterator[Any]:
    """The datasets that read files, below wrappers such as RepeatDataset and ConcatDataset."""
    inner = dataset.get('datasets', dataset.get('dataset'))
    if inner is None:
        yield dataset
    else:
        for item in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from leaf_datasets(item)


def _of_test_data(cfg: Config) -> dict[str, Any]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if not dataset:
        return {}
    leaf = next(leaf_datasets(dataset))
    kind = leaf['type']
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            kind = registry.get(kind)
    return {**getattr(kind, 'METAINFO', {}), **(leaf.get('metainfo') or {})}
