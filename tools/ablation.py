"""Train the rows of the paper's ablations on the demo data, each as long; tools/reproduce.py prints the tables."""

import argparse

from mmengine.config import DictAction

from nextvit_mm.published import ABLATION_TABLES
from nextvit_mm.reproduction.ablation_runs import TASKS, train_rows
from nextvit_mm.utils.command import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        '--tables',
        nargs='+',
        type=int,
        choices=ABLATION_TABLES,
        default=list(ABLATION_TABLES),
        metavar='N',
        help=f'of {", ".join(map(str, ABLATION_TABLES))}; rows that two tables share are trained once',
    )
    parser.add_argument(
        '--configs',
        nargs='+',
        metavar='ROW',
        help='only these rows, by the names of their configs, such as table1_cccc',
    )
    parser.add_argument(
        '--tasks', nargs='+', choices=tuple(TASKS), default=list(TASKS), metavar='TASK', help=' or '.join(TASKS)
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], metavar='N', help='a run for each')
    parser.add_argument('--data-dir', default='data/digits', help='where the demo data are, or are made')
    parser.add_argument('--work-dir', default='work_dirs/ablation', help='where the runs go; finished ones are kept')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help="override settings of the demo's configs, for all rows alike",
    )
    run_command(train_rows, parser)


if __name__ == '__main__':
    main()
