"""Look into data before training: counts, doubtful files, and a sheet of annotated pictures."""

import argparse

from mmengine.config import DictAction

from nextvit_mm.training.check_data import check
from nextvit_mm.utils.command import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', metavar='CONFIG|DIR', help='a config, or a folder of data')
    parser.add_argument('--data-root', metavar='DIR', help="folder of the data, instead of the config's")
    parser.add_argument(
        '--out', metavar='FILE.png', help='the sheet of annotated pictures (default: work_dirs/check_data/<name>.png)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
    )
    run_command(check, parser)


if __name__ == '__main__':
    main()
