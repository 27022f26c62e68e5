"""Upstream's models with their own backbone and with Next-ViT-S: a training step and a test step each.

One config of each combination of model class, neck and heads in MMDetection, MMSegmentation and MMPretrain, without
pretrained weights, on two random pictures of 128 by 128 pixels. ``python -m benchmarks.sweep work_dirs/sweep.json``
goes on where it was stopped, and prints the tables at the end.
"""

import argparse
from pathlib import Path

import torch

import nextvit_mm  # noqa: F401, I001  (before MMDetection: mmcv's operators)
from nextvit_mm.ops import in_use

from .runs import sweep
from .tables import tables


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.sweep', description=__doc__.splitlines()[0])
    parser.add_argument('json', type=Path, help='where the results are kept')
    parser.add_argument('--only', default='', metavar='WORD', help='only combinations and configs with this in them')
    parser.add_argument('--again', choices=('fails', 'refused'), default='', help='run these again')
    parser.add_argument('--table', action='store_true', help='run nothing')
    args = parser.parse_args()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = sweep(args.json, '\0' if args.table else args.only, args.again)
    print(f'operators: {"torchvision and torch" if in_use() else "mmcv, compiled"}; torch {torch.__version__}')
    print('\n'.join(tables(rows)))


if __name__ == '__main__':
    main()
