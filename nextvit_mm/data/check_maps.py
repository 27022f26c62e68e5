"""A segmentor's data before a run: pictures with their class maps, and the values in some of these."""

import inspect
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError
from .files import some
from .loaders import dicts_in, type_name
from .maps import JPEG, grey, is_lossy
from .pairs import Pair

SECONDS = 0.5  # of looking into class maps, for each data set


def check_maps(cfg: Config, split: str, dataset: dict, kind: Any, classes: tuple[str, ...] | None) -> int:
    """Look into a segmentor's data set, and set what its pipelines must agree on; returns the number of pictures.

    Raises:
        UserError: There are no pairs, one of a pair is missing, a class map holds what is no class, or those of
            training hold nothing that tells classes apart.
    """
    reduce_zero = dataset.get('reduce_zero_label', _default(kind, 'reduce_zero_label', False))
    _agree(cfg, dataset, bool(reduce_zero))
    pairs = pairs_of(dataset, kind)
    count = (cfg.model.get('decode_head') or {}) if not isinstance(cfg.model.get('decode_head'), list) else {}
    limit = len(classes) if classes is not None else count.get('num_classes')
    if limit:
        seen, is_all = _look_into(pairs, limit, bool(reduce_zero), dataset.get('label_map') or {})
        if split == 'train' and is_all:
            check_variety(seen, pairs[0][1].parent, limit)
    lossy = [path for _, path in pairs if is_lossy(path)]
    if lossy:
        print_log(f'{lossy[0]} is {JPEG}', 'current', level=30)
    return len(pairs)


def pairs_of(dataset: dict, kind: Any) -> list[Pair]:
    """The pictures and class maps that a data set reads; a suffix that all pictures have is set where it is another.

    Raises:
        UserError: There are none, or one of a pair is missing.
    """
    root = Path(dataset.get('data_root') or '')
    if type_name(dataset) == 'PairedSegDataset':
        lines = (root / dataset['ann_file']).read_text(encoding='utf-8').splitlines()
        pairs = [(root / a, root / b) for a, b in (line.split('\t') for line in lines if line.strip())]
        for pair in pairs:
            for path in pair:
                if not path.is_file():
                    raise UserError(f'{root / dataset["ann_file"]} names {path}, which is not there')
        return pairs
    return _pairs_by_suffix(dataset, kind, root)


def _pairs_by_suffix(dataset: dict, kind: Any, root: Path) -> list[Pair]:
    pictures, maps = (root / dataset['data_prefix'][key] for key in ('img_path', 'seg_map_path'))
    found = {}
    for key, folder in (('img_suffix', pictures), ('seg_map_suffix', maps)):
        suffix = dataset.get(key) or _default(kind, key, '.jpg' if key == 'img_suffix' else '.png')
        names = _names_below(folder)
        if not any(name.endswith(suffix) for name in names):
            there = sorted({Path(name).suffix for name in names if Path(name).suffix})
            if len(there) != 1:
                raise UserError(
                    f'{folder} holds no file that ends in {suffix}, the {key} of the data set'
                    f' (there are: {some(there) or "none"}): set {key}, or --own-classes'
                )
            print_log(f'{folder}: the files end in {there[0]}, which {key} is set to', 'current')
            suffix = dataset[key] = there[0]
        found[key] = (suffix, names)
    suffix, names = found['img_suffix']
    map_suffix, map_names = found['seg_map_suffix']
    known = set(map_names)
    if dataset.get('ann_file'):
        lines = (root / dataset['ann_file']).read_text(encoding='utf-8').split('\n')
        stems = [line.strip() for line in lines if line.strip()]
    else:
        stems = sorted(name[: -len(suffix)] for name in names if name.endswith(suffix))
    missing = [stem for stem in stems if stem + map_suffix not in known]
    if missing:
        raise UserError(
            f'{len(missing):,} of {len(stems):,} pictures of {pictures} have no class map in {maps}, first '
            f'{missing[0]}{map_suffix}'
        )
    return [(pictures / (stem + suffix), maps / (stem + map_suffix)) for stem in stems]


