"""Tables 1, 2, 7, 8 and 9 as text, Markdown or CSV."""

import statistics
from collections.abc import Sequence
from typing import Any, TextIO

from ..utils.tables import print_table
from .ablation import AblationRow
from .ablation_runs import TASKS

CAPTIONS = {
    1: 'Table 1: hybrid strategies',
    2: 'Table 2: N and L of stage 3',
    7: 'Table 7: convolution blocks',
    8: 'Table 8: mix ratio r',
    9: 'Table 9: norm and activation',
}
NOT_LEGIBLE = (2, 9)
_WITHIN = 'rows have multiply-adds within 6 % of those of Next-ViT-S (the paper: about its TensorRT latency)'
_DEPTHS = 'all rows have the depths of Next-ViT-S'
MATCHED = {1: _WITHIN, 2: 'all but stage 3 is that of Next-ViT-S', 7: _WITHIN, 8: _DEPTHS, 9: _DEPTHS}


def table_cells(rows: Sequence[AblationRow]) -> tuple[list[str], list[list[str]]]:
    """Header and cells, as text."""
    header = [
        'row',
        'Params (M)',
        'FLOPs (G)',
        'latency (ms): paper',
        'ours',
        'to S',
        'top-1: paper',
        'box AP: paper',
        'demo',
        'mIoU: paper',
        'demo',
    ]
    cells = []
    for row in rows:
        count = row.complexity
        cells.append(
            [
                row.name,
                f'{count.params / 1e6:.1f}' if count else '',
                f'{count.flops / 1e9:.2f}' if count else '',
                row.paper['tensorrt_ms'],
                f'{row.latency * 1e3:.0f}' if row.latency else '',
                f'{row.ratio:.2f}×' if row.ratio else '',
                row.paper['top1'],
                row.paper['box_ap'],
                _demo(row, 'detection'),
                row.paper['miou'],
                _demo(row, 'segmentation'),
            ]
        )
    return header, cells


def print_rows(
    number: int, rows: Sequence[AblationRow], style: str, file: TextIO, machine: dict[str, Any] | None = None
) -> None:
    """Write the table as :func:`nextvit_mm.utils.tables.print_table` does."""
    header, cells = table_cells(rows)
    print_table(header, cells, style, file, CAPTIONS[number], footnotes(number, rows, machine))


def _demo(row: AblationRow, task: str) -> str:
    values = [result['metric'] for result in row.results.get(task, [])]
    if not row.config:
        return ''
    if not values:
        return 'not run'
    spread = f' ±{statistics.stdev(values):.1f} ({len(values)})' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def footnotes(number: int, rows: Sequence[AblationRow], machine: dict[str, Any] | None = None) -> list[str]:
    """What the columns mean, and how long the runs took."""
    notes = [
        'Params and FLOPs: of the classifier at 224×224, all multiply-adds; the paper does not print the '
        f'depths of its rows; here {MATCHED[number]}'
    ]
    if number in NOT_LEGIBLE:
        notes.append(
            f'the figures that Table {number} prints were not legible in the copy of the paper that this '
            'project had, and are left out'
        )
    if machine:
        notes.append(
            f'latency: backbone, folded, channels-last, fp32, 8×3×224×224 on {machine["cpu"]}, '
            f'{machine["torch_threads"]} threads, {machine["date"]}; to S: over that of Next-ViT-S in the '
            'same rounds; paper: TensorRT on a T4'
        )
    for task in TASKS:
        results = [result for row in rows for result in row.results.get(task, [])]
        if results:
            seeds = sorted({result['seed'] for result in results})
            longest = max(result['seconds'] for result in results) / 60
            notes.append(
                f'demo, {task}: {results[0]["iterations"]} iterations of {results[0]["batch_size"]} digit '
                f'pictures from random weights, at most {longest:.1f} min a run; '
                + (
                    f'mean ± standard deviation (runs) over seeds {", ".join(map(str, seeds))}'
                    if len(seeds) > 1
                    else 'one seed, so that small differences say nothing'
                )
            )
    return notes
