"""What tells the config of a checkpoint from the one that would go on with it."""

import ast
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

NOT_TOLD = ('init_cfg', 'pretrained', 'with_cp', 'test_cfg')  # of a model: does not change what goes on
FROZEN = ('frozen_stages', 'norm_eval', 'requires_grad')
LOADING = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'disable_subprocess_warning')
PRECISION = ('optim_wrapper.type', 'optim_wrapper.dtype', 'optim_wrapper.loss_scale')
DEFAULTS = dict(frozen_stages=-1, norm_eval=False, requires_grad=True)
SCHEDULE, PLACE = 'schedule', 'place of the data'
SAID_ONLY = (SCHEDULE, PLACE)  # kinds of changes that a run may go on with
MISSING = '(not set)'


class Change(NamedTuple):
    """One setting: what it belongs to, its dotted key, and its two values."""

    kind: str
    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f'{self.kind}: {self.key} {_short(self.old)} → {_short(self.new)}'


def read_config_text(text: str) -> dict[str, Any]:
    """The variables of a config as MMEngine writes them into checkpoints; nothing in the text is run.

    What is no plain value is kept as its text.
    """
    try:
        lines = ast.parse(text).body
    except SyntaxError:
        return {}
    return {
        line.targets[0].id: _value(line.value)
        for line in lines
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def find_changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """The settings that differ and that matter for going on: network, frozen parts, data, classes, precision, …

    Args:
        old, new: Variables of two configs, as of :func:`read_config_text`.
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changes = []
    for key in dict.fromkeys([*before, *after]):
        kind = kind_of(key)
        default = DEFAULTS.get(key.rsplit('.', 1)[-1])
        values = before.get(key, default), after.get(key, default)
        if kind and values[0] != values[1]:
            changes.append(Change(kind, key, *(MISSING if value is None else value for value in values)))
    return changes


def kind_of(key: str) -> str | None:
    """What a setting is part of, by its dotted key; None: of nothing that training depends on."""
    parts = key.split('.')
    top, last = parts[0], parts[-1]
    if top in ('model', 'data_preprocessor'):
        if any(part in NOT_TOLD for part in parts):
            return None
        return 'frozen parts' if last in FROZEN else 'classes' if last == 'num_classes' else 'network'
    if top == 'train_dataloader':
        if parts[1] in LOADING:
            return None
        return PLACE if last == 'data_root' else 'classes' if 'metainfo' in parts else 'data'
    if top == 'optim_wrapper' and last not in ('fused', 'foreach'):  # the same sums in another order
        return 'precision' if key in PRECISION else 'optimizer'
    if top == 'param_scheduler' or key in ('train_cfg.max_epochs', 'train_cfg.max_iters'):
        return SCHEDULE
    return 'optimizer' if key == 'auto_scale_lr.enable' else None


def _leaves(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f'{path}.{key}' if path else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (dict, list, tuple)) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f'{path}.{i}')
    elif isinstance(value, str) and path.rsplit('.', 1)[-1] == 'type':
        name = value.rsplit('.', 1)[-1]  # without scope or module
        yield path, 'BN' if name in ('SyncBN', 'SyncBatchNorm', 'BN2d') else name
    else:
        yield path, list(value) if isinstance(value, tuple) else value  # configs mix lists and tuples


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        of_args = {key: value for arg in node.args for key, value in _value(arg).items()}
        return {**of_args, **{word.arg: _value(word.value) for word in node.keywords if word.arg}}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return math.inf if node.id == 'inf' else 'nan'
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + '…'
