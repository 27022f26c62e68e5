"""Print a table of the paper with this project's columns, and draw accuracy against latency."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from nextvit_mm.errors import UserError
from nextvit_mm.published import ABLATION_TABLES, TABLES
from nextvit_mm.reproduction import ablation
from nextvit_mm.reproduction.ablation_runs import add_results
from nextvit_mm.reproduction.ablation_table import print_rows
from nextvit_mm.reproduction.figures import draw_table
from nextvit_mm.reproduction.printing import print_table
from nextvit_mm.reproduction.tables import make_table
from nextvit_mm.utils.command import run_command


def reproduce(
    table: int, runs: list[str], style: str, baselines: bool, out: str | None, plot: str | None, latency: bool
) -> None:
    if table in ABLATION_TABLES:
        if plot:
            raise UserError(f'--plot is for tables {", ".join(map(str, TABLES))}')
        rows = ablation.load_rows(table)
        add_results(rows, runs)
        machine = ablation.measure_latencies(rows) if latency else None
        write(lambda file: print_rows(table, rows, style, file, machine), out)
        return
    if latency:
        raise UserError(
            f'--latency is for tables {", ".join(map(str, ABLATION_TABLES))}; for others see tools/benchmark.py'
        )
    made = make_table(table, runs, baselines)
    write(lambda file: print_table(made, style, file), out)
    if plot:
        draw_table(made, plot)
        print(f'picture: {plot}', file=sys.stderr)


def write(print_to: Callable[[TextIO], None], out: str | None) -> None:
    if not out:
        print_to(sys.stdout)
        return
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with open(out, 'w', newline='', encoding='utf-8') as file:
            print_to(file)
    except OSError as error:
        raise UserError(f'{out} cannot be written: {error.strerror}') from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--table',
        type=int,
        required=True,
        choices=sorted((*TABLES, *ABLATION_TABLES)),
        help='1: hybrid strategies, 2: N and L, 4: ImageNet, 5: ADE20K, 6: COCO, 7: convolution '
        'blocks, 8: mix ratio, 9: norm and activation',
    )
    parser.add_argument(
        '--runs',
        nargs='+',
        default=[],
        metavar='DIR',
        help='folders below which runs are looked for, such as work_dirs; for ablations those of tools/ablation.py',
    )
    parser.add_argument('--latency', action='store_true', help='measure the latency of every row of an ablation here')
    parser.add_argument('--format', dest='style', choices=('text', 'markdown', 'csv'), default='text')
    parser.add_argument('--no-baselines', dest='baselines', action='store_false', help='only the rows of Next-ViT')
    parser.add_argument('--out', metavar='FILE', help='write the table there instead of printing it')
    parser.add_argument('--plot', metavar='FILE.png', help="draw accuracy against latency, as the paper's Figure 1")
    run_command(reproduce, parser)


if __name__ == '__main__':
    main()
