"""COCO's annotation files as tools write them: read, completed where the meaning is plain, else one line."""

import math
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..utils.optional import need
from .files import read_json, some

MOSTLY, PARTLY = 'more than half outside of the picture', 'in part outside of the picture'
KEYS = ('images', 'annotations', 'categories')


def is_coco(found: Any) -> bool:
    """Whether what a JSON file holds looks like instances in COCO's format."""
    return isinstance(found, dict) and 'images' in found and 'annotations' in found


def read_coco(path: Path) -> dict:
    """An annotation file with what every reader needs: pictures, annotations, categories.

    Raises:
        UserError: It is no such file, or its lists refer to what is not there.
    """
    found = read_json(path)
    if isinstance(found, dict):
        found.setdefault('annotations', [])  # which the file of pictures that COCO's server evaluates does not have
    if not isinstance(found, dict) or any(not isinstance(found.get(key), list) for key in KEYS):
        raise UserError(f"{path} is not in COCO's format: it needs the lists {', '.join(KEYS)}")
    _check_names(found, path)
    _check_references(found, path)
    return found


def _check_names(found: dict, path: Path) -> None:
    for key, names in (('categories', ('id', 'name')), ('images', ('id', 'file_name'))):
        for number, item in enumerate(found[key]):
            missing = [name for name in names if not isinstance(item, dict) or item.get(name) is None]
            if missing:
                raise UserError(f'{path}: entry {number} of {key} has no {" and no ".join(missing)}')
            if not isinstance(item['id'], (int, float, str)):
                raise UserError(f'{path}: entry {number} of {key} has the id {item["id"]}, which is no number or text')
        ids = [str(item['id']) for item in found[key]]
        if len(set(ids)) < len(ids):
            twice = next(i for i, count in Counter(ids).items() if count > 1)
            raise UserError(f'{path}: the id {twice} stands twice in {key}')
    for image in found['images']:
        for side in ('width', 'height'):
            if not isinstance(image.get(side), (int, float, type(None))):
                raise UserError(f'{path}: the {side} of {image["file_name"]} is {image[side]!r}, and no number')


def _check_references(found: dict, path: Path) -> None:
    categories = {item['id'] for item in found['categories']}
    pictures = {item['id'] for item in found['images']}
    for annotation in found['annotations']:
        if not isinstance(annotation, dict):
            raise UserError(f'{path}: an annotation is {type(annotation).__name__}, and not keys with values')
        try:
            if annotation['category_id'] in categories and annotation['image_id'] in pictures:
                continue
        except (KeyError, TypeError):
            pass
        _check_type(annotation, 'category_id', categories, path)
        _check_type(annotation, 'image_id', pictures, path)
        if annotation.get('category_id') not in categories:
            unknown = {str(a.get('category_id')) for a in found['annotations']} - set(map(str, categories))
            raise UserError(
                f'{path}: annotation {annotation.get("id")} has the category id {annotation.get("category_id")}, which '
                f'is not in categories; {len(unknown)} such ids: {some(sorted(unknown))}'
            )
        raise UserError(
            f'{path}: annotation {annotation.get("id")} is of the picture {annotation.get("image_id")}, which is '
            'not in images'
        )


def _check_type(annotation: dict, key: str, ids: set, path: Path) -> None:
    """See that a reference is a number where the ids are, and a text where they are texts."""
    given = annotation.get(key)
    if isinstance(given, (list, dict)) or (given not in ids and str(given) in map(str, ids)):
        raise UserError(
            f'{path}: annotation {annotation.get("id")} has {key}={given!r}, and the ids are written as '
            f'{next(iter(ids), 1)!r}: write all as numbers, or all as texts'
        )


