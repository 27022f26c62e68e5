"""Files of data sets: listed, read, and written whole or not at all."""

import contextlib
import csv
import gc
import importlib
import json
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import UserError

orjson: Any = None
with contextlib.suppress(ImportError):
    orjson = importlib.import_module('orjson')

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
SPLIT_NAMES = dict(
    train=('train', 'training', 'train2017', 'obj_train_data', 'obj_train'),
    val=('val', 'valid', 'validation', 'val2017', 'dev', 'obj_valid_data'),
    test=('test', 'testing', 'test2017', 'obj_test_data'),
)
VAL_SHARE = 0.2  # of a data set that has a train split only


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        UserError: It cannot be read, or is not JSON.
    """
    collected = gc.isenabled()
    gc.disable()  # which would look through millions of new lists, again and again, for what is no longer used
    try:
        return _parse(path.read_bytes())
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise UserError(f'{path} is not JSON: {error}') from None
    finally:
        if collected:
            gc.enable()


def _parse(content: bytes) -> Any:
    """JSON, by orjson where it is installed, which takes a third of the time."""
    if orjson is not None:
        with contextlib.suppress(ValueError):  # Python's own also takes NaN and UTF-16, and says what is wrong
            return orjson.loads(content)
    return json.loads(content)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, stripped.

    Raises:
        UserError: It cannot be read as UTF-8.
    """
    try:
        return [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read as text: {error}') from None


def read_yaml(path: Path) -> dict:
    """A YAML file that holds keys and values.

    Raises:
        UserError: It does not.
    """
    import yaml  # which MMEngine needs, too

    try:
        found = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f'{path} cannot be read as YAML: {" ".join(str(error).split())}') from None
    if not isinstance(found, dict):
        raise UserError(f'{path} holds no keys and values')
    return found


def read_csv(path: Path) -> list[list[str]]:
    """The rows of a CSV file, stripped."""
    return [[cell.strip() for cell in row] for row in csv.reader(read_lines(path))]


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not path.name.startswith('.')


def pictures_below(folder: Path) -> list[Path]:
    """The pictures of a folder and of those in it, in order."""
    found = []
    for base, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        found += [Path(base, name) for name in sorted(names) if is_picture(Path(name))]
    return found


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height as stored, from the header.

    Raises:
        UserError: It is missing, or no picture.
    """
    try:
        with Image.open(path) as picture:
            return picture.size
    except FileNotFoundError:
        raise UserError(f'picture not found: {path}') from None
    except Exception as error:  # of a damaged header anything
        raise UserError(f'{path} cannot be read as a picture: {error}') from None


def split_of(name: str) -> str | None:
    """``'train'``, ``'val'`` or ``'test'`` where a name says so, such as ``instances_val2017.json``."""
    words = ''.join(c.lower() if c.isalnum() else ' ' for c in name).split()
    for split, names in SPLIT_NAMES.items():
        if any(word in names for word in words):
            return split
    return None


def seeded_split(items: Sequence, seed: int = 0) -> tuple[list, list]:
    """The items in two parts, for training and validation, each in the order given; the same seed, the same parts."""
    count = min(max(1, round(len(items) * VAL_SHARE)), len(items) - 1)
    picked = set(random.Random(seed).sample(range(len(items)), count))
    train = [item for i, item in enumerate(items) if i not in picked]
    return train, [item for i, item in enumerate(items) if i in picked]


def contents(folder: Path) -> str:
    """What lies in a folder, for a message."""
    return some(sorted(path.name for path in folder.iterdir()), 8) or 'nothing'


def some(names: Iterable, count: int = 5) -> str:
    """The first few names, and how many more there are."""
    names = [str(name) for name in names]
    return ', '.join(names[:count]) + (f' and {len(names) - count} more' if len(names) > count else '')
