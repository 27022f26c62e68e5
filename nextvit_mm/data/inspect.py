"""A thorough look into data: every picture and every class map is opened. Behind ``tools/check_data.py``."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..errors import UserError
from ..utils.progress import hush, say
from .balance import label_counts
from .boxes import Boxes, coco_files, read_boxes
from .check_maps import check_variety
from .coco import without_masks
from .files import some
from .folders import read_folders
from .maps import Maps, grey, read_maps
from .own import Data
from .pairs import find_pairs
from .voc import voc_folder
from .yolo import is_yolo

SMALL, MEDIUM = 32**2, 96**2  # COCO's areas, pixels
ORIENTATION = 0x0112  # EXIF's tag of how the camera was held
KINDS = {
    'P': 'a palette',
    'I;16': '16 bits',
    'I;16B': '16 bits',
    'I': '16 or 32 bits',
    'F': 'floating point',
    'CMYK': 'CMYK',
    'L': 'grey',
    'LA': 'grey with transparency',
    '1': 'black and white',
    'RGBA': 'RGB with transparency',
}
RISKY = ('P', 'I;16', 'I;16B', 'I', 'F', 'CMYK', 'LA', 'RGBA')  # which readers take for different colors


@dataclass
class Report:
    """What was found: lines to read, warnings, and errors that would stop a run or teach the wrong thing."""

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def read_any(root: Path, folder: Path) -> Data:
    """The data of a folder, whatever they are; lists or maps that must be written go into ``folder``."""
    if not any(root.iterdir()):
        raise UserError(f'{root} is empty')
    if coco_files(root) or is_yolo(root) or voc_folder(root) and not (root / 'SegmentationClass').is_dir():
        return read_boxes(root)
    if find_pairs(root)[0]:
        return read_maps(root, folder)
    return read_folders(root)


def look(data: Data) -> Report:
    """Open everything, count, and compare."""
    report = Report()
    for remark in data.remarks:
        report.warnings.append(remark)
    contents: dict[str, dict[str, Path]] = {}
    for split in data.splits:
        pictures = list(_pictures(data, split))
        contents[split] = _open_all(pictures, split, report)
        if isinstance(data, Boxes):
            _count_boxes(data, split, report)
        elif isinstance(data, Maps):
            _count_maps(data, split, report)
        else:
            counts = Counter(label for _, label in data.splits[split])
            report.lines.append(f'{split}: {len(pictures):,} pictures; ' + _by_class(counts, data.classes))
    _compare_splits(data, contents, report)
    return report


def _pictures(data: Data, split: str) -> Iterator[tuple[Path, tuple[int, int] | None]]:
    """Each picture of a split, with the width and height that its annotations are for, if they say."""
    if isinstance(data, Boxes):
        for image in data.splits[split]['images']:
            yield Path(image['file_name']), (image['width'], image['height'])
    else:
        for picture, _ in data.splits[split]:
            yield picture, None


def _open_all(pictures: list, split: str, report: Report) -> dict[str, Path]:
    """Read every picture; returns them by their content."""
    contents: dict[str, Path] = {}
    kinds: dict[str, list[str]] = {}
    rotated, twice = [], []
    for number, (path, size) in enumerate(pictures):
        if number % 50 == 0:
            say(f'{split}: {number:,} of {len(pictures):,} pictures')
        try:
            found = path.read_bytes()
            with Image.open(path) as picture:
                picture.load()
                mode, sides, orientation = picture.mode, picture.size, picture.getexif().get(ORIENTATION, 1)
        except FileNotFoundError:
            report.errors.append(f'picture not found: {path}')
            continue
        except Exception as error:  # of a damaged file anything
            report.errors.append(f'{path} cannot be read as a picture: {error}')
            continue
        if mode in RISKY:
            kinds.setdefault(KINDS[mode], []).append(str(path))
        turned = sides[::-1] if orientation in (5, 6, 7, 8) else sides
        if orientation not in (0, 1):
            rotated.append(str(path))
        if size is not None and tuple(size) not in (tuple(sides), tuple(turned)):
            report.errors.append(f'{path} is {sides[0]}×{sides[1]}, and its annotations are for {size[0]}×{size[1]}')
        digest = hashlib.sha1(found).hexdigest()
        if digest in contents:
            twice.append(f'{path} ({contents[digest].name})')
        contents.setdefault(digest, path)
    hush()
    _warn(split, kinds, rotated, twice, report)
    return contents


def _warn(split: str, kinds: dict[str, list[str]], rotated: list[str], twice: list[str], report: Report) -> None:
    for kind, paths in kinds.items():
        report.warnings.append(
            f'{split}: {len(paths)} pictures are {kind}, which programs read differently: {some(paths, 3)}'
        )
    if rotated:
        report.warnings.append(
            f'{split}: {len(rotated)} pictures are turned by EXIF, which some programs ignore: {some(rotated, 3)}'
        )
    if twice:
        report.warnings.append(f'{split}: {len(twice)} pictures are there twice: {some(twice, 3)}')


def _by_class(counts: Counter, classes: tuple[str, ...]) -> str:
    none = [name for label, name in enumerate(classes) if not counts[label]]
    text = ', '.join(f'{name} {counts[label]:,}' for label, name in enumerate(classes) if counts[label])
    return text + (f'; of none: {some(none)}' if none else '')


def _count_boxes(data: Boxes, split: str, report: Report) -> None:
    found = data.splits[split]
    annotations = found['annotations']
    sizes = Counter('small' if a['area'] < SMALL else 'medium' if a['area'] < MEDIUM else 'large' for a in annotations)
    empty = len(found['images']) - len({a['image_id'] for a in annotations})
    counts = Counter(a['category_id'] for a in annotations)
    report.lines.append(
        f'{split}: {len(found["images"]):,} pictures, {empty:,} of them without an object; {len(annotations):,} '
        f'objects: {_by_class(counts, data.classes)}; '
        + ', '.join(f'{sizes[size]:,} {size}' for size in ('small', 'medium', 'large'))
    )
    missing = without_masks(found)
    if missing and len(missing) < len(annotations):
        report.errors.append(
            f'{split}: {len(missing)} of {len(annotations)} annotations have no polygon, first {missing[0]}: add them, '
            'or train boxes alone with --boxes-only'
        )
    elif missing:
        report.warnings.append(f'{split}: no annotation has a polygon; a detector will learn boxes alone')


def _count_maps(data: Maps, split: str, report: Report) -> None:
    pixels: Counter = Counter()
    seen: dict[int, set[int]] = {}
    for number, (picture, path) in enumerate(data.splits[split]):
        if number % 50 == 0:
            say(f'{split}: {number:,} of {len(data.splits[split]):,} class maps')
        try:
            labels = data.convert(path) if data.convert else grey(path)
            for label, value, count in label_counts(data, labels):
                if label != 255 and label >= len(data.classes):
                    raise UserError(f'{path} has the value {value}, which is none of the {len(data.classes)} classes')
                pixels[label] += count
                seen.setdefault(label, set()).add(value)
            with Image.open(picture) as opened:
                if opened.size[::-1] != labels.shape:
                    report.errors.append(
                        f'{path} is {labels.shape[1]}×{labels.shape[0]}, and its picture '
                        f'{opened.size[0]}×{opened.size[1]}'
                    )
        except (UserError, OSError) as error:
            report.errors.append(str(error))
    hush()
    if split == 'train' and not report.errors:
        try:
            check_variety(seen, data.splits[split][0][1].parent, len(data.classes))
        except UserError as error:
            report.errors.append(str(error))
    total = sum(pixels.values()) or 1
    shares = ', '.join(f'{n} {pixels[i] / total:.1%}' for i, n in enumerate(data.classes) if pixels[i])
    none = [name for label, name in enumerate(data.classes) if not pixels[label]]
    report.lines.append(
        f'{split}: {len(data.splits[split]):,} pictures; pixels: {shares}, ignored {pixels[255] / total:.1%}'
        + (f'; of none: {some(none)}' if none else '')
    )


def _compare_splits(data: Data, contents: dict[str, dict[str, Path]], report: Report) -> None:
    for split in ('val', 'test'):
        if split in contents and data.splits[split] is not data.splits['train']:
            same = sorted(contents['train'].keys() & contents[split].keys())
            pairs = [f'{contents[split][key]} ({contents["train"][key].name})' for key in same]
            if same:
                report.warnings.append(f'{len(same)} pictures of {split} are in train, too: {some(pairs, 3)}')
