"""YOLO's text files, boxes or polygons, as COCO's annotations.

One line an object: its class, then the center, width and height of its box, or the corners of its polygon, in shares of
the picture. They are read here, and not by a library: `supervision`, which reads them, draws every polygon as a mask of
the whole picture and traces it again, keeps the masks of all pictures in memory, and brings a video library.
"""

from pathlib import Path

from ..errors import UserError
from .files import PICTURES, is_picture, picture_size, pictures_below, read_lines, read_yaml, split_of

SLACK = 0.01  # how far over an edge a share may lie, which is rounding


def is_yolo(root: Path) -> bool:
    return bool(_yaml_file(root)) or (root / 'obj.names').is_file() or _has_labels(root)


def read_yolo(root: Path) -> tuple[list[str], dict[str, dict]]:
    """Classes, and for each split what a COCO file of it would hold; a picture's ``file_name`` is its whole path.

    Raises:
        UserError: A file is missing or wrong; the message has its line.
    """
    yaml = _yaml_file(root)
    if yaml:
        classes, splits = _from_yaml(yaml)
    else:
        names = next((root / n for n in ('obj.names', 'classes.txt') if (root / n).is_file()), None)
        if names is None:
            raise UserError(f'{root} has labels/*.txt and no data.yaml or classes.txt that names the classes')
        classes, splits = read_lines(names), _from_folders(root)
    return classes, {split: _read_split(pictures, classes) for split, pictures in splits.items()}


def _yaml_file(root: Path) -> Path | None:
    files = [root / 'data.yaml', root / 'dataset.yaml', *sorted(root.glob('*.yaml')), *sorted(root.glob('*.yml'))]
    return next((file for file in files if file.is_file() and 'names' in read_yaml(file)), None)


def _has_labels(root: Path) -> bool:
    return (root / 'images').is_dir() and (root / 'labels').is_dir() and any((root / 'labels').rglob('*.txt'))


def _from_yaml(yaml: Path) -> tuple[list[str], dict[str, list[Path]]]:
    found = read_yaml(yaml)
    names = found['names']
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f'{yaml}: the keys of names must be 0, 1, 2, …, and are {sorted(names)}')
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f'{yaml}: names must be a list of classes, and is {names!r}')
    if found.get('nc') not in (None, len(names)):
        raise UserError(f'{yaml}: nc is {found["nc"]}, and names has {len(names)}')
    splits = {}
    for split, keys in dict(train=('train',), val=('val', 'valid'), test=('test',)).items():
        entry = next((found[key] for key in keys if found.get(key)), None)
        entries = entry if isinstance(entry, list) else [entry] if entry else []
        pictures = [picture for item in entries for picture in _pictures_of(yaml, found.get('path'), str(item), split)]
        if pictures:
            splits[split] = pictures
    if 'train' not in splits:
        raise UserError(f'{yaml} names no train pictures')
    return [str(name) for name in names], splits


def _pictures_of(yaml: Path, base: object, entry: str, split: str) -> list[Path]:
    """The pictures of one entry. Exported files often say ``../train/images`` for ``train/images``."""
    root = yaml.parent
    bases = [root, *([Path(str(base)), root / str(base)] if base else [])]
    inner = entry.replace('\\', '/')
    while inner.startswith('../'):
        inner = inner[3:]
    candidates = [b / e for b in bases for e in (entry, inner)]
    path = next((c for c in candidates if c.exists()), None)
    if path is None:
        if split == 'test':  # many exports name one that they do not have
            return []
        raise UserError(f'{yaml}: {split} is {entry}, which is not there')
    if path.is_dir():
        return pictures_below(path)
    lines = [line.replace('\\', '/') for line in read_lines(path)]
    listed = []
    for line in lines:
        options = [b / e for b in (path.parent, *bases) for e in (line, line.removeprefix('data/'))]
        listed.append(next((o for o in options if o.is_file()), options[0]))
    return listed


def _from_folders(root: Path) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for picture in pictures_below(root):
        split = next(filter(None, (split_of(p) for p in picture.relative_to(root).parts[:-1])), 'train')
        splits.setdefault(split, []).append(picture)
    if not splits:
        raise UserError(f'{root} holds no pictures ({", ".join(PICTURES)})')
    return splits


def label_file(picture: Path) -> Path:
    """Where a picture's objects are: ``labels`` for the last ``images`` of its path, or beside it."""
    parts = list(picture.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == 'images':
            parts[i] = 'labels'
            return Path(*parts).with_suffix('.txt')
    return picture.with_suffix('.txt')


def _read_split(pictures: list[Path], classes: list[str]) -> dict:
    images: list[dict] = []
    annotations: list[dict] = []
    labelled = 0
    for number, picture in enumerate(filter(is_picture, pictures), start=1):
        width, height = picture_size(picture)
        images.append(dict(id=number, file_name=str(picture), width=width, height=height))
        labels = label_file(picture)
        if not labels.is_file():
            continue  # a picture without objects
        labelled += 1
        for line_number, line in enumerate(read_lines(labels), start=1):
            read = _read_object(line, width, height, len(classes), f'{labels}, line {line_number}')
            annotations.append(dict(read, id=len(annotations) + 1, image_id=number, iscrowd=0))
    if images and not labelled:
        raise UserError(f'none of {len(images)} pictures has a file of labels, such as {label_file(pictures[0])}')
    categories = [dict(id=i, name=name) for i, name in enumerate(classes)]
    return dict(images=images, annotations=annotations, categories=categories)


def _read_object(line: str, width: int, height: int, classes: int, where: str) -> dict:
    try:
        label, *values = [float(word) for word in line.split()]
    except ValueError:
        raise UserError(f'{where}: {line!r} is not a class and numbers') from None
    if label != int(label) or not 0 <= label < classes:
        raise UserError(f'{where}: the class {label:g} is none of the {classes} classes, 0 to {classes - 1}')
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise UserError(f'{where}: {len(values)} numbers are neither a box (4) nor a polygon (6, 8, …)')
    if not all(-SLACK <= value <= 1 + SLACK for value in values):
        raise UserError(f'{where}: the numbers must be shares of the picture, between 0 and 1')
    if len(values) == 4:
        x, y, w, h = values
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return dict(category_id=int(label), bbox=box, area=box[2] * box[3])
    polygon = [value * (height if i % 2 else width) for i, value in enumerate(values)]
    return dict(category_id=int(label), segmentation=[polygon])
