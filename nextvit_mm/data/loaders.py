"""A config's loaders: the data sets that read files, their pipelines, their evaluators."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..utils.metainfo import leaf_datasets

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')


def datasets_of(cfg: Config, split: str) -> list[dict]:
    """The datasets that a split reads files with."""
    loader = cfg.get(f'{split}_dataloader') or {}
    return list(leaf_datasets(loader['dataset'])) if 'dataset' in loader else []


def evaluators_of(cfg: Config, split: str) -> list[dict]:
    found = cfg.get(f'{split}_evaluator') or []
    return list(found) if isinstance(found, (list, tuple)) else [found]


def type_name(config: dict) -> str:
    """The name of what a config's ``type`` is, a string with or without scope, or a class."""
    kind = config.get('type')
    return str(kind if isinstance(kind, str) else getattr(kind, '__name__', kind)).split('.')[-1]


def is_coco_dataset(dataset: dict) -> bool:
    return type_name(dataset) == 'CocoDataset'


def annotation_file(dataset: dict) -> Path:
    return Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')


def picture_list(dataset: dict) -> Path | None:
    """The list of pictures of a data set; MMPretrain's ImageNet takes ``meta/<split>.txt`` by itself where it is."""
    if dataset.get('ann_file'):
        return annotation_file(dataset)
    split = dataset.get('split')
    implied = Path(dataset.get('data_root') or '', 'meta', f'{split}.txt')
    return implied if isinstance(split, str) and split and implied.is_file() else None


def picture_folder(dataset: dict) -> Path:
    """Where the pictures of a data set lie."""
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, dict):
        prefix = prefix.get('img', prefix.get('img_path', '')) or ''
    return Path(dataset.get('data_root') or '', prefix or dataset.get('split') or '')


def dicts_in(value: Any) -> Iterator[dict]:
    """Every dict in a tree of dicts and lists, itself first."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from dicts_in(item)


def pipelines_of(cfg: Config) -> Iterator[list]:
    """Every pipeline of a config: those of its datasets, and its variables whose names end in ``pipeline``."""
    for split in ('train', 'val', 'test'):
        for dataset in datasets_of(cfg, split):
            if isinstance(dataset.get('pipeline'), list):
                yield dataset['pipeline']
        loader = cfg.get(f'{split}_dataloader') or {}
        for found in dicts_in(loader.get('dataset') or {}):  # of wrappers such as MultiImageMixDataset
            if ('dataset' in found or 'datasets' in found) and isinstance(found.get('pipeline'), list):
                yield found['pipeline']
    for key in list(cfg):
        if key.endswith('pipeline') and isinstance(cfg[key], list):
            yield cfg[key]


def steps_of(cfg: Config, *names: str) -> Iterator[dict]:
    """Every step of these types in every pipeline of a config."""
    for pipeline in pipelines_of(cfg):
        for step in dicts_in(pipeline):
            if type_name(step) in names:
                yield step


def allow_no_workers(cfg: Config) -> None:
    """Where a loader has no worker processes, take away what is only for these; PyTorch would refuse it."""
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and not loader.get('num_workers'):
            loader['persistent_workers'] = False
            loader.pop('prefetch_factor', None)
