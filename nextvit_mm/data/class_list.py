"""The list of classes beside class maps: names, and what stands for each of them in a map, a value or a color."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import read_csv, read_json, read_lines

FILES = (
    'classes.txt',
    'labels.txt',
    'labelmap.txt',
    'label_colors.txt',
    'classes.json',
    'labels.json',
    'label_map.json',
    '_classes.csv',
    'classes.csv',
)
COLOR = r'(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})'


@dataclass
class ClassList:
    """Classes in the order of their labels.

    Attributes:
        names: Their names.
        colors: RGB, from 0 to 255, or None.
        values: Values in the class maps, where the list tells them, or None.
        source: The file.
    """

    names: list[str]
    colors: list[tuple[int, int, int]] | None = None
    values: list[int] | None = None
    source: Path | None = None


def read_class_list(root: Path) -> ClassList | None:
    """The list of classes in a folder or in its ``train``; None where there is none.

    Raises:
        UserError: It cannot be read, or names a class twice.
    """
    for file in (folder / name for folder in (root, root / 'train') for name in FILES):
        if file.is_file():
            found = _read(file)
            found.source = file
            if not found.names:
                raise UserError(f'{file} names no classes')
            twice = sorted({name for name in found.names if found.names.count(name) > 1})
            if twice:
                raise UserError(f'{file} names {", ".join(twice)} twice')
            return found
    return None


def _read(file: Path) -> ClassList:
    if file.suffix == '.json':
        return _from_json(read_json(file), file)
    if file.suffix == '.csv':
        rows = [row for row in read_csv(file) if len(row) >= 2 and row[0].isdigit()]  # without the header
        return ClassList([row[1] for row in rows], values=[int(row[0]) for row in rows])
    names: list[str] = []
    colors: list = []
    for line in read_lines(file):
        if line.startswith('#'):
            continue
        name_first = re.fullmatch(rf'(.+?)[\s,:]+{COLOR}(?:\s*:.*)?', line)  # CVAT's has two more columns
        color_first = re.fullmatch(rf'{COLOR}[\s,]+(.+)', line)
        if color_first:
            *color, name = color_first.groups()
        elif name_first:
            name, *color = name_first.groups()
        else:
            name, color = line, []
        names.append(name.strip())
        colors.append(tuple(map(int, color)))
    if any(colors) and not all(colors):
        raise UserError(f'{file} has colors for some classes only')
    return ClassList(names, colors if any(colors) else None)  # type: ignore[arg-type]  # three numbers each


def _from_json(found: Any, file: Path) -> ClassList:
    if isinstance(found, dict) and isinstance(found.get('classes', found.get('labels')), (list, dict)):
        found = found.get('classes', found.get('labels'))
    if isinstance(found, dict) and all(str(key).isdigit() for key in found):  # {"0": "background"}
        order = sorted(found, key=int)
        return ClassList([str(found[key]) for key in order], values=[int(key) for key in order])
    if isinstance(found, dict):  # {"road": [128, 64, 128]}, or {"road": 1}
        if all(isinstance(value, int) for value in found.values()):
            order = sorted(found, key=found.get)
            return ClassList(order, values=[found[name] for name in order])
        return ClassList(list(found), [_color(value, file) for value in found.values()])
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return ClassList(found)
    if isinstance(found, list) and all(isinstance(item, dict) and item.get('name') for item in found):
        colors = [item.get('color') for item in found]
        values = [item.get('id') for item in found]
        return ClassList(
            [str(item['name']) for item in found],
            [_color(color, file) for color in colors] if all(colors) else None,
            values if all(isinstance(value, int) and 0 <= value < 255 for value in values) else None,
        )
    raise UserError(f'{file} is no list of classes: write ["name of value 0", "name of value 1", …]')


def _color(value: Any, file: Path) -> tuple[int, int, int]:
    if isinstance(value, str) and re.fullmatch('#[0-9a-fA-F]{6}', value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in value):
        return value[0], value[1], value[2]
    raise UserError(f'{file}: the color {value!r} is neither [red, green, blue] nor "#rrggbb"')
