"""What a run needs, looked for before anything is built."""

import os
from collections.abc import Iterator, Sequence

from mmengine.config import Config

from ..errors import UserError
from ..utils.metainfo import leaf_datasets
from ..weights.checkpoint import split_name
from ..weights.fetch import fetch_from_hub, locate_weights, parse_hub_name
from ..weights.zoo import ZOO

FETCHED = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')  # of MMPretrain, which download what is missing


def check_keys(cfg: Config, *names: str) -> None:
    """See that a config has what a tool cannot do without.

    Raises:
        UserError: It lacks something, perhaps because it is of MMDetection 2 and its kin.
    """
    missing = [name for name in names if not cfg.get(name)]
    if missing:
        old = '; it is of MMDetection 2 or the like, which name the keys otherwise' if 'data' in cfg else ''
        raise UserError(f'{cfg.filename} has no {" and no ".join(missing)}{old}')


def check_numbers(cfg: Config) -> None:
    """See that numbers by which others are divided are whole and at least 1.

    Raises:
        UserError: One is not.
    """
    counts = [(f'{split}_dataloader', 'batch_size') for split in ('train', 'val', 'test')]
    counts += [('train_cfg', name) for name in ('max_epochs', 'max_iters', 'val_interval')]
    for key, name in counts:
        value = (cfg.get(key) or {}).get(name, 1)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UserError(f'{cfg.filename}: {key}.{name}={value!r} must be a whole number, and at least 1')


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """See that the files and folders of the datasets and evaluators of ``splits`` exist.

    Args:
        cfg: The config that will run.
        splits: Of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: Something is missing; the message shows the whole layout and what of it is there.
    """
    roots: list[str] = []
    needed: list[str] = []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for dataset in leaf_datasets(loader['dataset']) if 'dataset' in loader else ():
            if dataset.get('backend_args') or _fetches_itself(dataset):  # not on this disk, or not yet
                continue
            root, paths = _needs(dataset)
            roots += [root] if root and root not in roots else []
            needed += [path for path in paths if path not in needed]
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            path = evaluator.get('ann_file')
            if path and not evaluator.get('backend_args') and path not in needed:
                needed.append(path)
    if all(os.path.exists(path) for path in roots + needed):
        return
    raise UserError(
        '\n'.join(
            [
                f'the data for {cfg.filename} is not complete:',
                *_tree(roots, needed),
                'Give the folder that holds it with --data-root DIR'
                + (
                    f', or link it:  ln -s DIR {roots[0].rstrip("/")}'
                    if len(roots) == 1 and not os.path.isabs(roots[0]) and not os.path.exists(roots[0])
                    else ''
                ),
            ]
        )
    )


def check_checkpoint(path: str) -> None:
    """See that a checkpoint given as a local path exists (names with a scheme are left to their loaders).

    Raises:
        UserError: It does not.
    """
    path = split_name(path)[0]
    if path.startswith('hf-hub:'):
        parse_hub_name(path)
    elif path not in ZOO and '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        is_folder = os.path.isdir(os.path.expanduser(path))
        raise UserError(f'checkpoint not found: {path}' + ' is a folder: name a file of it' * is_folder)


def check_pretrained(cfg: Config) -> None:
    """See that the weights that the backbone or the model starts from are there; published ones are fetched now.

    Raises:
        UserError: They are not, or cannot be fetched.
    """
    init_cfg = cfg.get('model', {}).get('backbone', {}).get('init_cfg') or []
    names = [init.get('checkpoint') or '' for init in (init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg])]
    for name in map(lambda given: split_name(given)[0], [*names, cfg.get('load_from') or '']):
        if name in ZOO:
            locate_weights(name)
        elif name.startswith('hf-hub:'):
            fetch_from_hub(*parse_hub_name(name))
        elif name:
            check_checkpoint(name)


def _fetches_itself(dataset: dict) -> bool:
    kind = dataset.get('type')
    name = getattr(kind, '__name__', str(kind)).split('.')[-1]
    return name in FETCHED and dataset.get('download', True)


def _needs(dataset: dict) -> tuple[str, list[str]]:
    """The root of one dataset, and the paths below it that it reads; the last character of a folder is ``/``."""
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, str):
        prefix = dict(img=prefix)
    if not prefix and dataset['type'] in ('ImageNet', 'ImageNet21k') and dataset.get('split'):
        prefix = dict(img=dataset['split'])
    paths = [dataset['ann_file']] if dataset.get('ann_file') else []
    paths += [os.path.join(folder, '') for folder in prefix.values() if folder]
    return root, [os.path.join(root, path) for path in paths]


def _tree(roots: list[str], needed: list[str]) -> Iterator[str]:
    rest = list(needed)
    for root in roots:
        below = [path for path in rest if path.startswith(os.path.join(root, ''))]
        rest = [path for path in rest if path not in below]
        yield _line(root, os.path.join(root, ''))
        for path in below:
            yield _line(path, ('└── ' if path == below[-1] else '├── ') + path[len(os.path.join(root, '')) :])
    for path in rest:
        yield _line(path, path)


def _line(path: str, text: str) -> str:
    return f'  {text:<56} {"found" if os.path.exists(path) else "MISSING"}'
