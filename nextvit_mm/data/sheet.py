"""Some annotated pictures on one sheet, as a look at what training will see."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import UserError
from ..utils.figures import check_png
from .boxes import Boxes
from .maps import Maps, grey, palette_of
from .own import Data

CELL, COLUMNS, ROWS = 320, 4, 3  # pixels; pictures


def draw_sheet(data: Data, out_file: Path) -> Path:
    """Write a sheet of pictures of the training split, spread over all of it.

    Raises:
        UserError: The name does not end in ``.png``, or the file cannot be written.
    """
    check_png(out_file)
    count = len(data.splits['train']['images']) if isinstance(data, Boxes) else len(data.splits['train'])
    picked = np.unique(np.linspace(0, count - 1, min(count, COLUMNS * ROWS)).round().astype(int))
    sheet = Image.new('RGB', (COLUMNS * CELL, -(-len(picked) // COLUMNS) * CELL), 'white')
    for place, i in enumerate(picked.tolist()):
        cell = _draw(data, i)
        cell.thumbnail((CELL - 8, CELL - 8))
        sheet.paste(cell, (place % COLUMNS * CELL + 4, place // COLUMNS * CELL + 4))
    try:
        out_file.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out_file)
    except OSError as error:
        raise UserError(f'{out_file} cannot be written: {error.strerror}') from None
    return out_file


def _draw(data: Data, number: int) -> Image.Image:
    if isinstance(data, Boxes):
        return _draw_objects(data, number)
    pair: tuple = data.splits['train'][number]  # a picture, and its map or label
    path, label = pair
    with Image.open(path) as opened:
        picture = opened.convert('RGB')
    if isinstance(data, Maps):
        labels = data.convert(label) if data.convert else grey(label)
        return _blend(picture, labels, data)
    return _enlarged(picture, [(data.classes[label], (4, 4), 'white')])


def _enlarged(picture: Image.Image, texts: list) -> Image.Image:
    """A picture of a size at which text can be read, with texts at places of the original."""
    scale = max(1, (CELL - 8) // max(picture.size))
    large = picture.resize((picture.width * scale, picture.height * scale))
    pen = ImageDraw.Draw(large)
    for text, (x, y), color in texts:
        place = (x * scale, y * scale)
        pen.rectangle(pen.textbbox(place, text), fill='black')
        pen.text(place, text, fill=color)
    return large


def _draw_objects(data: Boxes, number: int) -> Image.Image:
    found = data.splits['train']
    image = found['images'][number]
    colors = [tuple(color) for color in palette_of(len(data.classes))]
    with Image.open(image['file_name']) as opened:
        picture = opened.convert('RGB')
    pen, texts = ImageDraw.Draw(picture), []
    width = max(1, max(picture.size) // 300)
    for annotation in found['annotations']:
        if annotation['image_id'] != image['id']:
            continue
        x, y, w, h = annotation['bbox']
        color = colors[annotation['category_id']]
        pen.rectangle((min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h)), outline=color, width=width)
        mask = annotation.get('segmentation')
        for polygon in mask if isinstance(mask, list) else []:
            pen.polygon([float(value) for value in polygon], outline=color)
        texts.append((data.classes[annotation['category_id']], (x, y), color))
    return _enlarged(picture, texts)


def _blend(picture: Image.Image, labels: np.ndarray, data: Maps) -> Image.Image:
    """Half the picture, half the colors of its classes; what is ignored stays as it is."""
    pixels = np.asarray(picture).astype(np.float32)
    if pixels.shape[:2] != labels.shape:
        return picture
    shifted = labels.astype(int) - int(data.reduce_zero_label)
    for label, color in enumerate(data.palette):
        names = [old for old, new in (data.label_map or {}).items() if new == label] or [label]
        inside = np.isin(shifted, names)
        pixels[inside] = 0.5 * pixels[inside] + 0.5 * np.array(color)
    return _enlarged(Image.fromarray(pixels.astype(np.uint8)), [])
