"""Weights of a segmentor's classes, by how many pixels of the class maps each has."""

import math

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log

from .loaders import type_name
from .maps import Maps, grey

LOOKED_AT = 50  # class maps, evenly spaced
MOST, LEAST = 5.0, 2.0  # weight of the rarest class over that of the commonest: at most; below, all weigh alike
LOSS = 'ClassWeightedCrossEntropy'


def weigh_classes(cfg: Config, maps: Maps) -> None:
    """Have rare classes count more in the cross entropy of each head, where one class covers most pixels.

    A short training learns the common class first and then little else. A loss that names a ``class_weight``, also
    None, stays as it is.
    """
    weights = class_weights(count_pixels(maps))
    if max(weights) < LEAST:
        return
    changed = False
    for key in ('decode_head', 'auxiliary_head'):
        found = cfg.model.get(key) or []
        for head in found if isinstance(found, list) else [found]:
            loss = head.get('loss_decode') or {}
            plain = isinstance(loss, dict) and type_name(loss) == 'CrossEntropyLoss'
            if not plain or loss.get('use_sigmoid') or 'class_weight' in loss:
                continue
            kept = {name: loss[name] for name in ('loss_weight', 'loss_name') if name in loss}
            head['loss_decode'] = dict(type=LOSS, class_weight=weights, **kept)
            changed = True
    if changed:
        shown = [f'{name} {weight:g}' for name, weight in zip(maps.classes, weights)]
        more = f' and {len(shown) - 12} more' if len(shown) > 12 else ''
        print_log(f'weights of the classes, by their share of the pixels: {", ".join(shown[:12])}{more}', 'current')


def count_pixels(maps: Maps) -> list[int]:
    """Pixels of each class in some of the maps to train with."""
    pairs = maps.splits['train']
    counts = np.zeros(256, np.int64)
    for i in np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs))).round().astype(int):
        labels = label_counts(maps, maps.convert(pairs[i][1]) if maps.convert else grey(pairs[i][1]))
        for label, _, count in labels:
            counts[label] += count
    return counts[: len(maps.classes)].tolist()


def label_counts(maps: Maps, values: np.ndarray) -> list[tuple[int, int, int]]:
    """Of a class map as it lies in its file, uint8: each label, 255 where it is ignored, its value and its pixels."""
    found = []
    counts = np.bincount(values.ravel())  # a tenth of the time of np.unique
    for value, count in zip(np.flatnonzero(counts).tolist(), counts[counts > 0].tolist()):
        label = (value - 1 if value not in (0, 255) else 255) if maps.reduce_zero_label else value
        found.append(((maps.label_map or {}).get(label, label), value, count))
    return found


def class_weights(counts: list[int]) -> list[float]:
    """1 for the commonest class; of another the root of how many times as common that is, at most :data:`MOST`."""
    most = max(counts)
    return [round(min(math.sqrt(most / count), MOST), 2) if count else MOST for count in counts] if most else [1.0]
