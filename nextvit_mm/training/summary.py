"""What a run is and what it left, in lines that a person reads."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner, find_latest_checkpoint

from ..utils.metainfo import leaf_datasets
from ..weights.models import unwrap_model

WIDTH = 100  # characters of a line, where a list may be cut
KINDS = ('.pth', '.py', '.log', '.json', '.pkl')  # of files that a run leaves
PICTURES = ('.jpg', '.png')  # that MM's hooks write


def describe_training(runner: Runner) -> list[tuple[str, str]]:
    """Title and text of what is about to be trained: read before the first iteration, weights loaded."""
    return [
        ('config', str(runner.cfg.filename)),
        ('model', _model(runner)),
        ('data', _data(runner, 'train', 'val')),
        ('classes', _classes(runner.train_dataloader.dataset)),
        ('weights', _weights(runner)),
        ('length', _length(runner)),
        ('rate', _rate(runner)),
        ('device', _device(runner)),
        *_published(runner.cfg),
        ('work dir', f'{runner.work_dir}; full log: {_log_file(runner)}'),
    ]


def describe_test(runner: Runner, weights: str) -> list[tuple[str, str]]:
    """Title and text of what is about to be tested."""
    return [
        ('config', str(runner.cfg.filename)),
        ('model', _model(runner)),
        ('weights', weights),
        ('data', _data(runner, 'test')),
        ('classes', _classes(runner.test_dataloader.dataset)),
        ('device', _device(runner)),
        ('work dir', f'{runner.work_dir}; full log: {_log_file(runner)}'),
    ]


def as_lines(rows: Iterable[tuple[str, str]]) -> str:
    return '\n'.join(f'{title:<9} {text}' for title, text in rows)


def as_table(metrics: Mapping[str, Any]) -> str:
    """Metrics as a small table: COCO's by box and mask, others a column each, or a line each where there are many."""
    # MMSegmentation's are NumPy's float32, which is no float of Python's.
    numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, Real)}
    if not numbers:
        return 'no metrics'
    grid: dict[str, dict[str, str]] = {}
    for key, value in numbers.items():
        row, column = _place(key)
        grid.setdefault(row, {})[column] = _number(value)
    columns = list(dict.fromkeys(column for row in grid.values() for column in row))
    if len(columns) > 8:
        width = max(map(len, numbers))
        return '\n'.join(f'  {key:<{width}} {_number(value):>8}' for key, value in numbers.items())
    first = max(map(len, grid))
    widths = [max(len(column), 6) + 2 for column in columns]
    lines = ['  ' + ' ' * first + ''.join(f'{name:>{width}}' for name, width in zip(columns, widths))]
    for name, values in grid.items():
        cells = ''.join(f'{values.get(column, ""):>{width}}' for column, width in zip(columns, widths))
        lines.append(f'  {name:<{first}}{cells}')
    return '\n'.join(lines)


def written_since(folder: str | Path, start: float, most: int = 8) -> list[str]:
    """Files of a run's folder that are no older than ``start`` (seconds since the epoch), the newest of a kind first.

    Returns:
        list[str]: Paths, at most ``most``, and how many more there are.
    """
    found = [
        path
        for pattern in ('*', '*/*')
        for path in Path(folder).glob(pattern)
        if path.suffix in KINDS and path.stat().st_mtime >= start
    ]
    found.sort(key=lambda path: (KINDS.index(path.suffix), -path.stat().st_mtime))
    lines = [f'{path} ({_size(path.stat().st_size)})' for path in found[:most]]
    return lines + ([f'and {len(found) - most} more in {folder}'] if len(found) > most else [])


def drawn_since(folder: str | Path, start: float) -> str:
    """A folder, and how many of its pictures are no older than ``start`` (seconds since the epoch)."""
    new = [path for path in Path(folder).rglob('*') if path.suffix in PICTURES and path.stat().st_mtime >= start]
    return f'{folder} ({_count(len(new), "picture")})'


def _place(key: str) -> tuple[str, str]:
    """Row and column of a metric: ``coco/bbox_mAP_50`` is column ``mAP_50`` of row ``bbox``."""
    name = key.rsplit('/', 1)[-1]
    kind, _, rest = name.partition('_')
    if kind in ('bbox', 'segm', 'proposal', 'keypoints') and rest:
        return kind, rest
    return '', key if key.startswith('ms/') else name


def _number(value: float) -> str:
    if value == -1:  # COCO's, where there is nothing of that size to be found
        return '-'
    return f'{value:.3f}' if abs(value) < 10 else f'{value:.2f}'


def _count(number: int, unit: str) -> str:
    return f'{number:,} {unit}' + ('s' if number != 1 else '')


def _size(count: int) -> str:
    return f'{count / 1e6:.1f} MB' if count >= 1e5 else f'{count / 1e3:.1f} kB'