def complete(found: dict, path: Path) -> list[str]:
    """Fill in what is missing and has one meaning: ``area``, ``iscrowd``, ``bbox``, ids, run-length masks in a list.

    In place.

    Returns:
        list[str]: What was filled in, one line each; empty where nothing was.

    Raises:
        UserError: An annotation has neither box nor mask, or one that cannot be read; the message has its id.
    """
    counts: dict[str, int] = {}

    def note(what: str) -> None:
        counts[what] = counts.get(what, 0) + 1

    sizes = {item['id']: (item.get('height'), item.get('width')) for item in found['images']}
    for annotation in found['annotations']:
        if _is_whole(annotation):
            continue
        where = f'{path}: annotation {annotation.get("id")}'
        if annotation.get('segmentation'):
            _complete_mask(annotation, where, sizes[annotation['image_id']], note)
        _complete_box(annotation, where, note)
        if annotation.get('iscrowd') is None:
            annotation['iscrowd'] = 0
            note('iscrowd')
        if annotation['iscrowd'] not in (0, 1):
            raise UserError(f'{where}: its iscrowd is {annotation["iscrowd"]!r}, and neither 0 nor 1')
        if not isinstance(annotation.get('area'), (int, float)):
            annotation['area'] = _area(annotation)
            note('area')
    _renumber(found, note)
    return [f'{what} of {count:,} annotations' for what, count in counts.items()]


def _is_whole(annotation: dict) -> bool:
    """Whether nothing is missing and nothing wrong, as in nearly all of 100,000: polygons, a box, area and crowd."""
    try:
        for polygon in annotation['segmentation']:
            if len(polygon) < 6 or len(polygon) % 2 or not isfinite(sum(polygon)):
                return False
        x, y, width, height = annotation['bbox']
        return (
            annotation['iscrowd'] in (0, 1)
            and type(annotation['segmentation']) is type(annotation['bbox']) is list
            and isfinite(x + y + width + height)
            and type(annotation['area']) in (int, float)
        )
    except (KeyError, TypeError, ValueError):
        return False


def _complete_mask(annotation: dict, where: str, size: tuple, note) -> None:
    mask = annotation['segmentation']
    if isinstance(mask, list) and isinstance(mask[0], dict):
        mask = annotation['segmentation'] = _joined(mask, where)
        note('run-length masks out of their lists, the mask')
    if isinstance(mask, list) and isinstance(mask[0], (int, float)):
        mask = annotation['segmentation'] = [mask]
        note('polygons in a list of their own, the mask')
    if not isinstance(mask, (list, dict)):
        raise UserError(f'{where}: its segmentation is neither polygons nor a run-length mask')
    if isinstance(mask, dict):
        if not mask.get('counts') or not mask.get('size'):
            raise UserError(f'{where} has a run-length mask without {"size" if mask.get("counts") else "counts"}')
        if None not in size and list(mask['size']) != list(size):
            raise UserError(
                f'{where} has a run-length mask of {mask["size"]}, and its picture is {list(size)} (height, width)'
            )
        return
    short = False
    for polygon in mask:
        if not isinstance(polygon, list):
            raise UserError(f'{where}: its segmentation is neither polygons nor a run-length mask')
        if len(polygon) % 2 or not _are_numbers(polygon):
            raise UserError(f'{where} has a polygon that is no list of x, y, x, y, …')
        short = short or len(polygon) < 6
    if short:
        annotation['segmentation'] = [polygon for polygon in mask if len(polygon) >= 6]
        note('polygons of fewer than three points left out, the mask')


