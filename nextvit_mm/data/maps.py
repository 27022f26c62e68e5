"""Class maps in any layout, as pairs of a picture and a map of labels."""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from ..utils.files import write_text
from ..utils.optional import need
from .class_list import ClassList, read_class_list
from .files import VAL_SHARE, seeded_split
from .pairs import Pair, find_pairs, no_pairs
from .rasterize import as_maps

LOOKED_AT = 2000  # class maps at most, before training; tools/check_data.py looks at all
JPEG = 'a JPEG, which changes the numbers of classes: write class maps as PNG'
CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # ids of the 19 classes


@dataclass
class Maps:
    """Pictures with class maps.

    Attributes:
        layout: What they were read from, for people.
        classes, palette: Names and RGB colors, in the order of the labels.
        splits: For ``'train'``, ``'val'`` and perhaps ``'test'`` pairs of picture and class map.
        reduce_zero_label: 0 is no class, and the classes begin with 1.
        label_map: Values that stand for other labels, or None.
        convert: Makes a map of labels, (H, W) of uint8, of a file that is none, or None.
        remarks: What was decided, one line each.
    """

    layout: str
    classes: tuple[str, ...]
    palette: list[list[int]]
    splits: dict[str, list[Pair]]
    reduce_zero_label: bool = False
    label_map: dict[int, int] | None = None
    convert: Callable[[Path], np.ndarray] | None = None
    remarks: list[str] = field(default_factory=list)


def read_maps(root: Path, folder: Path) -> Maps:
    """Read a folder of class maps, or draw them from polygons into ``folder``; make a validation split if none.

    Raises:
        UserError: The layout is not known, there is no list of classes, or a map holds what is no class.
    """
    if not root.is_dir():
        raise UserError(f'--data-root {root} is not a folder')
    splits, remarks = find_pairs(root)
    if not splits:
        drawn = as_maps(root, folder)
        if drawn is None:
            raise no_pairs(root)
        classes, splits, remarks = drawn
        return Maps('polygons', classes, palette_of(len(classes)), splits, remarks=remarks)
    if 'train' not in splits:
        raise UserError(f'{root}: no picture with a class map for training; there are: {", ".join(splits)}')
    if 'val' not in splits:
        _make_val(splits, root, remarks)
    looked_at = [class_map for pairs in splits.values() for _, class_map in pairs]
    if len(looked_at) > LOOKED_AT:
        step = len(looked_at) / LOOKED_AT
        remarks.append(f'looked at {LOOKED_AT:,} of {len(looked_at):,} class maps; tools/check_data.py looks at all')
        looked_at = [looked_at[int(i * step)] for i in range(LOOKED_AT)]
    maps = Maps('pictures and class maps', (), [], splits, remarks=remarks)
    _set_classes(maps, root, looked_at)
    return maps


def _make_val(splits: dict[str, list[Pair]], root: Path, remarks: list[str]) -> None:
    if 'test' in splits:
        splits['val'] = splits['test']
        remarks.append('there is no val split: the test split validates, too')
        return
    if len(splits['train']) < 2:
        raise UserError(f'{root} has one picture with a class map: training and validation need one each')
    splits['train'], splits['val'] = seeded_split(splits['train'])
    remarks.append(
        f'there is no val split: {VAL_SHARE:.0%} of the pictures validate, drawn with the seed 0: '
        f'{len(splits["train"]):,} to train, {len(splits["val"]):,} to validate'
    )


