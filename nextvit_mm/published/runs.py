"""What was published, as data: the paper's tables, the authors' README, and the curves of their training runs."""

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UserError

DATA = Path(__file__).parent / 'data'
TABLES = (4, 5, 6)
ABLATION_TABLES = (1, 2, 7, 8, 9)
# Under which name MMEngine logs a published metric, and in how many of its units one published unit comes.
METRICS: dict[str, tuple[str, float]] = {
    **{
        f'{kind}_mAP{suffix}': (f'coco/{kind}_mAP{suffix}', 1.0)
        for kind in ('bbox', 'segm')
        for suffix in ('', '_50', '_75', '_s', '_m', '_l')
    },
    **{name: (name, 100.0) for name in ('mIoU', 'mAcc', 'aAcc')},
    'acc1': ('accuracy/top1', 1.0),
    'acc5': ('accuracy/top5', 1.0),
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
            ``time`` (s) and ``memory`` (MB) over the iterations up to it. None where the log had none.
        val: Every evaluation: ``iter`` and metrics under the names and in the units in which MMEngine logs them.
    """

    name: str
    length: int
    unit: str
    batch_size: int
    train_images: int
    train: list[dict[str, Any]]
    val: list[dict[str, Any]]

    @property
    def window(self) -> int:
        """Iterations of a mean."""
        return 500

    @property
    def epoch_length(self) -> int:
        """Iterations of an epoch."""
        return -(-self.train_images // self.batch_size)

    @property
    def max_iters(self) -> int:
        """Iterations of the run."""
        return self.length * (self.epoch_length if self.unit == 'epochs' else 1)

    def scale_of(self, images_per_iter: int, max_iters: int) -> float:
        """Iterations that see as many images as one of this run, in a run of ``max_iters`` that sees as many in all."""
        return self.batch_size / images_per_iter

    def rate_iteration(self, record: dict[str, Any]) -> int:
        """An iteration, counted from 1, that was done with the rate of a record of ``train``."""
        return record['iter']


@dataclass(frozen=True)
class PublishedEpochs(PublishedRun):
    """A classifier's run, of which each epoch was logged: its rate, the mean of its loss, and an evaluation after it.

    ``train`` holds of every ``epoch`` (from 0) what its log had, with ``acc1`` and ``acc5`` in %, and ``iter``, its
    last iteration. What does not fill a batch at the end of an epoch was left out.
    """

    @property
    def epoch_length(self) -> int:
        return self.train_images // self.batch_size

    @property
    def window(self) -> int:
        """Iterations of a mean: an epoch's."""
        return self.epoch_length

    def scale_of(self, images_per_iter: int, max_iters: int) -> float:
        """Epochs are laid on epochs, which are whole numbers of iterations in both runs."""
        return max_iters / self.max_iters

    def rate_iteration(self, record: dict[str, Any]) -> int:
        return record['iter'] - self.epoch_length + 1


def list_runs() -> list[str]:
    """Names of the published runs."""
    return sorted(path.stem for path in (DATA / 'runs').glob('*.json'))


@cache
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
        return _load_epochs(run, _records(data['epochs']))
    published = PublishedRun(**run, train=_records(data['train']), val=[])
    for record in _records(data['val']):
        iteration = record.get('iter') or record['epoch'] * published.epoch_length
        published.val.append(dict(iter=iteration, **_metrics(record)))
    return published


def load_table(number: int) -> list[dict[str, str]]:
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


def load_ablation(number: int) -> list[dict[str, str]]:
    """The rows of Table 1, 2, 7, 8 or 9: ``row``, ``config`` (its name in ``configs/ablation``, or ``''``), and as
    printed ``tensorrt_ms``, ``top1``, ``box_ap``, ``miou``; ``''`` where that was not legible.

    Raises:
        UserError: It is another table.
    """
    if number not in ABLATION_TABLES:
        raise UserError(f'table {number} has no ablations; there are {", ".join(map(str, ABLATION_TABLES))}')
    return [row for row in _read_csv('ablation.csv') if row['table'] == str(number)]


def load_release() -> list[dict[str, str]]:
    """The result tables of the authors' README, with the keys of :func:`load_table` and ``weights``."""
    return _read_csv('release.csv')


def load_errata() -> list[dict[str, str]]:
    """Misprints: ``source`` (``table5`` …), ``method``, ``backbone``, ``column``, ``printed``, ``correct``, ``why``."""
    return _read_csv('errata.csv')


def _load_epochs(run: dict, records: list[dict]) -> PublishedEpochs:
    ends = [sum(record['iters'] for record in records[: i + 1]) for i in range(len(records))]
    return PublishedEpochs(
        **run,
        train=[dict(record, iter=end) for record, end in zip(records, ends)],
        val=[dict(iter=end, **_metrics(record)) for record, end in zip(records, ends)],
    )


def _metrics(record: dict[str, float | None]) -> dict[str, float | None]:
    return {
        METRICS[key][0]: None if value is None else value * METRICS[key][1]
        for key, value in record.items()
        if key in METRICS
    }


def _records(columns: dict[str, list]) -> list[dict]:
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _read_csv(name: str) -> list[dict[str, str]]:
    with open(DATA / name, newline='') as file:
        return list(csv.DictReader(file))
