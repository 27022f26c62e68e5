"""A classifier's data before a run: folders, or a list of pictures with labels."""

from pathlib import Path

from ..errors import UserError
from .files import pictures_below, some
from .loaders import picture_folder, picture_list

FLAG = 'take the classes from the data with --own-classes'


def check_folders(dataset: dict, classes: tuple[str, ...] | None, name: str) -> int:
    """A classifier's folders, one for each class, or its list of pictures with labels."""
    listed = picture_list(dataset)
    if listed:
        return _check_labels(listed, picture_folder(dataset), classes, name)
    root = picture_folder(dataset)
    folders = sorted(f.name for f in root.iterdir() if f.is_dir()) if root.is_dir() else []
    if not folders:
        raise UserError(f'{root} holds no folder of pictures for each class')
    if classes is not None and len(folders) != len(classes):
        raise UserError(
            f'{root} has {len(folders)} folders ({some(folders)}), and the data set of {name} has {len(classes)} '
            f'classes: correct one of them, or {FLAG}'
        )
    if classes is not None and set(folders) == set(classes) and folders != list(classes):
        raise UserError(
            f'{name}: MMPretrain numbers the folders of {root} in alphabetical order: write classes={tuple(folders)!r}'
        )
    for folder in folders:
        if not pictures_below(root / folder):
            raise UserError(f'{root / folder} holds no picture')
    return len(pictures_below(root))


def _check_labels(file: Path, folder: Path, classes: tuple[str, ...] | None, name: str) -> int:
    count = 0
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), start=1):
        path, _, label = line.strip().rpartition(' ')
        if not label.isdigit() or not path:
            raise UserError(f'{file}, line {number}: {line!r} is not a path, a space and the number of a class')
        if classes is not None and int(label) >= len(classes):
            raise UserError(f'{file}, line {number}: the label {label} is none of the {len(classes)} classes of {name}')
        if not (folder / path).is_file():
            raise UserError(f'{file}, line {number}: the picture {folder / path} is not there')
        count += 1
    if not count:
        raise UserError(f'{file} names no pictures')
    return count
