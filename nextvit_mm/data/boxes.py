"""Boxes and polygons in any layout, as COCO files of one form."""

import copy
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..utils.files import write_text
from .coco import check_boxes, complete, is_coco, read_coco, without_masks
from .files import VAL_SHARE, contents, picture_size, pictures_below, read_json, seeded_split, some, split_of
from .voc import read_voc, voc_folder
from .yolo import is_yolo, read_yolo

LAYOUTS = "COCO's annotation files, YOLO's data.yaml or Pascal VOC's XML files"


@dataclass
class Boxes:
    """Annotated pictures.

    Attributes:
        layout: What they were read from, for people.
        classes: Names, in the order of the labels.
        splits: For ``'train'``, ``'val'`` and perhaps ``'test'`` what a COCO file holds; a picture's ``file_name`` is
            its whole path, a category's ``id`` its label.
        remarks: What was filled in, left out or decided, one line each.
        sources: The annotation file of each split, where there is one.
    """

    layout: str
    classes: tuple[str, ...]
    splits: dict[str, dict]
    remarks: list[str] = field(default_factory=list)
    sources: dict[str, Path] = field(default_factory=dict)

    def without_masks(self) -> dict[str, list]:
        """For each split the ids of annotations that have no mask."""
        return {split: without_masks(found) for split, found in self.splits.items()}


def read_boxes(root: Path) -> Boxes:
    """Read a folder of boxes or polygons, and make a validation split where it has none.

    Raises:
        UserError: The layout is not known, or a file is missing or wrong.
    """
    if not root.is_dir():
        raise UserError(f'--data-root {root} is not a folder')
    files = coco_files(root)
    if files:
        boxes = _read_coco_files(root, files)
    elif is_yolo(root):
        classes, splits = read_yolo(root)
        boxes = Boxes('YOLO', tuple(classes), splits)
    elif voc_folder(root):
        classes, splits = read_voc(root)
        boxes = Boxes('Pascal VOC', tuple(classes), splits)
    else:
        raise UserError(f'{root} holds none of {LAYOUTS}; it has: {contents(root)}')
    boxes.splits = {split: found for split, found in boxes.splits.items() if found['images']}
    if 'train' not in boxes.splits:
        raise UserError(f'{root}: no picture for training ({boxes.layout}, with {some(boxes.splits) or "no pictures"})')
    for split, found in boxes.splits.items():
        where = boxes.sources.get(split, root / split)
        notes = complete(found, where)
        if boxes.layout == 'COCO':  # of polygons in other layouts the box and the area always have to be found
            boxes.remarks += [f'{split}: filled in the {note}' for note in notes]
        boxes.remarks += check_boxes(found, where)
    if 'val' not in boxes.splits:
        _make_val(boxes, root)
    for split in ('train', 'val'):
        if not any(not a['iscrowd'] for a in boxes.splits[split]['annotations']):
            raise UserError(f'{root}: no picture of the {split} split has an annotation')
    return boxes


def _make_val(boxes: Boxes, root: Path) -> None:
    if 'test' in boxes.splits:
        boxes.splits['val'] = boxes.splits['test']
        boxes.remarks.append('there is no val split: the test split validates, too')
        return
    whole = boxes.splits['train']
    if len(whole['images']) < 2:
        raise UserError(f'{root} has {len(whole["images"])} picture: training and validation need one each')
    for split, images in zip(('train', 'val'), seeded_split(whole['images'])):
        ids = {image['id'] for image in images}
        kept = [a for a in whole['annotations'] if a['image_id'] in ids]
        boxes.splits[split] = dict(whole, images=images, annotations=kept)
    boxes.remarks.append(
        f'there is no val split: {VAL_SHARE:.0%} of the pictures validate, drawn with the seed 0: '
        f'{len(boxes.splits["train"]["images"]):,} to train, {len(boxes.splits["val"]["images"]):,} to validate'
    )


def coco_files(root: Path) -> dict[str, Path]:
    """The annotation files in COCO's format of a folder, by split; ``'train'`` where a name tells none.

    Raises:
        UserError: Two of them are for one split.
    """
    found: dict[str, list[Path]] = {}
    for pattern in ('*.json', 'annotations/*.json', '*/_annotations.coco.json', '*/annotations/*.json', '*/*.json'):
        for file in sorted(root.glob(pattern)):
            other_kind = any(word in file.name for word in ('captions', 'keypoints', 'stuff', 'panoptic', 'image_info'))
            if other_kind or any(file in files for files in found.values()) or not is_coco(read_json(file)):
                continue
            found.setdefault(_split_of_file(root, file) or 'train', []).append(file)
    for split, files in found.items():
        if len(files) > 1:
            instances = [file for file in files if file.name.startswith('instances')]
            if len(instances) != 1:
                raise UserError(f'{root}: {some(files)} are all for the {split} split: leave one of them')
            found[split] = instances
    return {split: files[0] for split, files in found.items()}


