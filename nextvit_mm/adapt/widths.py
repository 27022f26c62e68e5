"""Which numbers of a config are widths of the maps that its part takes, and what they become. Pure."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

WIDTH = re.compile(r'(^|_)(in|input|backbone)_(channels?|dims?|planes|features)(_list)?$')


class Change(NamedTuple):
    """One number, or list of numbers, that changes."""

    key: str
    old: Any
    new: Any


class Pair(NamedTuple):
    """The width of a map before and after."""

    old: int
    new: int


def change_widths(part: Any, key: str, maps: Sequence[Pair]) -> Iterator[Change]:
    """Change every width of ``maps`` in the config of a part that takes them, in place.

    A list is changed that holds the maps' widths, all or some of them, in their order or the reverse. A list that goes
    on after them, such as what SSD's neck gives, is changed at its beginning. A number is that of the map that
    ``in_index`` names; without it the last map's, as in the MM libraries, or else the only one of that width. The
    numbers of a part with a ``widen_factor``, as MMYOLO has it, are those before that factor.

    Args:
        part: The part's config, or a list of them, which all take the same maps.
        key: Where it lies in the config.
        maps: The maps that it takes.
    """
    if isinstance(part, (list, tuple)):
        for number, one in enumerate(part):
            yield from change_widths(one, f'{key}.{number}', maps)
        return
    if not isinstance(part, dict):
        return
    yield from _change(part, key, maps, top=True)


def _change(part: dict, key: str, maps: Sequence[Pair], top: bool) -> Iterator[Change]:
    for name, value in list(part.items()):
        path = f'{key}.{name}'
        if isinstance(value, dict):
            yield from _change(value, path, maps, top=False)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(one, dict) for one in value):
            for number, one in enumerate(value):
                yield from _change(one, f'{path}.{number}', maps, top=False)
        else:
            widen = part.get('widen_factor') or 1
            new = _narrowed(_new(part, name, _widened(value, widen), maps, top), widen)
            if new is not None and new != value:
                part[name] = new
                yield Change(path, value, new)


def _new(part: dict, name: str, value: Any, maps: Sequence[Pair], top: bool) -> Any:
    """What a value becomes; None if it is no width of the maps."""
    if _numbers(value):
        if WIDTH.search(name):
            return _new_list(part, value, maps)
        whole = len(value) > len(maps) > 1 and 'channels' in name
        if whole and list(value[: len(maps)]) == [pair.old for pair in maps]:
            return type(value)([*(pair.new for pair in maps), *value[len(maps) :]])
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if not WIDTH.search(name) and not (name == 'out_channels' and 'featmap_strides' in part):
        return None
    index = part.get('in_index')
    if name == 'out_channels' and 'featmap_strides' in part:  # regions cut out of the maps have their width
        return maps[-1].new if maps[-1].old == value else None
    if name == 'in_channels' and isinstance(index, int) and -len(maps) <= index < len(maps):
        return maps[index].new if maps[index].old == value else None
    if name == 'in_channels' and maps[-1].old == value:
        return maps[-1].new
    alike = {pair for pair in maps if pair.old == value}
    return alike.pop().new if top and len(alike) == 1 else None


def _new_list(part: dict, value: Any, maps: Sequence[Pair]) -> Any:
    index = part.get('in_index')
    if _numbers(index) and len(index) == len(value) and all(-len(maps) <= i < len(maps) for i in index):
        taken = [maps[i] for i in index]
        return type(value)(pair.new for pair in taken) if [pair.old for pair in taken] == list(value) else None
    for order in (list(maps), list(maps)[::-1]):
        for start in range(len(maps) - len(value) + 1):
            taken = order[start : start + len(value)]
            if [pair.old for pair in taken] == list(value):
                return type(value)(pair.new for pair in taken)
    return None


def _widened(value: Any, factor: float) -> Any:
    """Numbers as MMYOLO's layers have them: times the factor, up to a multiple of 8."""
    if factor == 1 or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return math.ceil(value * factor / 8) * 8
    return type(value)(_widened(one, factor) for one in value) if _numbers(value) else value


def _narrowed(value: Any, factor: float) -> Any:
    """Numbers of which :func:`_widened` makes these, which are multiples of 8."""
    if value is None or factor == 1:
        return value
    return math.floor(value / factor) if isinstance(value, int) else type(value)(_narrowed(v, factor) for v in value)


def _numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(type(one) is int for one in value)
