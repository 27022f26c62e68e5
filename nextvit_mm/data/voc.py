"""Pascal VOC's XML files as COCO's annotations; coordinates are taken as they stand in the file."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ..errors import UserError
from .files import is_picture, picture_size, pictures_below, read_lines, split_of


def voc_folder(root: Path) -> Path | None:
    """The folder of ``root`` that holds XML annotations: itself, or one such as ``VOCdevkit/VOC2012``."""
    folders = [root, *sorted(root.glob('VOC*')), *sorted(root.glob('VOCdevkit/VOC*'))]
    for folder in folders:
        if any((folder / 'Annotations').glob('*.xml')) or any(folder.glob('*.xml')) or any(folder.glob('*/*.xml')):
            return folder
    return None


def read_voc(root: Path) -> tuple[list[str], dict[str, dict]]:
    """Classes, in alphabetical order or as ``labels.txt`` lists them, and for each split what a COCO file would hold.

    Raises:
        UserError: A file is missing or wrong.
    """
    folder = voc_folder(root)
    assert folder is not None
    splits = _splits(folder)
    trees = {split: [(file, _parse(file)) for file in files] for split, files in splits.items()}
    names = {n.text or '' for tree in trees.values() for _, t in tree for n in t.iterfind('object/name')}
    listed = next((read_lines(root / n) for n in ('labels.txt', 'classes.txt') if (root / n).is_file()), None)
    classes = listed or sorted(names)
    unknown = sorted(names - set(classes))
    if unknown:
        raise UserError(f'{root}: the annotations have {", ".join(unknown)}, which labels.txt lacks')
    if not classes:
        raise UserError(f'{folder}: no XML file has an object')
    pictures: dict[str, list[Path]] = {}
    for path in pictures_below(folder):
        pictures.setdefault(path.name, []).append(path)
        pictures.setdefault(path.stem, []).append(path)
    return classes, {split: _as_coco(tree, classes, pictures) for split, tree in trees.items()}


def _splits(folder: Path) -> dict[str, list[Path]]:
    """XML files by split: by ``ImageSets/Main``, else by the folder they lie in, else all of them for training."""
    if not (folder / 'Annotations').is_dir():
        splits: dict[str, list[Path]] = {}
        for file in sorted([*folder.glob('*.xml'), *folder.glob('*/*.xml')]):
            split = split_of(file.parent.name) if file.parent != folder else None
            splits.setdefault(split or 'train', []).append(file)
        return splits
    lists = {name: folder / 'ImageSets' / 'Main' / f'{name}.txt' for name in ('train', 'val', 'test', 'trainval')}
    there = {name: file for name, file in lists.items() if file.is_file() and read_lines(file)}
    if 'trainval' in there and 'train' not in there:
        there['train'] = there['trainval']
    there.pop('trainval', None)
    if 'train' not in there:
        return dict(train=sorted((folder / 'Annotations').glob('*.xml')))
    found = {}
    for name, file in there.items():
        files = [folder / 'Annotations' / f'{line.split()[0]}.xml' for line in read_lines(file)]
        missing = [f for f in files if not f.is_file()]
        if missing and name != 'test':  # VOC's own test annotations are not public
            raise UserError(f'{file} names {missing[0].stem}, and {missing[0]} is not there')
        if not missing:
            found[name] = files
    return found


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f'{file} is not XML: {error}') from None


def _as_coco(trees: list, classes: list[str], pictures: dict[str, list[Path]]) -> dict:
    images: list[dict] = []
    annotations: list[dict] = []
    for number, (file, tree) in enumerate(trees, start=1):
        picture = _picture(file, tree, pictures)
        width, height = picture_size(picture)
        images.append(dict(id=number, file_name=str(picture), width=width, height=height))
        for position, item in enumerate(tree.iterfind('object'), start=1):
            try:
                left, top, right, bottom = (
                    float(item.findtext(f'bndbox/{side}') or 'nothing') for side in ('xmin', 'ymin', 'xmax', 'ymax')
                )
            except ValueError:
                raise UserError(f'{file}: object {position} has no bndbox of xmin, ymin, xmax and ymax') from None
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=classes.index(item.findtext('name') or ''),
                    bbox=[left, top, right - left, bottom - top],
                    area=(right - left) * (bottom - top),
                    iscrowd=int(item.findtext('difficult') == '1'),  # ignored in training and evaluation, as in VOC
                )
            )
    return dict(
        images=images, annotations=annotations, categories=[dict(id=i, name=name) for i, name in enumerate(classes)]
    )


def _picture(file: Path, tree: ElementTree.Element, pictures: dict[str, list[Path]]) -> Path:
    name = Path((tree.findtext('filename') or '').replace('\\', '/')).name
    candidates = pictures.get(name) or pictures.get(file.stem) or []
    near = [c for c in candidates if c.parent == file.parent and is_picture(c)] or candidates
    if not near:
        raise UserError(f'{file}: its picture {name or file.stem} is not there')
    return near[0]
