"""Make a small data set, train a detector, segmentor or classifier on it, evaluate it and draw its predictions."""

import argparse

from mmengine.config import DictAction

from nextvit_mm.demo.demo import run_demo
from nextvit_mm.utils.command import VERBOSE, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('config', help='a config on the demo data')
    parser.add_argument('--data-dir', default='data/digits', help='where the data are, or are made')
    parser.add_argument('--work-dir', default='work_dirs/demo', help='where checkpoint, log and pictures go')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
    )
    parser.add_argument('--verbose', action='store_true', help=VERBOSE)
    run_command(run_demo, parser)


if __name__ == '__main__':
    main()
