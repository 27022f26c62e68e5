"""A detector's data before a run: COCO's annotation file, its categories, pictures and masks."""

import json
import math
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError
from ..utils.files import write_text
from .check_folders import FLAG
from .coco import check_boxes, complete, read_coco, without_masks
from .files import some
from .loaders import annotation_file, datasets_of, dicts_in, evaluators_of, is_coco_dataset, picture_folder
from .own import drop_masks, learns_masks


def check_coco(cfg: Config, split: str, dataset: dict, classes: tuple[str, ...], name: str) -> int:
    """Look into the annotation file of a data set, and complete it; returns the number of pictures that are used.

    Args:
        cfg: The config, whose heads may lose their masks, and whose data sets read the completed file.
        split: ``'train'``, ``'val'`` or ``'test'``.
        dataset: Of the config.
        classes: That the config names.
        name: Where it does so, for messages.

    Raises:
        UserError: Categories, pictures or masks do not fit, or no picture is left to train with.
    """
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
    return len(trained_with(found, dataset, classes) if split == 'train' else found['images'])


def trained_with(found: dict, dataset: dict, classes: tuple[str, ...] | None) -> list[dict]:
    """The pictures of an annotation file that MMDetection's ``filter_cfg`` leaves in.

    They are large enough and, with ``filter_empty_gt``, have an annotation of one of the classes (None: of any).
    """
    rule = dataset.get('filter_cfg') or {}
    used = {c['id'] for c in found['categories'] if classes is None or str(c['name']) in classes}
    with_objects = {a.get('image_id') for a in found['annotations'] if a.get('category_id') in used}
    return [
        image
        for image in found['images']
        if (image['id'] in with_objects or not rule.get('filter_empty_gt'))
        and min(image.get('width') or math.inf, image.get('height') or math.inf) >= rule.get('min_size', 0)
    ]


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
            if other is not dataset and is_coco_dataset(other) and is_same_file(annotation_file(other), file):
                other['ann_file'] = str(copy)
        for evaluator in evaluators_of(cfg, split):
            if evaluator.get('ann_file') and is_same_file(evaluator['ann_file'], file):
                evaluator['ann_file'] = str(copy)
    dataset['ann_file'] = str(copy)
    print_log(f'{file}: filled in the {"; the ".join(notes)}; written to {copy}', 'current')


def is_same_file(one: str | Path, other: str | Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
