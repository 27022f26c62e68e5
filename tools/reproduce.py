"""Print a result table of the paper with this project's columns, and draw accuracy against latency."""
import argparse
import sys
from pathlib import Path
from typing import List, Optional

from nextvit_mm.engine import run_command
from nextvit_mm.errors import UserError
from nextvit_mm.reproduction.tables import draw_table, make_table, print_table


def reproduce(table: int, runs: List[str], style: str, baselines: bool, out: Optional[str],
              plot: Optional[str]) -> None:
    made = make_table(table, runs, baselines)
    if out:
        try:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            with open(out, 'w', newline='', encoding='utf-8') as file:
                print_table(made, style, file)
        except OSError as error:
            raise UserError(f'{out} cannot be written: {error.strerror}') from None
    else:
        print_table(made, style, sys.stdout)
    if plot:
        draw_table(made, plot)
        print(f'picture: {plot}', file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--table', type=int, required=True, choices=(4, 5, 6), help='4: ImageNet, 5: ADE20K, 6: COCO')
    parser.add_argument('--runs', nargs='+', default=[], metavar='DIR', help='folders below which runs are looked '
                        'for, such as work_dirs')
    parser.add_argument('--format', dest='style', choices=('text', 'markdown', 'csv'), default='text')
    parser.add_argument('--no-baselines', dest='baselines', action='store_false', help='only the rows of Next-ViT')
    parser.add_argument('--out', metavar='FILE', help='write the table there instead of printing it')
    parser.add_argument('--plot', metavar='FILE.png', help='draw accuracy against latency, as the paper\'s Figure 1')
    run_command(reproduce, parser)


if __name__ == '__main__':
    main()
