"""What was published, as data: the paper's tables, the authors' README, and the curves of their training runs."""
import csv
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ..errors import UserError

DATA = Path(__file__).parent / 'data'
TABLES = (4, 5, 6)
# Under which name MMEngine logs a published metric, and in how many of its units one published unit comes.
METRICS: Dict[str, Tuple[str, float]] = {
    **{f'{kind}_mAP{suffix}': (f'coco/{kind}_mAP{suffix}', 1.0)
       for kind in ('bbox', 'segm') for suffix in ('', '_50', '_75', '_s', '_m', '_l')},
    **{name: (name, 100.0) for name in ('mIoU', 'mAcc', 'aAcc')}
}


@dataclass(frozen=True)
class PublishedRun:
    """One of the authors' training runs on 8 GPUs.

    Attributes:
        name: Its name, such as ``'mask_rcnn_1x_nextvit_small'``.
        length, unit: How long it was, in ``'epochs'`` or ``'iters'``.
        batch_size: Images of one iteration, over all GPUs.
        train_images: Images of the training set that can be drawn.
        train: Of every 500 iterations: ``iter`` (counted from 1), ``lr`` at it, and means of losses, accuracies,
            ``time`` (s) and ``memory`` (MB) over the iterations up to it. None where the log had none. For a
            classifier: the same of every ``epoch``, with ``acc1`` and ``acc5`` (%).
        val: Every evaluation: ``iter`` and metrics under the names and in the units in which MMEngine logs them.
    """
    name: str
    length: int
    unit: str
    batch_size: int
    train_images: int
    train: List[Dict[str, Optional[float]]]
    val: List[Dict[str, Optional[float]]]

    WINDOW = 500  # iterations of a mean

    @property
    def epoch_length(self) -> int:
        """Iterations of an epoch."""
        return -(-self.train_images // self.batch_size)

    @property
    def max_iters(self) -> int:
        """Iterations of the run."""
        return self.length * (self.epoch_length if self.unit == 'epochs' else 1)


def list_runs() -> List[str]:
    """Names of the published runs."""
    return sorted(path.stem for path in (DATA / 'runs').glob('*.json'))


@lru_cache(maxsize=None)
def load_run(name: str) -> PublishedRun:
    """A published run by name.

    Raises:
        UserError: There is none of that name.
    """
    path = DATA / 'runs' / f'{name}.json'
    if name not in list_runs():
        raise UserError(f'{name!r} is not a published run; there are:\n  ' + '\n  '.join(list_runs()))
    data = json.loads(path.read_text())
    run = dict(name=name, **{key: data[key] for key in ('length', 'unit', 'batch_size', 'train_images')})
    if 'epochs' in data:
        return PublishedRun(**run, train=_records(data['epochs']), val=[])
    published = PublishedRun(**run, train=_records(data['train']), val=[])
    for record in _records(data['val']):
        iteration = record.get('iter') or record['epoch'] * published.epoch_length
        published.val.append(dict(iter=iteration, **{
            METRICS[key][0]: None if value is None else value * METRICS[key][1]
            for key, value in record.items() if key in METRICS}))
    return published


def load_table(number: int) -> List[Dict[str, str]]:
    """The rows of Table 4, 5 or 6 as printed, misprints included (see :func:`load_errata`).

    Keys: ``method`` (task or head with its schedule), ``backbone``, ``params`` (M), ``flops`` (G multiply-adds),
    ``tensorrt_ms`` and ``coreml_ms`` (of the backbone), and the metrics in %: ``top1``; ``miou``, ``miou_ms``
    (multi-scale); ``box_ap``, ``box_ap50``, ``box_ap75``, ``mask_ap``, ``mask_ap50``, ``mask_ap75``. Values are the
    printed text; what was not printed is ``''``.

    Raises:
        UserError: It is another table.
    """
    if number not in TABLES:
        raise UserError(f'table {number} is not here; there are {", ".join(map(str, TABLES))}')
    return _read_csv(f'table{number}.csv')


def load_release() -> List[Dict[str, str]]:
    """The result tables of the authors' README, with the keys of :func:`load_table` and ``weights``."""
    return _read_csv('release.csv')


def load_errata() -> List[Dict[str, str]]:
    """Misprints: ``source`` (``table5`` …), ``method``, ``backbone``, ``column``, ``printed``, ``correct``, ``why``."""
    return _read_csv('errata.csv')


def _records(columns: Dict[str, list]) -> List[dict]:
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _read_csv(name: str) -> List[Dict[str, str]]:
    with open(DATA / name, newline='') as file:
        return list(csv.DictReader(file))
