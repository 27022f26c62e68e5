"""What a config's data would do to a run, looked at before it: lists, annotation files, and a few class maps."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope

from ..errors import UserError
from .check_batches import check_batches
from .check_coco import check_coco, is_same_file, trained_with
from .check_folders import FLAG, check_folders
from .check_maps import check_maps
from .coco import read_coco
from .files import pictures_below, some
from .loaders import (
    annotation_file,
    datasets_of,
    dicts_in,
    evaluators_of,
    is_coco_dataset,
    picture_folder,
    picture_list,
    steps_of,
    type_name,
)
from .own import drop_masks, fit_topk, learns_masks

HEADS = ('roi_head', 'bbox_head', 'decode_head', 'auxiliary_head', 'head')


def check_contents(cfg: Config, splits: Sequence[str]) -> None:
    """Look into the data of a config that will run; what is missing and plain is filled in, and said.

    Args:
        cfg: The config, with ``work_dir`` set; it names the completed copy of a file that had to be completed.
        splits: Of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: Something would stop the run, or teach the wrong thing: one line that names the file or the key.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    counts: dict[str, int] = {}
    for split in splits:
        for dataset in datasets_of(cfg, split):
            if dataset.get('backend_args') or 'type' not in dataset:
                continue
            counts[split] = counts.get(split, 0) + _check_dataset(cfg, split, dataset)
        _check_evaluators(cfg, split)
    if 'train' in splits:
        _check_joined(cfg)
    if 'train' in splits and counts.get('train'):
        check_batches(cfg, counts['train'])


def count_pictures(cfg: Config) -> int | None:
    """How many pictures a config trains with; None if that is not known.

    Raises:
        UserError: An annotation file cannot be read.
    """
    total = 0
    for dataset in datasets_of(cfg, 'train'):
        try:
            if is_coco_dataset(dataset):
                found = read_coco(annotation_file(dataset))
                classes = classes_of(dataset, f'train_dataloader of {cfg.filename}')
                count = len(trained_with(found, dataset, classes))
            elif listed := picture_list(dataset):
                count = sum(bool(line.strip()) for line in listed.open(encoding='utf-8'))
            else:
                count = len(pictures_below(picture_folder(dataset)))
        except OSError:
            return None
        chosen = dataset.get('indices')
        total += count if chosen is None else min(count, chosen if isinstance(chosen, int) else len(chosen))
    return total or None


def classes_of(dataset: dict, name: str) -> tuple[str, ...] | None:
    """The classes of a data set: the config's, else those that its type has; None where they come from the data.

    Raises:
        UserError: The config's are not a list of names.
    """
    meta = dataset.get('metainfo') or {}
    classes = meta.get('classes', meta.get('CLASSES'))
    if isinstance(classes, str) and not os.path.isfile(classes):
        raise UserError(
            f"{name}: classes is the text {classes!r}, and must be a list of names: write classes=('{classes}',), "
            'with the comma'
        )
    if isinstance(classes, str):
        return tuple(Path(classes).read_text(encoding='utf-8').split('\n'))
    if classes is None:
        classes = getattr(dataset_class(dataset), 'METAINFO', {}).get('classes')  # ImageNet's names two classes alike
        return None if classes is None else tuple(classes)
    twice = sorted({c for c in classes if list(classes).count(c) > 1})
    if twice:
        raise UserError(f'{name}: classes has {some(twice)} twice')
    return tuple(classes)


def dataset_class(dataset: dict) -> Any:
    """The class that a data set's ``type`` names, in the scope of the config; None where it is not known."""
    if not isinstance(dataset['type'], str):
        return dataset['type']
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.get(dataset['type'])


