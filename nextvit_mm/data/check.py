"""What a config's data would do to a run, looked at before it: lists, annotation files, and a few class maps."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope

from ..errors import UserError
from ..utils.files import write_text
from .check_batches import check_batches
from .check_folders import FLAG, check_folders
from .check_maps import check_maps
from .coco import check_boxes, complete, read_coco, without_masks
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
    """How many pictures a config trains with, before those without objects are left out; None if not known.

    Raises:
        UserError: An annotation file cannot be read.
    """
    total = 0
    for dataset in datasets_of(cfg, 'train'):
        try:
            if is_coco_dataset(dataset):
                total += len(read_coco(annotation_file(dataset))['images'])
            elif listed := picture_list(dataset):
                total += sum(bool(line.strip()) for line in listed.open(encoding='utf-8'))
            else:
                total += len(pictures_below(picture_folder(dataset)))
        except OSError:
            return None
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
        count = _check_coco(cfg, split, dataset, classes or (), name)
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


def _check_coco(cfg: Config, split: str, dataset: dict, classes: tuple[str, ...], name: str) -> int:
    file = annotation_file(dataset)
    found = read_coco(file)
    _check_categories([str(c['name']) for c in found['categories']], classes, file, name)
    notes = complete(found, file)
    for warning in check_boxes(found, file):
        print_log(warning, 'current', level=30)
    with_mask = any(step.get('with_mask') for step in dicts_in(dataset.get('pipeline') or []))
    if with_mask and split == 'train':
        _check_masks(cfg, found, file)
    _check_pictures(found, picture_folder(dataset), file)
    if not found['annotations'] and not all(e.get('format_only') for e in evaluators_of(cfg, split)):
        print_log(
            f'{file} has no annotations, so that each metric is -1: {split}_evaluator.format_only=True with '
            f'{split}_evaluator.outfile_prefix=PATH writes the predictions alone',
            'current',
            level=30,
        )
    if split == 'train':
        _check_filter(found, dataset, classes, file)
    if notes:
        _use_completed(cfg, dataset, found, file, notes)
    return len(found['images'])


def _check_categories(names: list[str], classes: tuple[str, ...], file: Path, name: str) -> None:
    missing = [c for c in classes if c not in names]
    if missing:
        how_many = 'none' if len(missing) == len(classes) else f'{len(classes) - len(missing)}'
        raise UserError(
            f'{file} has the categories {some(names)}; {how_many} of the {len(classes)} classes of {name} are among '
            f'them, missing: {some(missing)}. Correct the names, or {FLAG}'
        )
    ordered = [n for n in names if n in classes]
    if ordered != list(classes):
        raise UserError(
            f'{file} lists its categories in another order than the classes of {name}, and MMDetection would swap '
            f'them: write classes={tuple(ordered)!r}'
        )
    left_out = [n for n in names if n not in classes]
    if left_out:
        print_log(f'{file}: left out, because no class has the name: {some(left_out)}', 'current', level=30)


def _check_masks(cfg: Config, found: dict, file: Path) -> None:
    missing = without_masks(found)
    if not missing or not learns_masks(cfg):
        return
    if len(missing) < sum(not a['iscrowd'] for a in found['annotations']):
        raise UserError(
            f'{file}: {len(missing)} of {len(found["annotations"])} annotations have no polygon, first {missing[0]}; '
            'add them, or train boxes alone with --boxes-only'
        )
    drop_masks(cfg)


def _check_pictures(found: dict, folder: Path, file: Path) -> None:
    """See that the pictures are there, by listing their folders and not by asking for each."""
    names = [str(image['file_name']) for image in found['images']]
    there: dict[str, set[str]] = {}
    missing = []
    for name in names:
        base, last = os.path.split(os.path.join(folder, name))
        if base not in there:
            there[base] = set(os.listdir(base)) if os.path.isdir(base) else set()
        if last not in there[base]:
            missing.append(name)
    if missing:
        raise UserError(
            f'{file}: {len(missing):,} of {len(names):,} pictures are not below {folder}, first {missing[0]}'
        )
    for image in found['images']:
        if not image.get('width') or not image.get('height'):
            raise UserError(f'{file}: the picture {image["file_name"]} has no width and height; {FLAG} reads them')


def _check_filter(found: dict, dataset: dict, classes: tuple[str, ...], file: Path) -> None:
    """See that MMDetection leaves a picture to train with."""
    rule = dataset.get('filter_cfg') or {}
    least = rule.get('min_size', 0)
    used = {c['id'] for c in found['categories'] if str(c['name']) in classes}
    with_objects = {a['image_id'] for a in found['annotations'] if a['category_id'] in used and not a['iscrowd']}
    large = [image for image in found['images'] if min(image['width'], image['height']) >= least]
    if not with_objects:
        raise UserError(f'{file}: no picture has an annotation of {some(classes)}')
    if not large:
        raise UserError(
            f'{file}: every picture is smaller than {least} pixels, and left out: set '
            'train_dataloader.dataset.filter_cfg.min_size=1'
        )
    if rule.get('filter_empty_gt') and not any(image['id'] in with_objects for image in large):
        raise UserError(f'{file}: no picture of at least {least} pixels has an annotation of {some(classes)}')


def _use_completed(cfg: Config, dataset: dict, found: dict, file: Path, notes: list[str]) -> None:
    copy = Path(os.path.abspath(cfg.work_dir), 'data', f'completed_{file.name}')
    write_text(copy, json.dumps(found))
    for split in ('train', 'val', 'test'):
        for other in datasets_of(cfg, split):
            if other is not dataset and is_coco_dataset(other) and _same(annotation_file(other), file):
                other['ann_file'] = str(copy)
        for evaluator in evaluators_of(cfg, split):
            if evaluator.get('ann_file') and _same(evaluator['ann_file'], file):
                evaluator['ann_file'] = str(copy)
    dataset['ann_file'] = str(copy)
    print_log(f'{file}: filled in the {"; the ".join(notes)}; written to {copy}', 'current')


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
        if file and files and not evaluator.get('format_only') and not any(_same(file, other) for other in files):
            raise UserError(
                f'{split}_evaluator of {cfg.filename} reads {file}, and its data set reads {files[0]}: set '
                f'{split}_evaluator.ann_file to that file'
            )


def _same(one: str | Path, other: str | Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def use_boxes_only(cfg: Config) -> None:
    """``--boxes-only`` without ``--own-classes``.

    Raises:
        UserError: There is no mask branch.
    """
    if not learns_masks(cfg) or not any(True for _ in steps_of(cfg, 'LoadAnnotations')):
        raise UserError(f'--boxes-only takes the mask branch out of a detector, and {cfg.filename} has none')
    drop_masks(cfg)
