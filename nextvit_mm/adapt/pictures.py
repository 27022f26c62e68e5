"""Pictures as the published weights expect them."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

# RGB, of ImageNet; every published classifier was trained so, and a custom one of our configs too.
PIXELS: dict[str, list[float]] = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
FLAGS = ('bgr_to_rgb', 'to_rgb')  # MMDetection and MMSegmentation; MMPretrain


def set_pixels(cfg: Config, holder: ConfigDict, pretrained: bool, said: list[str]) -> None:
    """Set mean, deviation and the order of channels of every preprocessor of the config to those of the weights.

    Without weights, and where pictures have not three channels, they stay as they are.
    """
    if not pretrained:
        return
    if holder.backbone.get('in_channels', 3) != 3:
        said.append('the preprocessor stays: the published mean and deviation are for three channels')
        return
    steps = list(_normalizing_steps(cfg._cfg_dict))
    if steps:  # the preprocessor would do it a second time
        for step in steps:
            step.update(PIXELS, to_rgb=True)
        said.append(f'Normalize of the pipelines: RGB, mean {PIXELS["mean"]}, std {PIXELS["std"]}')
        return
    changed = [name for name, one in preprocessors(cfg) if _set(cfg, one)]
    if changed:
        said.append(f'{", ".join(changed)}: RGB, mean {PIXELS["mean"]}, std {PIXELS["std"]}, as the weights expect')


def preprocessors(cfg: Config) -> Iterator[tuple[str, ConfigDict]]:
    """Those of the model and of the config, and below those that wrap others."""
    places = [('data_preprocessor', cfg), ('model.data_preprocessor', cfg.get('model') or {})]
    places.append(('model.detector.data_preprocessor', (cfg.get('model') or {}).get('detector') or {}))
    for name, node in places:
        one = node.get('data_preprocessor')
        while one:
            inner = one.get('data_preprocessor')
            if inner is None:
                yield name, one
            name, one = f'{name}.data_preprocessor', inner


def _normalizing_steps(node: Any) -> Iterator[ConfigDict]:
    """Every ``Normalize`` step below a node of a config."""
    if isinstance(node, dict) and 'mean' in node:
        kind = node.get('type')
        if (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).split('.')[-1] == 'Normalize':
            yield node
    elif isinstance(node, (dict, list, tuple)):
        for one in node.values() if isinstance(node, dict) else node:
            yield from _normalizing_steps(one)


def _set(cfg: Config, one: ConfigDict) -> bool:
    """Whether it had to be changed."""
    kind = one.get('type') or ''
    kind = kind if isinstance(kind, str) else kind.__name__
    classifier = cfg.get('default_scope') == 'mmpretrain' or 'to_rgb' in one or 'Cls' in kind
    flag = FLAGS[1] if classifier else FLAGS[0]
    wanted = {**PIXELS, flag: True}
    if all(one.get(key) is not None and _same(one[key], value) for key, value in wanted.items()):
        return False
    one.pop('rgb_to_bgr', None)
    one.update(wanted)
    return True


def _same(found, wanted) -> bool:
    return list(found) == list(wanted) if isinstance(wanted, list) else found == wanted
