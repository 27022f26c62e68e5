"""A recipe for one's own data: classes, heads, data sets, evaluators and pipelines set from what lies in a folder."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError
from .balance import weigh_classes
from .boxes import Boxes, read_boxes, write_boxes
from .folders import Folders, read_folders, write_folders
from .loaders import datasets_of, dicts_in, evaluators_of, steps_of, type_name
from .maps import Maps, palette_of, read_maps, write_maps

Data = Boxes | Maps | Folders
SCOPES = dict(mmdet='boxes', mmseg='maps', mmpretrain='folders')
STRONG = ('RandAugment', 'RandomErasing')  # augmentation of classifiers
COLORS = 'PhotoMetricDistortion'  # and of segmentors
SCALES = (0.8, 1.25)  # of a segmentor's pictures, instead of 0.5 to 2
SHORT = 10_000  # iterations of a segmentor
LARGE_CROPS = (0.5, 1.0)  # shares of a picture's area
MANY = 10_000  # pictures, from which on the published augmentation of classifiers is kept


def use_own_data(cfg: Config, root: str, boxes_only: bool = False) -> None:
    """Make a published recipe one for the data in ``root``, and write lists of its pictures into the work dir.

    Args:
        cfg: The recipe, with ``work_dir`` set; changed in place.
        root: Folder of the data, in any layout that :mod:`.boxes`, :mod:`.maps` or :mod:`.folders` reads.
        boxes_only: Leave the masks of a detector out, whether there are polygons or not.

    Raises:
        UserError: The recipe is of another library, or the data cannot be read.
    """
    scope = cfg.get('default_scope')
    if scope is None and 'ImageClassifier' in str(cfg.get('model', {}).get('type')):
        scope = 'mmpretrain'
    if scope not in SCOPES:
        raise UserError(f'--own-classes is for detectors, segmentors and classifiers; {cfg.filename} is none')
    folder, path = Path(os.path.abspath(cfg.work_dir), 'data'), Path(root)
    data: Data
    if SCOPES[scope] == 'boxes':
        data = read_boxes(path)
        _use_boxes(cfg, data, path, folder, boxes_only)
    elif SCOPES[scope] == 'maps':
        data = read_maps(path, folder)
        _use_maps(cfg, data, path, folder)
    else:
        data = read_folders(path)
        _use_folders(cfg, data, path, folder)
    set_num_classes(cfg, len(data.classes))
    if isinstance(data, Maps):
        weigh_classes(cfg, data)
    forget_published_run(cfg)
    for line in describe(data, path):
        print_log(line, 'current')


def describe(data: Data, root: Path) -> list[str]:
    """What was read, for people: layout, counts, classes, and each decision."""
    counts = []
    for split in ('train', 'val', 'test'):
        found = data.splits.get(split)
        if found is not None:
            count = len(found['images']) if isinstance(found, dict) else len(found)
            counts.append(f'{split} {count:,}')
    names = list(data.classes)
    shown = ', '.join(names[:12]) + (f' and {len(names) - 12} more' if len(names) > 12 else '')
    return [
        f'data of {root}: {data.layout}; pictures: {", ".join(counts)}; {len(names)} classes: {shown}',
        *data.remarks,
    ]


def set_num_classes(cfg: Config, count: int) -> None:
    """``num_classes`` of every head, and weights of classes in their losses, which would be of others."""
    for found in [*dicts_in(cfg.model), *dicts_in(cfg.get('data_preprocessor') or {})]:
        old = found.get('num_classes')
        if isinstance(old, int):
            found['num_classes'] = count
        weights = found.get('class_weight')
        if isinstance(weights, (list, tuple)) and len(weights) > 1:
            # Query heads have one for each class, all the same, and then one of no object.
            of_queries = len(set(weights[:-1])) == 1 and weights[0] != weights[-1] and 'decode_head' not in cfg.model
            found['class_weight'] = [*(count * [weights[0]]), weights[-1]] if of_queries else None
            if not of_queries:
                print_log('class_weight of a loss was for other classes: left out', 'current')
    if 'data_preprocessor' in cfg and 'num_classes' not in cfg.data_preprocessor and _is_classifier(cfg):
        cfg.data_preprocessor.num_classes = count


def _is_classifier(cfg: Config) -> bool:
    return 'ImageClassifier' in str(cfg.model.get('type'))


def forget_published_run(cfg: Config) -> None:
    """Take the comparison with the authors' run out, and say so once."""
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if type_name(hook) != 'PublishedRunHook']
    if len(cfg.custom_hooks) < len(hooks):
        print_log('other data than the published: not compared with the published run', 'current')


