"""A folder of pictures for each class, split or not, as lists of pictures with labels."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..utils.files import write_text
from .files import PICTURES, VAL_SHARE, pictures_below, seeded_split, some, split_of


@dataclass
class Folders:
    """Labelled pictures.

    Attributes:
        classes: Names of the folders, in alphabetical order: the order of the labels.
        splits: For ``'train'``, ``'val'`` and perhaps ``'test'`` pairs of picture and label.
        remarks: What was decided, one line each.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[tuple[Path, int]]]
    remarks: list[str] = field(default_factory=list)
    layout: str = 'a folder for each class'


def read_folders(root: Path) -> Folders:
    """Read folders of pictures, and make a validation split where there is none.

    Raises:
        UserError: A class has no picture, or a split has a class that training has not.
    """
    if not root.is_dir():
        raise UserError(f'--data-root {root} is not a folder')
    splits = {split_of(f.name): f for f in _folders(root) if split_of(f.name)}
    if 'train' not in splits:
        if splits:
            raise UserError(f'{root} has {some(sorted(f.name for f in splits.values()))} and no train')
        splits = dict(train=root)
    names = [folder.name for folder in _folders(splits['train'])]
    if len(names) < 2:
        raise UserError(
            f'{splits["train"]} holds {len(names) or "no"} folder{"s" * (len(names) != 1)} of pictures: a classifier '
            'needs two or more, one for each class'
        )
    found = Folders(tuple(names), {})
    for split, folder in splits.items():
        assert split is not None
        found.splits[split] = _read_split(folder, names, split == 'train')
    if not found.splits.get('val'):
        _make_val(found)
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith(('.', '__')))


def _read_split(folder: Path, names: list[str], all_classes: bool) -> list[tuple[Path, int]]:
    unknown = [f.name for f in _folders(folder) if f.name not in names]
    if unknown:
        raise UserError(f'{folder} has the classes {some(unknown)}, which the train split has not')
    items = []
    for label, name in enumerate(names):
        pictures = pictures_below(folder / name) if (folder / name).is_dir() else []
        if not pictures and all_classes:
            raise UserError(f'{folder / name} holds no picture ({", ".join(PICTURES)})')
        items += [(picture, label) for picture in pictures]
    return items


def _make_val(found: Folders) -> None:
    if found.splits.get('test'):
        found.splits['val'] = found.splits['test']
        found.remarks.append('there is no val split: the test split validates, too')
        return
    train: list = []
    val: list = []
    for label, name in enumerate(found.classes):
        own = [item for item in found.splits['train'] if item[1] == label]
        if len(own) < 2:
            raise UserError(f'the class {name} has {len(own)} picture: training and validation need one each')
        kept, drawn = seeded_split(own, seed=label)
        train, val = train + kept, val + drawn
    found.splits.update(train=train, val=val)
    found.remarks.append(
        f'there is no val split: {VAL_SHARE:.0%} of each class validate, drawn with a seed: {len(train):,} pictures to '
        f'train, {len(val):,} to validate'
    )


def write_folders(found: Folders, root: Path, folder: Path) -> dict[str, Path]:
    """Write each split as a list for MMPretrain's CustomDataset: a path below ``root``, a space, the label."""
    files = {}
    for split, items in found.splits.items():
        lines = [f'{picture.relative_to(root).as_posix()} {label}' for picture, label in items]
        files[split] = write_text(folder / f'{split}.txt', '\n'.join(lines) + '\n')
    return files