def _set_classes(maps: Maps, root: Path, looked_at: Sequence[Path]) -> None:
    """Classes and what stands for them, from the list beside the maps and the values that are in them."""
    with Image.open(_readable(looked_at[0])) as first:
        colored = first.mode in ('RGB', 'RGBA') and not _is_grey(first)
    listed = read_class_list(root)
    values = {} if colored else values_of(looked_at)
    if listed is None:
        listed = _known_classes(maps, root, values, looked_at[0], colored)
    maps.classes = tuple(listed.names)
    maps.palette = [list(color) for color in listed.colors] if listed.colors else palette_of(len(listed.names))
    if colored or (listed.colors and _has_palette_of(looked_at[0], listed.colors)):
        if not listed.colors:
            raise UserError(
                f'{looked_at[0]} has colors, and {listed.source} tells none: write each line as NAME RED GREEN BLUE'
            )
        maps.convert = by_color(listed.colors)
        maps.remarks.append('the class maps hold colors: written as labels')
        for path in looked_at:
            maps.convert(path)
        return
    if maps.label_map is None:
        maps.reduce_zero_label, maps.label_map = decide(values, listed)
    if maps.reduce_zero_label:
        maps.remarks.append('0 in the class maps is no class, and is ignored')
    with Image.open(looked_at[0]) as first:
        if first.mode in ('RGB', 'RGBA', 'LA'):
            maps.convert = grey


def _known_classes(maps: Maps, root: Path, values: dict[int, Path], first: Path, colored: bool) -> ClassList:
    """Classes of a layout that has its own, or of maps of two values."""
    known, library = None, 'mmseg.datasets'
    if 'labelTrainIds' in first.stem or 'labelIds' in first.stem:
        known = need(library, "Cityscapes' classes").CityscapesDataset
        if 'TrainIds' not in first.stem:
            maps.label_map = {i: 255 for i in range(256)} | {old: new for new, old in enumerate(CITYSCAPES)}
    elif 'SegmentationClass' in first.parts and not colored:
        known = need(library, "Pascal VOC's classes").PascalVOCDataset
    elif (root / 'objectInfo150.txt').is_file() or root.name == 'ADEChallengeData2016':
        known = need(library, "ADE20K's classes").ADE20KDataset
        maps.reduce_zero_label, maps.label_map = True, {}
    if known is not None:
        meta = known.METAINFO
        maps.remarks.append(f'no list of classes: taken as those of {known.__name__}')
        return ClassList(list(meta['classes']), [tuple(color) for color in meta['palette']])
    if values and set(values) <= {0, 255} or set(values) == {0, 1}:
        maps.remarks.append('no list of classes, and two values in the class maps: taken as background and foreground')
        return ClassList(['background', 'foreground'])
    raise UserError(
        f'{root} has class maps and no list of classes: write classes.txt, one name a line, the name of the value 0 '
        f'first{" (NAME RED GREEN BLUE, since the maps hold colors)" if colored else ""}'
    )


def decide(values: dict[int, Path], listed: ClassList) -> tuple[bool, dict[int, int] | None]:
    """``reduce_zero_label`` and ``label_map`` from the values in the maps and the list of classes.

    Raises:
        UserError: A value is no class; the message has the map.
    """
    count, seen = len(listed.names), set(values) - {255}
    if listed.values:
        allowed = set(listed.values)
        label_map = {value: label for label, value in enumerate(listed.values) if value != label}
    elif count == 2 and not seen - {0} and 255 in values:  # as drawing programs write them, black and white
        return False, {255: 1}
    elif seen and max(seen) == count:
        return True, None
    else:
        allowed, label_map = set(range(count)), {}
    wrong = sorted(seen - allowed)
    if wrong:
        raise UserError(
            f'{values[wrong[0]]} has the value {wrong[0]}, which is no class: {listed.source or "the list"} names '
            f'{count} classes, {min(allowed)} to {max(allowed)}'
            + (f'. It is {JPEG}' if is_lossy(values[wrong[0]]) else '')
        )
    return False, label_map or None


def values_of(paths: Sequence[Path]) -> dict[int, Path]:
    """The values in class maps, each with the first file that has it.

    Raises:
        UserError: A file cannot be read.
    """
    found: dict[int, Path] = {}
    for path in paths:
        for value in np.unique(grey(path)).tolist():
            found.setdefault(int(value), path)
    return found


