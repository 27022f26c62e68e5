"""Lay a run, finished or going on, beside the authors' run that it reproduces: a table and a picture."""

import argparse

from nextvit_mm.reproduction.report import compare_run
from nextvit_mm.utils.command import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', metavar='WORK_DIR', help='work dir of the run')
    parser.add_argument('--run', metavar='NAME', help='the published run (default: the one of the config)')
    parser.add_argument(
        '--scale',
        type=float,
        metavar='X',
        help='iterations of the run for each published one (default: found out by the hook while training, or 1)',
    )
    parser.add_argument('--out', metavar='FILE.png', help='the picture (default: WORK_DIR/published_run.png)')
    run_command(compare_run, parser)


if __name__ == '__main__':
    main()
