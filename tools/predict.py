"""Run a trained or exported model on pictures, folders, patterns and videos."""

import argparse

from nextvit_mm.inference.command import predict
from nextvit_mm.utils.command import run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage='%(prog)s MODEL [CHECKPOINT] PICTURE [PICTURE ...] [--out DIR] [--json FILE] [--score-thr X]',
    )
    parser.add_argument(
        'model',
        metavar='MODEL',
        help='config or its name (mask_rcnn_nextvit_s_1x), work dir, checkpoint with its config inside, '
        'or exported file (.onnx, .xml)',
    )
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='[CHECKPOINT] PICTURE',
        help='weights, where MODEL does not hold them; then pictures, folders, patterns and videos',
    )
    parser.add_argument('--out', metavar='DIR', help='folder for drawn pictures and class maps (default: predictions)')
    parser.add_argument('--json', metavar='FILE', help="write the results in COCO's format")
    parser.add_argument(
        '--score-thr', type=float, default=0.3, metavar='X', help='least score of a detection (default: 0.3)'
    )
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: a GPU where there is one)')
    run_command(predict, parser)


if __name__ == '__main__':
    main()