def _readable(path: Path) -> Path:
    try:
        with Image.open(path) as picture:
            picture.load()
    except Exception as error:  # of a damaged file anything
        raise UserError(f'{path} cannot be read as a class map: {error}') from None
    return path


def is_lossy(path: Path) -> bool:
    return path.suffix.lower() in ('.jpg', '.jpeg')


def grey(path: Path) -> np.ndarray:
    """A class map of one channel, (H, W): as it is, a palette's numbers, or one of three equal channels.

    Raises:
        UserError: The file cannot be read, or holds colors or values over 255.
    """
    with Image.open(_readable(path)) as picture:
        if picture.mode in ('RGB', 'RGBA', 'LA'):
            if not _is_grey(picture):
                raise UserError(f'{path} holds colors ({picture.mode}), and others of its folder hold labels')
            picture = picture.getchannel(0)
        array = np.asarray(picture)
    if array.max(initial=0) > 255:
        raise UserError(f'{path} has the value {array.max()} ({array.dtype}): labels are 0 to 254, and 255 is ignored')
    return array.astype(np.uint8)


def _is_grey(picture: Image.Image) -> bool:
    array = np.asarray(picture.convert('RGB'))
    return bool((array == array[..., :1]).all())


def _has_palette_of(path: Path, colors: Sequence[tuple[int, int, int]]) -> bool:
    """Whether a map has a palette whose used colors are all those of classes."""
    with Image.open(path) as picture:
        if picture.mode != 'P':
            return False
        used = np.unique(np.asarray(picture.convert('RGB')).reshape(-1, 3), axis=0)
    return {tuple(color) for color in used.tolist()} <= {tuple(color) for color in colors}


def by_color(colors: Sequence[tuple[int, int, int]]) -> Callable[[Path], np.ndarray]:
    """A reader of maps that hold a color for each class; white that is no class, an edge, is ignored."""
    codes = {(r << 16) + (g << 8) + b: label for label, (r, g, b) in enumerate(colors)}

    def read(path: Path) -> np.ndarray:
        with Image.open(_readable(path)) as picture:
            array = np.asarray(picture.convert('RGB')).astype(np.int64)
        coded = (array[..., 0] << 16) + (array[..., 1] << 8) + array[..., 2]
        labels = np.full(coded.shape, 255, np.uint8)
        for code in np.unique(coded).tolist():
            if code not in codes and code not in (0xFFFFFF, 0xE0E0C0):  # VOC's edges
                color = [code >> 16, code >> 8 & 255, code & 255]
                raise UserError(f'{path} has the color {color}, which is no class of the list')
            labels[coded == code] = codes.get(code, 255)
        return labels

    return read


def palette_of(count: int) -> list[list[int]]:
    """Colors that stay apart: hues a golden angle from one to the next."""
    return [[round(255 * c) for c in colorsys.hsv_to_rgb(i * 0.381966 % 1, 0.75, 0.9)] for i in range(count)]


def write_maps(maps: Maps, root: Path, folder: Path) -> dict[str, Path]:
    """Write each split as a list of pairs, and maps that had to be converted as PNG beside it."""
    files = {}
    base = root.absolute()
    for split, pairs in maps.splits.items():
        lines = []
        for number, (picture, class_map) in enumerate(pairs):
            if maps.convert is not None:
                target = folder / 'masks' / split / f'{number:06d}_{class_map.stem}.png'
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(maps.convert(class_map)).save(target)
                class_map = target.absolute()
            named = [p.absolute() for p in (picture, class_map)]
            for path in named:
                if not {'\t', '\n'}.isdisjoint(str(path)):
                    raise UserError(f'{str(path)!r} has a tab or a line break in its name: rename it')
            lines.append('\t'.join(str(p.relative_to(base) if p.is_relative_to(base) else p) for p in named))
        files[split] = write_text(folder / f'{split}.txt', '\n'.join(lines) + '\n')
    return files
