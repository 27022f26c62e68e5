"""The same few pictures in every layout that labelling tools write, made by the tests."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ('boat', 'lighthouse', 'gull')
SIZE = 96, 64  # width, height: shares of it are exact in binary
PICTURES = dict(train=4, val=2)
COLORS = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]


def objects(number: int) -> list[tuple[int, list[int]]]:
    """The labels and polygons of one picture: rectangles, of whole pixels, which do not overlap."""
    found = []
    for k in range(2):
        left, top = 6 + 44 * k + number, 8 + 3 * number
        found.append(((number + k) % 3, [left, top, left + 30, top, left + 30, top + 28, left, top + 28]))
    return found


def box(polygon: list[int]) -> list[int]:
    xs, ys = polygon[::2], polygon[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def draw_picture(path: Path, number: int) -> Path:
    """A picture without loss, so that every layout has the same pixels."""
    noise = np.random.default_rng(number).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for label, polygon in objects(number):
        ImageDraw.Draw(picture).polygon(polygon, fill=COLORS[label + 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def numbers(split: str) -> range:
    return range(PICTURES['train']) if split == 'train' else range(PICTURES['train'], sum(PICTURES.values()))


def coco(split: str, name='{:02d}.png', first_id=1, masks=True) -> dict:
    """What an annotation file holds; ids of one's own, not 1, 2, 3."""
    images, annotations = [], []
    for number in numbers(split):
        images.append(dict(id=100 + number, file_name=name.format(number), width=SIZE[0], height=SIZE[1]))
        for label, polygon in objects(number):
            annotation = dict(id=len(annotations) + 1, image_id=100 + number, category_id=10 * label + first_id)
            annotation.update(bbox=box(polygon), area=30 * 28, iscrowd=0)
            annotations.append(dict(annotation, segmentation=[polygon]) if masks else annotation)
    categories = [dict(id=10 * i + first_id, name=n, supercategory='things') for i, n in enumerate(NAMES)]
    return dict(images=images, annotations=annotations, categories=categories)


def save_json(path: Path, found) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def coco2017(root: Path, masks: bool = True) -> Path:
    for split in PICTURES:
        save_json(root / 'annotations' / f'instances_{split}2017.json', coco(split, masks=masks))
        for number in numbers(split):
            draw_picture(root / f'{split}2017' / f'{number:02d}.png', number)
    return root


def roboflow(root: Path) -> Path:
    """With its category above all others, which no annotation has."""
    for split, folder in dict(train='train', val='valid').items():
        found = coco(split)
        for category in found['categories']:
            category['supercategory'] = 'harbour'
        found['categories'].insert(0, dict(id=0, name='harbour', supercategory='none'))
        save_json(root / folder / '_annotations.coco.json', found)
        for number in numbers(split):
            draw_picture(root / folder / f'{number:02d}.png', number)
    return root


def cvat(root: Path) -> Path:
    for split in PICTURES:
        save_json(root / 'annotations' / f'instances_{split}.json', coco(split))
        for number in numbers(split):
            draw_picture(root / 'images' / split / f'{number:02d}.png', number)
    return root


def label_studio(root: Path) -> Path:
    """One file for all, with paths of the machine that wrote it."""
    found, rest = coco('train', 'images\\a1b2-{:02d}.png'), coco('val', 'images\\a1b2-{:02d}.png')
    for annotation in rest['annotations']:
        annotation['id'] += len(found['annotations'])
    found['images'] += rest['images']
    found['annotations'] += rest['annotations']
    save_json(root / 'result.json', found)
    for split in PICTURES:
        for number in numbers(split):
            draw_picture(root / 'images' / f'a1b2-{number:02d}.png', number)
    return root


def yolo(root: Path, polygons: bool = True, folder: str = '{split}/images') -> Path:
    for split in PICTURES:
        images = root / folder.format(split=split)
        labels = Path(str(images).replace('images', 'labels'))
        labels.mkdir(parents=True)
        for number in numbers(split):
            draw_picture(images / f'{number:02d}.png', number)
            lines = []
            for label, polygon in objects(number):
                x, y, w, h = box(polygon)
                shares = polygon if polygons else [x + w / 2, y + h / 2, w, h]
                lines.append(' '.join([str(label), *(repr(v / SIZE[i % 2]) for i, v in enumerate(shares))]))
            (labels / f'{number:02d}.txt').write_text('\n'.join(lines) + '\n')
    text = f'train: ../train/images\nval: ../val/images\nnc: 3\nnames: {list(NAMES)}\n'
    (root / 'data.yaml').write_text(text)
    return root


def voc(root: Path) -> Path:
    (root / 'ImageSets' / 'Main').mkdir(parents=True)
    (root / 'Annotations').mkdir()
    (root / 'labels.txt').write_text('\n'.join(NAMES))
    for split in PICTURES:
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(f'{n:02d}' for n in numbers(split)))
        for number in numbers(split):
            draw_picture(root / 'JPEGImages' / f'{number:02d}.png', number)
            (root / 'Annotations' / f'{number:02d}.xml').write_text(voc_xml(number))
    return root


def voc_xml(number: int) -> str:
    things = ''
    for label, polygon in objects(number):
        x, y, w, h = box(polygon)
        sides = dict(xmin=x, ymin=y, xmax=x + w, ymax=y + h)
        corners = ''.join(f'<{k}>{v}</{k}>' for k, v in sides.items())
        things += f'<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>'
    return f'<annotation><filename>{number:02d}.png</filename>{things}</annotation>'


def class_map(number: int, background: int = 0) -> np.ndarray:
    """Labels 1 to 3 on ``background``."""
    canvas = Image.new('L', SIZE, background)
    for label, polygon in objects(number):
        ImageDraw.Draw(canvas).polygon(polygon, fill=label + 1)
    return np.array(canvas)


def save_map(path: Path, array: np.ndarray, mode: str = 'L') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if mode == 'P':
        picture.putpalette([c for color in COLORS for c in color])
    if mode == 'RGB':
        picture = Image.fromarray(np.array(COLORS, np.uint8)[array])
    picture.save(path)
    return path


def masks(root: Path, picture: str, mask: str, mode: str = 'L', names: str | None = 'classes.txt') -> Path:
    """Pictures and class maps at paths such as ``images/{split}/{n}.png``."""
    for split in PICTURES:
        for number in numbers(split):
            draw_picture(root / picture.format(split=split, n=f'{number:02d}'), number)
            save_map(root / mask.format(split=split, n=f'{number:02d}'), class_map(number), mode)
    if names:
        lines = ['sea', *NAMES]
        if mode == 'RGB':
            lines = [f'{name}:{r},{g},{b}::' for name, (r, g, b) in zip(lines, COLORS)]
        (root / names).write_text('\n'.join(lines) + '\n')
    return root


def folders(root: Path, split: bool = True) -> Path:
    for name in PICTURES:
        for number in numbers(name):
            for k, label in enumerate(NAMES):
                draw_picture(Path(root, name if split else '', label, f'{number:02d}{k}.png'), number + 10 * k)
    return root


def without_val(root: Path) -> Path:
    """A Roboflow folder of a train split alone."""
    roboflow(root)
    shutil.rmtree(root / 'valid')
    return root
