"""The results as Markdown."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

COLUMNS = ('own', 'ours')
PLACE = re.compile(r'(/[\w.+-]+)+/')  # of a file, on the machine that ran it


def tables(rows: dict[str, Any]) -> Iterator[str]:
    """A summary, the runs, what is not run, and the operators that were called."""
    run = {kind: row for kind, row in rows.items() if all(column in row for column in COLUMNS)}
    yield from _summary(rows, run)
    yield ''
    yield from _runs(run)
    yield ''
    yield from _skipped(rows)
    yield ''
    yield from _operators(run)


def _summary(rows: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    """Of what passes with its own backbone, and of the rest."""
    yield '| | combinations | run | own passes | of these: Next-ViT-S passes | is refused | fails | own fails |'
    yield '|---|---|---|---|---|---|---|---|'
    for package in ('mmdet', 'mmseg', 'mmpretrain', ''):
        mine = [row for kind, row in run.items() if kind.startswith(package)]
        ours = Counter(row['ours']['outcome'] for row in mine if row['own']['outcome'] == 'passes')
        numbers = (
            sum(kind.startswith(package) for kind in rows),
            len(mine),
            ours.total(),
            ours['passes'],
            ours['refused'],
            ours['fails'],
            len(mine) - ours.total(),
        )
        yield f'| {package or "all"} | {" | ".join(map(str, numbers))} |'


def _runs(run: dict[str, Any]) -> Iterator[str]:
    yield '| model, neck, heads | config | own backbone | with Next-ViT-S |'
    yield '|---|---|---|---|'
    for kind, row in run.items():
        yield f'| {kind} | `{row["config"].split("::")[1]}` | {_cell(row["own"])} | {_cell(row["ours"])} |'


def _cell(result: dict[str, Any]) -> str:
    if result['outcome'] == 'passes':
        return f'{result["train"]:.1f} + {result["test"]:.1f} s, {result["megabytes"]} MB'
    reason = ' '.join(PLACE.sub('', result['reason']).replace('|', '/').split())
    return f'{result["outcome"]}: {reason}'


def _skipped(rows: dict[str, Any]) -> Iterator[str]:
    yield '| not run | combinations |'
    yield '|---|---|'
    for reason, count in Counter(row['skipped'] for row in rows.values() if 'skipped' in row).most_common():
        yield f'| {reason} | {count} |'


def _operators(run: dict[str, Any]) -> Iterator[str]:
    yield '| operators of mmcv | combinations that call them |'
    yield '|---|---|'
    passed = (row['own'] for row in run.values() if row['own']['outcome'] == 'passes')
    for names, count in Counter(tuple(row['operators']) for row in passed).most_common():
        yield f'| {", ".join(names) or "none"} | {count} |'
