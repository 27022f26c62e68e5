"""The data that a config names, as those of a folder."""

from pathlib import Path

from mmengine.config import Config

from ..errors import UserError
from .boxes import Boxes
from .check import classes_of, dataset_class
from .check_maps import pairs_of
from .coco import read_coco
from .files import pictures_below
from .folders import Folders
from .loaders import annotation_file, datasets_of, is_coco_dataset, picture_folder, picture_list, type_name
from .maps import Maps, palette_of
from .own import Data


def read_config_data(cfg: Config) -> Data:
    """What a config's first data set of each split reads; the config has passed :func:`.check.check_contents`.

    Raises:
        UserError: Its data sets are of a type that is not known here.
    """
    firsts = {split: found[0] for split in ('train', 'val') for found in [datasets_of(cfg, split)] if found}
    train = firsts['train']
    classes = classes_of(train, f'train_dataloader of {cfg.filename}') or ()
    prefix = train.get('data_prefix') or {}
    if is_coco_dataset(train):
        return Boxes('COCO', classes, {split: _coco(dataset, classes) for split, dataset in firsts.items()})
    if type_name(train) == 'PairedSegDataset' or (isinstance(prefix, dict) and 'seg_map_path' in prefix):
        pairs = {split: pairs_of(dataset, dataset_class(dataset)) for split, dataset in firsts.items()}
        label_map = {int(old): new for old, new in (train.get('label_map') or {}).items()}
        reduce_zero = any(step.get('reduce_zero_label') for step in train.get('pipeline') or [])
        return Maps('a config', classes, palette_of(len(classes)), pairs, reduce_zero, label_map or None)
    if type_name(train) in ('ImageNet', 'CustomDataset'):
        return _folders(firsts, classes)
    raise UserError(f'{cfg.filename}: a {type_name(train)} is not known here; give the folder of the data instead')


def _coco(dataset: dict, classes: tuple[str, ...]) -> dict:
    found = read_coco(annotation_file(dataset))
    label = {c['id']: classes.index(c['name']) for c in found['categories'] if c['name'] in classes}
    found['annotations'] = [
        dict(a, category_id=label[a['category_id']]) for a in found['annotations'] if a['category_id'] in label
    ]
    for image in found['images']:
        image['file_name'] = str(picture_folder(dataset) / image['file_name'])
    return found


def _folders(firsts: dict[str, dict], classes: tuple[str, ...]) -> Folders:
    splits: dict[str, list[tuple[Path, int]]] = {}
    names: list[str] = []
    for split, dataset in firsts.items():
        root = picture_folder(dataset)
        listed = picture_list(dataset)
        if listed:
            lines = [line.rpartition(' ') for line in listed.read_text(encoding='utf-8').splitlines()]
            splits[split] = [(root / path, int(label)) for path, _, label in lines]
            continue
        names = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
        splits[split] = [(path, i) for i, name in enumerate(names) for path in pictures_below(root / name)]
    if not classes:  # which MMPretrain then takes from the folders, and from a list not at all
        labels = [label for items in splits.values() for _, label in items]
        classes = tuple(names or map(str, range(max(labels, default=-1) + 1)))
    return Folders(classes, splits)