def _names_below(folder: Path) -> list[str]:
    names = []
    for base, _, files in os.walk(folder, followlinks=True):
        below = os.path.relpath(base, folder)
        names += [name if below == '.' else os.path.join(below, name) for name in files if not name.startswith('.')]
    return names


def _default(kind: Any, argument: str, otherwise: Any) -> Any:
    """What a data set's class takes for an argument that a config leaves out."""
    if kind is None:
        return otherwise
    base: Any
    for base in inspect.getmro(kind):
        if base is object:
            return otherwise
        found = inspect.signature(base.__init__).parameters.get(argument)  # type: ignore[misc]  # of this very class
        if found is not None and found.default is not inspect.Parameter.empty:
            return found.default
    return otherwise


def _agree(cfg: Config, dataset: dict, reduce_zero: bool) -> None:
    """Give every pipeline that loads class maps the data set's ``reduce_zero_label``; MMSegmentation asserts it."""
    changed = False
    for part in (dataset.get('pipeline') or [], cfg.get('tta_pipeline') or []):
        for step in dicts_in(part):
            if type_name(step) == 'LoadAnnotations' and step.get('reduce_zero_label') not in (None, reduce_zero):
                step['reduce_zero_label'] = reduce_zero
                changed = True
    if changed:
        print_log(f'reduce_zero_label={reduce_zero} in the pipelines, as in the data set', 'current')


def _look_into(pairs: list[Pair], classes: int, reduce_zero: bool, label_map: dict) -> tuple[dict[int, set[int]], bool]:
    """See that the values of class maps are classes: of maps spread over all, for half a second.

    Returns:
        tuple: The labels that were found, each with its values in the maps, and whether all maps were looked at.
    """
    end = time.monotonic() + SECONDS
    renamed = {int(old): new for old, new in label_map.items()}
    order = np.random.default_rng(0).permutation(len(pairs))
    seen: dict[int, set[int]] = {}
    for number, i in enumerate(order, start=1):
        for label, value in check_values(pairs[i][1], classes, reduce_zero, renamed):
            seen.setdefault(label, set()).add(value)
        if time.monotonic() > end and number < len(pairs):
            return seen, False
    return seen, True


def check_variety(seen: dict[int, set[int]], folder: Path, classes: int) -> None:
    """See that training has something to tell apart: maps of 0 and 255, say, have one class, since 255 is ignored.

    Args:
        seen: Each label in the class maps, with its values there.
        folder: Where the class maps are, for the message.
        classes: How many there are.

    Raises:
        UserError: All maps are of one class, of several that there are, or of none.
    """
    found = len(seen.keys() - {255})
    if found >= min(classes, 2):
        return
    values = ', '.join(map(str, sorted(set().union(*seen.values()))))
    ignored = f'{", ".join(map(str, sorted(seen[255])))} is ignored, and ' if 255 in seen else ''
    raise UserError(
        f'{folder}: the class maps hold no other values than {values}; {ignored}training finds {found} of the '
        f'{classes} classes. Write the number of its class into each pixel, or let --own-classes read the maps'
    )


def check_values(path: Path, classes: int, reduce_zero: bool, renamed: dict[int, int]) -> list[tuple[int, int]]:
    """See that a class map holds nothing but classes and 255; returns each label with its value.

    Raises:
        UserError: It does; the message has the value.
    """
    found = []
    for value in np.unique(grey(path)).tolist():
        label = (value - 1 if value not in (0, 255) else 255) if reduce_zero else value
        label = renamed.get(label, label)
        if label >= classes and label != 255:
            least, most = (1, classes) if reduce_zero else (0, classes - 1)
            note = f'reduce_zero_label={reduce_zero}'
            raise UserError(
                f'{path} has the value {value}, which is no class: the {classes} classes are {least} to {most} ({note})'
                + (f'. It is {JPEG}' if is_lossy(path) else '')
            )
        found.append((label, value))
    return found
