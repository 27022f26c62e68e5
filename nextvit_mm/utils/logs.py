"""Reading what MMEngine logged of a run."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import MMLogger

from ..errors import UserError


def read_scalars(work_dir: str | Path) -> tuple[list[dict], list[dict]]:
    """The logged training and validation records of a run, resumed parts included, in the order of steps.

    A run that is still being written may end in the middle of a line; that line is left out.

    Returns:
        tuple[list[dict], list[dict]]: Records with ``loss`` (and ``iter``), and records of metrics (and ``step``).

    Raises:
        UserError: The folder holds no log, or a damaged one.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise UserError(f'{work_dir} holds no log of a run (*/vis_data/scalars.json)')
    train: dict[int, dict] = {}
    val: dict[int, dict] = {}
    for file in files:  # sorted by time of start
        records = [_without_published(record) for record in read_lines(file)]
        steps = [record for record in records if 'loss' in record]
        metrics = [record for record in records if 'loss' not in record and set(record) - {'step'}]
        # What a resumed run did again, or a run from the start does anew, replaces what was done before.
        for done, new, key in ((train, steps, 'iter'), (val, metrics, 'step')):
            first = min((record[key] for record in new), default=0)
            for step in [step for step in done if step >= first and new]:
                del done[step]
            done.update({record[key]: record for record in new})
    return [train[i] for i in sorted(train)], [val[i] for i in sorted(val)]


@contextlib.contextmanager
def quiet_log() -> Iterator[None]:
    """Without MMEngine's lines of level info."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def read_lines(file: Path) -> list[dict]:
    """The records of one ``scalars.json``, without a last line that is not whole yet.

    Raises:
        UserError: Another line is damaged.
    """
    lines = file.read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError('not a record')
            records.append(record)
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
            if number < len(lines):
                raise UserError(f'{file}, line {number}, is damaged: {error}') from None
    return records


def _without_published(record: dict) -> dict:
    """The record without what the hook of published runs logs beside the run's own values."""
    return {key: value for key, value in record.items() if not key.startswith('published/')}