def _check_dataset(cfg: Config, split: str, dataset: dict) -> int:
    """Look into one data set; returns the number of its pictures."""
    name = f'{split}_dataloader of {cfg.filename}'
    classes = classes_of(dataset, name)
    prefix = dataset.get('data_prefix') or {}
    if is_coco_dataset(dataset):
        count = check_coco(cfg, split, dataset, classes or (), name)
    elif type_name(dataset) == 'PairedSegDataset' or (isinstance(prefix, dict) and 'seg_map_path' in prefix):
        count = check_maps(cfg, split, dataset, dataset_class(dataset), classes)
    elif type_name(dataset) in ('ImageNet', 'CustomDataset') and not dataset.get('multi_label'):
        count = check_folders(dataset, classes, name)
        wanted = (cfg.model.get('head') or {}).get('num_classes')
        if classes is None and wanted and not picture_list(dataset):
            _check_folder_count(picture_folder(dataset), wanted, cfg)
        known = wanted if classes is None else len(classes)
        if known and fit_topk(cfg, known):
            print_log(f'topk of the evaluators: left out what {known} classes cannot have', 'current')
    else:
        return 0
    if classes is not None:
        check_heads(cfg, len(classes), name)
    indices = dataset.get('indices')
    return min(count, indices if isinstance(indices, int) else len(indices)) if indices else count


def _check_joined(cfg: Config) -> None:
    """See that joined data sets number the same classes alike; MMDetection joins others, too, and mixes their labels.

    Raises:
        UserError: They do not.
    """
    name = f'train_dataloader of {cfg.filename}'
    parts = [d for d in datasets_of(cfg, 'train') if is_coco_dataset(d) and not d.get('return_classes')]
    classes = list(dict.fromkeys(classes_of(part, name) for part in parts))
    if len(classes) > 1:
        raise UserError(
            f'{name} joins data sets of other classes: {some(classes[0] or ())}; and {some(classes[1] or ())}. Give '
            'all the same classes, in the same order'
        )


def _check_folder_count(root: Path, wanted: int, cfg: Config) -> None:
    """See that a data set that takes its classes from its folders has them all: they would be numbered otherwise.

    Raises:
        UserError: It has other classes than the head.
    """
    names = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    if len(names) != wanted:
        raise UserError(
            f'{root} has {len(names)} folders ({some(names)}), and model.head of {cfg.filename} has '
            f'num_classes={wanted}: there must be a folder for each class, or {FLAG}'
        )


def check_heads(cfg: Config, count: int, name: str) -> None:
    """See that every head has as many classes as the data set.

    Raises:
        UserError: One has another number.
    """
    for key in HEADS:
        for found in dicts_in(cfg.model.get(key) or {}):
            wrong = found.get('num_classes')
            if isinstance(wrong, int) and wrong != count and type_name(found) != 'RPNHead':
                raise UserError(
                    f'model.{key}: the {type_name(found)} has num_classes={wrong}, and the data set of {name} has '
                    f'{count} classes: set them to the same, or {FLAG}'
                )


def _check_evaluators(cfg: Config, split: str) -> None:
    """See that an evaluator reads the annotations of the data set that is evaluated, and has names of its own."""
    known = [{key: value for key, value in one.items() if key != 'ann_file'} for one in evaluators_of(cfg, split)]
    twice = next((one for one in known if known.count(one) > 1), None)
    if twice:
        raise UserError(
            f'{split}_evaluator of {cfg.filename} has {type_name(twice)} twice, whose metrics would have the same '
            'names: give each a prefix of its own'
        )
    files = [annotation_file(d) for d in datasets_of(cfg, split) if is_coco_dataset(d)]
    for evaluator in evaluators_of(cfg, split):
        file = evaluator.get('ann_file')
        if not file or evaluator.get('format_only'):
            continue
        if files and not any(is_same_file(file, other) for other in files):
            raise UserError(
                f'{split}_evaluator of {cfg.filename} reads {file}, and its data set reads {files[0]}: set '
                f'{split}_evaluator.ann_file to that file'
            )


def use_boxes_only(cfg: Config) -> None:
    """``--boxes-only`` without ``--own-classes``.

    Raises:
        UserError: There is no mask branch.
    """
    if not learns_masks(cfg) or not any(True for _ in steps_of(cfg, 'LoadAnnotations')):
        raise UserError(f'--boxes-only takes the mask branch out of a detector, and {cfg.filename} has none')
    drop_masks(cfg)
