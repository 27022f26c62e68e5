"""Polygons and run-length masks of objects as class maps."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import UserError
from ..utils.optional import need
from .boxes import coco_files, read_boxes
from .pairs import Pair
from .yolo import is_yolo

IGNORED = 255


def as_maps(root: Path, folder: Path) -> tuple[tuple[str, ...], dict[str, list[Pair]], list[str]] | None:
    """Class maps of a folder of polygons, written into ``folder``; None where it holds none.

    What no polygon covers is the class ``background``, the first; crowds are ignored. Of two objects the smaller lies
    on top.

    Returns:
        tuple: Classes, pairs of picture and map by split, remarks.

    Raises:
        UserError: An object has no polygon, or there are too many classes.
    """
    if not coco_files(root) and not is_yolo(root):
        return None
    boxes = read_boxes(root)
    missing = {split: ids for split, ids in boxes.without_masks().items() if ids}
    if missing:
        split, ids = next(iter(missing.items()))
        raise UserError(
            f'{root}: {len(ids)} objects of the {split} split have no polygon, first annotation {ids[0]}: a segmentor '
            'needs them all'
        )
    offset = 0 if boxes.classes[0].lower() == 'background' else 1
    classes = boxes.classes if offset == 0 else ('background', *boxes.classes)
    if len(classes) > IGNORED:
        raise UserError(f'{root} has {len(classes)} classes, and a class map holds {IGNORED} at most')
    splits: dict[str, list[Pair]] = {}
    for split, found in boxes.splits.items():
        target = folder / 'masks' / split
        target.mkdir(parents=True, exist_ok=True)
        objects: dict = {}
        for annotation in found['annotations']:
            objects.setdefault(annotation['image_id'], []).append(annotation)
        for image in found['images']:
            class_map = draw(objects.get(image['id'], []), image['height'], image['width'], offset)
            path = target / f'{len(splits.get(split, [])):06d}_{Path(image["file_name"]).stem}.png'
            Image.fromarray(class_map).save(path)
            splits.setdefault(split, []).append((Path(image['file_name']), path))
    return classes, splits, [*boxes.remarks, f'class maps drawn from the polygons ({boxes.layout})']


def draw(annotations: list[dict], height: int, width: int, offset: int) -> np.ndarray:
    """The class map (H, W) of one picture's objects; their labels are ``category_id + offset``."""
    canvas = Image.new('L', (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    for annotation in sorted(annotations, key=lambda a: -a['area']):
        label = IGNORED if annotation['iscrowd'] else annotation['category_id'] + offset
        mask = annotation.get('segmentation') or []
        if isinstance(mask, dict):
            coder = need('pycocotools.mask', 'reading run-length masks')
            coded = coder.frPyObjects(mask, height, width) if isinstance(mask['counts'], list) else mask
            canvas.paste(label, (0, 0), Image.fromarray(coder.decode(coded) * np.uint8(255)))
            continue
        for polygon in mask:
            pen.polygon([float(value) for value in polygon], fill=label)
    return np.array(canvas)