def _data(runner: Runner, *splits: str) -> str:
    """Pictures of each split, and the folders that they lie in."""
    counts: list[str] = []
    roots: dict = {}
    for split in splits:
        loader = getattr(runner, f'{split}_dataloader', None)
        if not hasattr(loader, 'dataset'):
            continue
        counts.append(f'{_count(len(loader.dataset), "picture")} to {dict(val="evaluate").get(split, split)}')
        leaves = leaf_datasets((runner.cfg.get(f'{split}_dataloader') or {}).get('dataset') or {})
        roots.update({str(leaf['data_root']): None for leaf in leaves if leaf.get('data_root')})
    return ', '.join(counts) + (f', of {", ".join(roots)}' if roots else '')


def _classes(dataset: Any) -> str:
    names: Sequence[str] = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    if not names:
        return 'not named'
    return f'{len(names)}: ' + textwrap.shorten(', '.join(map(str, names)), WIDTH - 16, placeholder=' …')


def _model(runner: Runner) -> str:
    model = unwrap_model(runner.model)
    backbone = getattr(model, 'backbone', None)
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad or not only) for only in (False, True)]
    text = type(model).__name__ + (f' with {type(backbone).__name__}' if backbone is not None else '')
    if isinstance((runner.cfg.get('model', {}).get('backbone') or {}).get('arch'), str):
        text += f' {runner.cfg.model.backbone.arch}'
    if not counts[0]:
        return text
    return f'{text}, {counts[0] / 1e6:.1f} M parameters' + (
        f', {(counts[0] - counts[1]) / 1e6:.1f} M of them frozen' if counts[1] < counts[0] else ''
    )


def _weights(runner: Runner) -> str:
    cfg = runner.cfg
    if runner.iter > 0:
        source = runner._load_from or find_latest_checkpoint(runner.work_dir)
        return f'resumed from {source}, epoch {runner.epoch}, iteration {runner.iter:,}'
    if cfg.get('load_from'):
        return str(cfg.load_from)
    init = (cfg.get('model', {}).get('backbone') or {}).get('init_cfg') or []
    names = [item.get('checkpoint') for item in (init if isinstance(init, (list, tuple)) else [init])]
    return ', '.join(f'{name} for the backbone' for name in names if name) or 'random: none are loaded'


def _length(runner: Runner) -> str:
    loop, loader = runner.train_loop, runner.train_dataloader
    sampler = getattr(loader, 'batch_sampler', None)
    pictures = (getattr(sampler, 'batch_size', None) or getattr(loader, 'batch_size', None) or 1) * get_world_size()
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    length = f'{_count(runner.max_epochs, "epoch")} of {len(loader):,} iterations'
    text = f'{length if by_epoch else _count(runner.max_iters, "iteration")}, {_count(pictures, "picture")} each'
    if runner.val_loop is None:
        return f'{text}, never evaluated'
    every = _count(loop.val_interval, 'epoch' if by_epoch else 'iteration')
    return f'{text}, evaluated every {every.removeprefix("1 ")}'


def _rate(runner: Runner) -> str:
    wrapper = runner.optim_wrapper
    wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    texts = []
    for optimizer in (each.optimizer for each in wrappers):
        rates = [float(group.get('initial_lr', group['lr'])) for group in optimizer.param_groups]
        low, high = min(rates), max(rates)
        texts.append(f'{type(optimizer).__name__} {high:g}' + (f' (some parameters {low:g})' if low < high else ''))
    schedulers = runner.param_schedulers
    if isinstance(schedulers, dict):
        schedulers = [scheduler for group in schedulers.values() for scheduler in group]
    names = dict.fromkeys(type(scheduler).__name__ for scheduler in schedulers or ())
    return ', '.join(texts) + (f'; {", then ".join(names)}' if names else '; constant')


def _device(runner: Runner) -> str:
    parameter = next(runner.model.parameters(), None)
    kind = parameter.device.type if parameter is not None else 'cpu'
    if kind == 'cuda':
        import torch

        kind = torch.cuda.get_device_name(parameter.device)
    count = get_world_size()
    amp = 'Amp' in type(runner.optim_wrapper).__name__  # where nothing is trained, it is a config at most
    return (f'{count} × ' if count > 1 else '') + kind + (', mixed precision' if amp else '')


def _published(cfg: Config) -> list[tuple[str, str]]:
    runs = [hook['run'] for hook in cfg.get('custom_hooks') or [] if 'PublishedRunHook' in str(hook.get('type'))]
    return [('published', f'the log lays {runs[0]} beside this run')] if runs else []


def _log_file(runner: Runner) -> Path:
    return Path(runner.log_dir, f'{runner.timestamp}.log')