def _split_of_file(root: Path, file: Path) -> str | None:
    """The split that a file's name, or else a folder between it and ``root``, tells."""
    return next(filter(None, map(split_of, reversed(file.relative_to(root).parts))), None)


def _read_coco_files(root: Path, files: dict[str, Path]) -> Boxes:
    splits = {split: read_coco(file) for split, file in files.items()}
    remarks: list[str] = []
    for split, found in splits.items():
        used = {a['category_id'] for a in found['annotations']}
        # Roboflow writes a category above all others, with the id 0, which no annotation has.
        parents = {c.get('supercategory') for c in found['categories']}
        idle = [c for c in found['categories'] if c['name'] in parents and c['id'] == 0 and c['id'] not in used]
        if idle and len(found['categories']) > 1:
            found['categories'] = [c for c in found['categories'] if c not in idle]
            remarks.append(f'{split}: left out the category {idle[0]["name"]!r}, which is above the others and unused')
    names = [
        str(c['name'])
        for c in sorted(
            splits['train' if 'train' in splits else next(iter(splits))]['categories'],
            key=lambda c: (str(type(c['id'])), c['id']),
        )
    ]
    if not names:
        raise UserError(f'{next(iter(files.values()))}: its list of categories is empty')
    for split, found in splits.items():
        _use_labels(found, names, files[split])
        _find_pictures(found, root, files[split])
    return Boxes('COCO', tuple(names), splits, remarks, files)


def _use_labels(found: dict, names: list[str], file: Path) -> None:
    """Give the categories the ids 0, 1, … of the training split's order, by name."""
    own = [str(c['name']) for c in found['categories']]
    twice = sorted({name for name in own if own.count(name) > 1})
    if twice:
        raise UserError(f'{file}: {some(map(repr, twice))} stands twice in categories')
    used = {a['category_id'] for a in found['annotations']}
    unknown = [str(c['name']) for c in found['categories'] if str(c['name']) not in names and c['id'] in used]
    if unknown:
        raise UserError(f'{file} has annotations of {some(map(repr, unknown))}, which the train split does not know')
    label = {c['id']: names.index(str(c['name'])) for c in found['categories'] if str(c['name']) in names}
    for annotation in found['annotations']:
        annotation['category_id'] = label[annotation['category_id']]
    found['categories'] = [dict(id=i, name=name) for i, name in enumerate(names)]


def _find_pictures(found: dict, root: Path, file: Path) -> None:
    """Each picture's ``file_name`` as its whole path: as it stands, below the folders that tools use, else by name."""
    split = _split_of_file(root, file)
    above = file.parent.parent if file.parent != root else root
    below = [file.parent, above, root, root / 'images', file.parent / 'images']
    for base in (root, root / 'images', above / 'images', file.parent):
        if base.is_dir():
            below += [p for p in sorted(base.iterdir()) if p.is_dir() and split_of(p.name) == split]
            below += [base / 'default'] if (base / 'default').is_dir() else []
    by_name: dict[str, list[Path]] | None = None
    hit = below[0]
    for image in found['images']:
        name = str(image['file_name']).replace('\\', '/')
        for folder in [hit, *reversed(below)]:
            if os.path.isfile(os.path.join(folder, name)):
                hit = folder
                image['file_name'] = os.path.join(folder, name)
                break
        else:
            if by_name is None:
                by_name = {}
                for path in pictures_below(root):
                    by_name.setdefault(path.name, []).append(path)
            same = by_name.get(os.path.basename(name), [])
            if len(same) != 1:
                why = f'lies at {len(same)} places' if same else 'is not there'
                raise UserError(f'{file}: the picture {image["file_name"]} {why} below {root}')
            image['file_name'] = str(same[0])
        _fill_size(image)


def _fill_size(image: dict) -> None:
    if not image.get('width') or not image.get('height'):
        image['width'], image['height'] = picture_size(Path(image['file_name']))


def write_boxes(boxes: Boxes, root: Path, folder: Path) -> dict[str, Path]:
    """Write each split as a COCO file into ``folder``; pictures are named from ``root`` on where they lie below it."""
    files = {}
    base = os.path.join(os.path.abspath(root), '')
    for split, found in boxes.splits.items():
        images = [copy.copy(image) for image in found['images']]
        for image in images:
            path = os.path.abspath(image['file_name'])
            image['file_name'] = path[len(base) :] if path.startswith(base) else path
        files[split] = write_text(folder / f'{split}.json', json.dumps(dict(found, images=images)))
    return files
