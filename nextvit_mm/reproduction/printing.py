"""The result tables as text, Markdown or CSV."""

from collections.abc import Sequence
from typing import TextIO

from ..utils import tables as grid
from .results import TITLES
from .tables import CAPTIONS, METRICS, Row, Table

NOT_RUN = 'not run'


def table_cells(table: Table, every_column: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a table, as text; a misprint is marked with †."""
    metrics, rows = METRICS[table.number], table.rows
    extra = [c for c in rows[0].paper if c in ('tensorrt_ms', 'coreml_ms') or c.endswith(('50', '75'))]
    header = ['method', 'backbone']
    for name, unit in (('Params', 'M'), ('FLOPs', 'G')):
        header += [f'{name} ({unit}): paper', 'counted so', 'actual']
    for metric in metrics:
        header += [f'{TITLES[metric]}: paper', 'release', 'ours', 'Δ']
    if every_column:
        header += [f'paper: {name}' for name in extra]
    return header, [
        _cells(row, metrics) + ([row.paper.get(c, '') for c in extra] if every_column else []) for row in rows
    ]


def _cells(row: Row, metrics: Sequence[str]) -> list[str]:
    cells = [row.method, row.backbone + (', 6M' if row.weights.endswith('6M') else '')]
    count = row.complexity
    for column, unit in (('params', 1e6), ('flops', 1e9)):
        digits = 0 if column == 'flops' and row.method.split()[0] != 'ImageNet-1K' else 1
        counted = [getattr(count, f'published_{column}'), getattr(count, column)] if count else []
        cells += [_printed(row, 'paper', column)]
        cells += [f'{value / unit:.{digits}f}' for value in counted] or ['', '']
    for metric in metrics:
        cells += [_printed(row, source, metric) for source in ('paper', 'release')] + _own_cells(row, metric)
    return cells


def _own_cells(row: Row, metric: str) -> list[str]:
    """This project's value, and how far it is from the published one."""
    result, reference = row.result, row.reference(metric)
    value = result.metrics.get(metric) if result else None
    if not row.ours or (value is None and reference is None):
        return ['', '']
    if result is None or value is None:
        return [NOT_RUN, '']
    mark = '*' if result.remark else '‡' if metric in result.tested else ''
    return [f'{value:.1f}{mark}', '' if reference is None else f'{value - reference:+.1f}']


def _printed(row: Row, source: str, column: str) -> str:
    return getattr(row, source).get(column, '') + ('†' if (source, column) in row.misprints else '')


COUNTED = {  # what the paper's count is, and what Params and FLOPs "actual" are not
    4: 'counted so: all parameters (the paper cuts off their last digit); multiply-adds and the elements of norms '
    'twice; actual: multiply-adds alone',
    5: "counted so: trainable parameters, with an unused classifier; multiply-adds without attention's products, and "
    'the elements of norms, activations and poolings; actual: all parameters and all multiply-adds',
}
COUNTED[6] = COUNTED[5]


def footnotes(table: Table) -> list[str]:
    """What the marks mean, and where the runs lie."""
    notes = [
        f'† {row.method}, {row.backbone}, {column}: the {source} prints {e["printed"]} for {e["correct"]} ({e["why"]})'
        for row in table.rows
        for (source, column), e in row.misprints.items()
        if source == 'paper' or column in TITLES
    ]
    for row in table.rows:
        for i, result in enumerate(row.results):
            mark = '* ' if result.remark else '‡ ' if result.tested else ''
            what = [result.remark] if result.remark else []
            what += [f'{", ".join(TITLES[m] for m in result.tested)} by tools/test.py'] if result.tested else []
            what += [*result.notes, *(['not shown: there is another'] if i else [])]
            notes.append(
                f'{mark if not i else ""}{row.method}, {row.backbone}: {result.work_dir}'
                + (f' ({"; ".join(what)})' if what else '')
            )
    return (
        notes
        + table.problems
        + [
            COUNTED[table.number] + '; ours: runs of this project; Δ: ours less the release, or the paper where the '
            'release has none; 6M: from ImageNet-1K-6M weights.'
        ]
    )


def print_table(table: Table, style: str, file: TextIO) -> None:
    """Write a table as ``'text'``, ``'markdown'`` or ``'csv'`` (every column, and no footnotes)."""
    header, cells = table_cells(table, every_column=style == 'csv')
    grid.print_table(header, cells, style, file, CAPTIONS[table.number], footnotes(table), text_columns=2)
