"""Which class map belongs to which picture, in the layouts that tools write."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from .files import contents, pictures_below, read_lines, some, split_of

PICTURE_FOLDERS = ('images', 'image', 'imgs', 'img', 'img_dir', 'jpegimages', 'leftimg8bit')
MAP_FOLDERS = (
    'masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'anns', 'ann_dir', 'gt', 'gtfine', 'segmentations',
    'segmentationclass', 'segmentationclassraw',
)  # fmt: skip
MAP_ENDS = (
    '_gtFine_labelTrainIds', '_gtFine_labelIds', '_labelTrainIds', '_labelIds', '_segmentation', '_mask', '-mask',
    '_masks', '_label', '_labels', '_seg', '_gt', '_L',
)  # fmt: skip
NOT_MAPS = ('_color', '_instanceIds', '_polygons')  # of Cityscapes
Pair = tuple[Path, Path]


def find_pairs(root: Path) -> tuple[dict[str, list[Pair]], list[str]]:
    """Pictures with their class maps by split, and remarks on what has no partner; no split where there is no pair."""
    pictures: dict[tuple, Path] = {}
    maps: dict[tuple, Path] = {}
    for path in pictures_below(root):
        if path.stem.endswith(NOT_MAPS) or 'SegmentationObject' in path.parts:
            continue
        folders = [part.lower() for part in path.relative_to(root).parts[:-1]]
        if any(folder in MAP_FOLDERS for folder in folders) or path.stem.endswith(('_mask', '-mask')):
            key = _key(folders, path.stem, MAP_ENDS)
            if key not in maps or 'TrainIds' in path.stem:  # of two maps of a picture the one with training's labels
                maps[key] = path
        else:
            pictures[_key(folders, path.stem, ('_leftImg8bit',))] = path
    splits: dict[str, list[Pair]] = {}
    lists = _lists(root)
    for key in sorted(pictures.keys() & maps.keys(), key=str):
        for split in _splits_of(key, pictures[key], lists):
            splits.setdefault(split, []).append((pictures[key], maps[key]))
    remarks = []
    for keys, found, what in (
        (pictures.keys() - maps.keys(), pictures, 'pictures without a class map'),
        (maps.keys() - pictures.keys(), maps, 'class maps without a picture'),
    ):
        if keys and splits:
            left_out = sorted(str(found[key].relative_to(root)) for key in keys)
            remarks.append(f'left out {len(left_out):,} {what}: {some(left_out, 3)}')
    return splits, remarks


def _key(folders: list[str], stem: str, ends: tuple[str, ...]) -> tuple:
    """What a picture and its map have in common: split, other folders, and name."""
    split = next(filter(None, map(split_of, folders)), '')
    others = tuple(
        f for f in folders if f not in PICTURE_FOLDERS and f not in MAP_FOLDERS and not split_of(f) and f != 'default'
    )
    end = next((end for end in ends if stem.endswith(end)), '')
    return split, others, stem[: len(stem) - len(end)]


def _lists(root: Path) -> dict[str, set[str]]:
    """Names of pictures by split, from VOC's ``ImageSets``."""
    for folder in (root, *sorted(root.glob('VOC*')), *sorted(root.glob('VOCdevkit/VOC*'))):
        files = {name: folder / 'ImageSets' / 'Segmentation' / f'{name}.txt' for name in ('train', 'val', 'test')}
        there = {name: set(read_lines(file)) for name, file in files.items() if file.is_file()}
        if there:
            return there
        default = folder / 'ImageSets' / 'Segmentation' / 'default.txt'  # CVAT's, of a task without splits
        if default.is_file():
            return dict(train=set(read_lines(default)))
    return {}


def _splits_of(key: tuple, picture: Path, lists: dict[str, set[str]]) -> Iterator[str]:
    if not lists:
        yield key[0] or 'train'
    for split, names in lists.items():
        if picture.stem in names or '/'.join((*key[1][1:], picture.stem)) in names:
            yield split


def no_pairs(root: Path) -> UserError:
    """What is said where no picture has a class map."""
    suffixes = sorted({path.suffix for path in pictures_below(root)})
    return UserError(
        f'{root} holds no pairs of pictures and class maps, such as images/*.jpg and masks/*.png of the same names, '
        f'and no polygons; it has: {contents(root)} '
        f'(pictures: {", ".join(suffixes) or "none"})'
    )