def _joined(masks: list[dict], where: str) -> dict:
    """Several run-length masks of one object as one."""
    if len(masks) == 1:
        return masks[0]
    coder = need('pycocotools.mask', 'reading run-length masks')

    try:
        height, width = masks[0]['size']
        merged = coder.merge(
            [coder.frPyObjects(m, height, width) if isinstance(m['counts'], list) else m for m in masks]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{where} has run-length masks that cannot be read: {error}') from None
    return dict(size=merged['size'], counts=merged['counts'].decode())


def _complete_box(annotation: dict, where: str, note) -> None:
    box = annotation.get('bbox')
    if not box:
        polygons = annotation.get('segmentation')
        if isinstance(polygons, list) and polygons:
            xs = [x for polygon in polygons for x in polygon[::2]]
            ys = [y for polygon in polygons for y in polygon[1::2]]
            box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        elif polygons:
            box = _box_of_run_lengths(polygons, where)
        else:
            raise UserError(f'{where} has neither a bbox nor a segmentation')
        annotation['bbox'] = box
        note('bbox')
    if not isinstance(box, list) or len(box) != 4 or not _are_numbers(box):
        raise UserError(f'{where}: its bbox is {box}, and not four numbers x, y, width, height')


def _box_of_run_lengths(mask: dict, where: str) -> list[float]:
    coder = need('pycocotools.mask', 'reading run-length masks')

    try:
        coded = coder.frPyObjects(mask, *mask['size']) if isinstance(mask['counts'], list) else mask
        return [float(value) for value in coder.toBbox(coded)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{where} has a run-length mask that cannot be read: {error}') from None


def _are_numbers(values: list) -> bool:
    """Whether a list holds finite numbers alone: by its sum, since there are millions of them."""
    try:
        return math.isfinite(sum(values))
    except TypeError:
        return False


def _area(annotation: dict) -> float:
    """Of the polygons, overlaps counted twice as in COCO's own tools; else of the box."""
    mask = annotation.get('segmentation')
    if isinstance(mask, dict) and isinstance(mask['counts'], list):
        return float(sum(mask['counts'][1::2]))
    if isinstance(mask, dict):
        coder = need('pycocotools.mask', 'reading run-length masks')

        return float(coder.area(mask))
    if mask:
        return sum(_polygon_area(polygon) for polygon in mask)
    return annotation['bbox'][2] * annotation['bbox'][3]


def _polygon_area(polygon: list[float]) -> float:
    xs, ys = polygon[::2], polygon[1::2]
    turned = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1])
    return abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in turned)) / 2


def _renumber(found: dict, note) -> None:
    """Ids of annotations from 1 on: pycocotools counts what is matched with the id 0 as not matched."""
    ids = [annotation.get('id') for annotation in found['annotations']]
    if all(isinstance(i, int) and i > 0 for i in ids) and len(set(ids)) == len(ids):
        return
    for number, annotation in enumerate(found['annotations'], start=1):
        annotation['id'] = number
        note('ids')


def without_masks(found: dict) -> list[Any]:
    """Ids of the annotations, crowds apart, that have a box and no mask."""
    return [a.get('id') for a in found['annotations'] if not a.get('segmentation') and not a.get('iscrowd')]


def doubtful_boxes(found: dict) -> Iterator[tuple[dict, str]]:
    """Annotations whose box has no area, or lies outside of its picture as a whole or in part, and which."""
    sides = {i['id']: (i.get('width') or math.inf, i.get('height') or math.inf) for i in found['images']}
    for annotation in found['annotations']:
        x, y, width, height = annotation['bbox']
        right, bottom = sides[annotation['image_id']]
        if x >= 0 and y >= 0 and width >= 1 <= height and x + width <= right and y + height <= bottom:
            continue
        if width < 1 or height < 1:
            yield annotation, 'less than a pixel wide or high'
        elif x >= right or y >= bottom or x + width <= 0 or y + height <= 0:
            yield annotation, 'outside of its picture'
        elif _inside(x, width, right) * _inside(y, height, bottom) < 0.5:
            yield annotation, MOSTLY
        elif x < -1 or y < -1 or x + width > right + 1 or y + height > bottom + 1:
            yield annotation, PARTLY


def _inside(start: float, length: float, end: float) -> float:
    """The share of a side that lies within its picture."""
    return (min(start + length, end) - max(start, 0)) / length


def check_boxes(found: dict, path: Path) -> list[str]:
    """One warning for each kind of doubtful box.

    Raises:
        UserError: Most boxes are doubtful: they are in other units than pixels, or of another format.
    """
    kinds: dict[str, list] = {}
    for annotation, why in doubtful_boxes(found):
        kinds.setdefault(why, []).append(annotation['id'])
    total, boxes = len(found['annotations']), [a['bbox'] for a in found['annotations']]
    if total and all(max(box) <= 1 for box in boxes):
        raise UserError(f'{path}: no bbox is larger than 1: they must be in pixels, and not in shares of the picture')
    wrong = [i for why, ids in kinds.items() if why != PARTLY for i in ids]
    if 2 * len(wrong) > total:
        raise UserError(
            f'{path}: {len(wrong)} of {total} boxes lie outside of their pictures or have no area, first that of '
            f'annotation {wrong[0]}; a bbox is x, y, width, height in pixels'
        )
    return [f'{path}: {len(ids)} boxes are {why}: annotations {some(ids)}' for why, ids in kinds.items()]