def _set_dataset(cfg: Config, split: str, new: dict[str, Any], keep: tuple[str, ...]) -> None:
    """Put one data set into the place of the first of a split, in wrappers, too; of joined ones one is left."""
    for wrapper in dicts_in((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
        if isinstance(wrapper.get('datasets'), list):
            del wrapper['datasets'][1:]  # each would be the same data, and every picture there twice
    for dataset in datasets_of(cfg, split):
        kept = {key: dataset[key] for key in keep if key in dataset}
        for key in list(dataset):
            dataset.pop(key)
        dataset.update({**kept, **new})


def _splits(data: Data, files: dict[str, Path]) -> list[tuple[str, Path]]:
    """For each of a config's loaders the list that it reads; the val split is tested where there is no test split."""
    tested = 'test' if 'test' in data.splits else 'val'
    return [('train', files['train']), ('val', files['val']), ('test', files[tested])]


def _use_boxes(cfg: Config, boxes: Boxes, root: Path, folder: Path, boxes_only: bool) -> None:
    missing = {split: ids for split, ids in boxes.without_masks().items() if ids}
    total = sum(len(found['annotations']) for found in boxes.splits.values())
    if learns_masks(cfg) and (boxes_only or missing):
        count = sum(map(len, missing.values()))
        if not boxes_only and count < total:
            split, ids = next(iter(missing.items()))
            raise UserError(
                f'{root}: {count} of {total} annotations have no polygon, first {ids[0]} of the {split} split; add '
                'them, or train boxes alone with --boxes-only'
            )
        drop_masks(cfg)
    files = write_boxes(boxes, root, folder)
    meta = dict(classes=boxes.classes, palette=[tuple(color) for color in palette_of(len(boxes.classes))])
    for split, file in _splits(boxes, files):
        new = dict(
            type='CocoDataset',
            data_root=os.path.abspath(root),
            ann_file=str(file),
            data_prefix=dict(img=''),
            metainfo=meta,
        )
        _set_dataset(cfg, split, new, keep=('pipeline', 'filter_cfg', 'test_mode', 'backend_args', 'indices'))
        for evaluator in evaluators_of(cfg, split):
            if 'ann_file' in evaluator:
                evaluator['ann_file'] = str(file)


def learns_masks(cfg: Config) -> bool:
    """Whether a detector has a mask branch that can be taken out."""
    return bool((cfg.model.get('roi_head') or {}).get('mask_head'))


def drop_masks(cfg: Config) -> None:
    """Make Mask R-CNN a Faster R-CNN, its pipelines and metrics with it."""
    model = cfg.model
    if type_name(model) == 'MaskRCNN':
        model.type = 'FasterRCNN'
    elif 'mask_iou_head' in model.roi_head:
        raise UserError(f'{cfg.filename}: a {type_name(model)} cannot learn boxes alone: take Mask R-CNN')
    for key in ('mask_head', 'mask_roi_extractor'):
        model.roi_head[key] = None
    for step in steps_of(cfg, 'LoadAnnotations'):
        step['with_mask'] = False
    for split in ('val', 'test'):
        for evaluator in evaluators_of(cfg, split):
            if 'segm' in str(evaluator.get('metric')):
                evaluator['metric'] = 'bbox'
    print_log('boxes without polygons: the detector learns boxes alone, without its mask branch', 'current')


def _use_maps(cfg: Config, maps: Maps, root: Path, folder: Path) -> None:
    files = write_maps(maps, root, folder)
    for split, file in _splits(maps, files):
        new = dict(
            type='PairedSegDataset',
            data_root=os.path.abspath(root),
            ann_file=str(file),
            metainfo=dict(classes=maps.classes, palette=maps.palette),
            reduce_zero_label=maps.reduce_zero_label,
            label_map=_as_config(maps.label_map),
        )
        _set_dataset(cfg, split, new, keep=('pipeline', 'test_mode', 'indices'))
    set_reduce_zero_label(cfg, maps.reduce_zero_label)
    if maps.convert is None:
        for step in steps_of(cfg, 'LoadAnnotations'):
            step['imdecode_backend'] = 'pillow'  # a palette's numbers, which others make colors of


def _as_config(label_map: dict[int, int] | None) -> dict | None:
    """Keys as text: MMEngine's configs take no others."""
    return {str(old): new for old, new in label_map.items()} if label_map else None


def set_reduce_zero_label(cfg: Config, value: bool) -> None:
    for step in steps_of(cfg, 'LoadAnnotations'):
        step['reduce_zero_label'] = value


def _use_folders(cfg: Config, folders: Folders, root: Path, folder: Path) -> None:
    files = write_folders(folders, root, folder)
    for split, file in _splits(folders, files):
        new = dict(
            type='CustomDataset',
            data_root=os.path.abspath(root),
            ann_file=str(file),
            data_prefix='',
            metainfo=dict(classes=folders.classes),
        )
        _set_dataset(cfg, split, new, keep=('pipeline', 'test_mode', 'indices'))
    fit_topk(cfg, len(folders.classes))
    count = len(folders.splits['train'])
    if count < MANY and cfg.model.get('train_cfg'):
        cfg.model.train_cfg = None
        print_log(f'{count:,} pictures: trained without Mixup and CutMix, which are for many', 'current')
    if not cfg.get('load_from'):
        cfg.load_from = _published_classifier(cfg)


def fit_topk(cfg: Config, count: int) -> bool:
    """Leave out top-k accuracies that ``count`` classes cannot have, or always reach; whether there were any."""
    changed = False
    for split in ('val', 'test'):
        for evaluator in evaluators_of(cfg, split):
            topk = evaluator.get('topk')
            if topk:
                given = (topk,) if isinstance(topk, int) else tuple(topk)
                evaluator['topk'] = tuple(k for k in given if k < count) or (1,)
                changed = changed or evaluator['topk'] != given
    return changed


def weaken_augmentation(cfg: Config, from_scratch: bool) -> None:
    """Less augmentation for a short training: what 80,000 iterations or 300 epochs need hides too much in a few.

    Args:
        cfg: The config, at its length; changed in place.
        from_scratch: Whether it begins with random weights. Of a classifier, pretrained weights bear the published one.
    """
    if _is_classifier(cfg) and from_scratch:
        _leave_out(cfg, STRONG)
        for step in steps_of(cfg, 'RandomResizedCrop'):
            step['crop_ratio_range'] = LARGE_CROPS
        print_log(
            f'from random weights: without {" and ".join(STRONG)}, and crops of half a picture or more', 'current'
        )
    if cfg.get('default_scope') == 'mmseg' and cfg.train_cfg.get('max_iters', SHORT) < SHORT:
        resized = [step for step in steps_of(cfg, 'RandomResize') if step.get('ratio_range')]
        for step in resized:
            step['ratio_range'] = SCALES
        if _leave_out(cfg, (COLORS,)) or resized:
            print_log(
                f'a short training: without {COLORS}, and pictures resized by {SCALES[0]} to {SCALES[1]}', 'current'
            )


def _leave_out(cfg: Config, names: tuple[str, ...]) -> bool:
    """Whether the training pipelines had steps of these names, which they then have not."""
    datasets = datasets_of(cfg, 'train')
    before = sum(len(dataset['pipeline']) for dataset in datasets)
    for dataset in datasets:
        dataset['pipeline'] = [step for step in dataset['pipeline'] if type_name(step) not in names]
    return sum(len(dataset['pipeline']) for dataset in datasets) < before


def _published_classifier(cfg: Config) -> str | None:
    """The published weights of the recipe's network; None where there are none."""
    if cfg.get('weights'):
        return cfg.weights
    arch = cfg.model.backbone.get('arch', 'small')
    return f'nextvit-{arch}_in1k' if arch in ('small', 'base', 'large') else None
