"""Train a detector, segmentor or classifier from a config."""

import argparse

from nextvit_mm.training.launch import train
from nextvit_mm.utils.command import add_backbone_argument, add_common_arguments, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, such as configs/detection/mask_rcnn_nextvit_s_1x.py')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='go on from CKPT, or from the latest checkpoint of the work dir, with the flags of the start',
    )
    parser.add_argument(
        '--allow-changes', action='store_true', help='--resume with another network, data, classes, precision and so on'
    )
    parser.add_argument(
        '--no-pretrained', action='store_true', help='train from scratch: no pretrained weights, nothing frozen'
    )
    add_backbone_argument(parser)
    parser.add_argument(
        '--recipe', choices=('published',), help='with --backbone: optimizer, rate and freezing of the published runs'
    )
    parser.add_argument('--dry-run', action='store_true', help='print what --backbone changes, and train nothing')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='automatic mixed precision: on a GPU, or in bfloat16 on a CPU with units for it',
    )
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the rate with the batch size')
    own = parser.add_argument_group('your own data')
    own.add_argument(
        '--own-classes',
        action='store_true',
        help='take classes and splits from the folder of --data-root: COCO, YOLO, Pascal VOC, class maps, folders',
    )
    own.add_argument('--boxes-only', action='store_true', help='train a detector without its mask branch')
    length = parser.add_argument_group('length, rate and size; the schedule is rescaled')
    length.add_argument('--epochs', type=int, metavar='N', help='train for N epochs')
    length.add_argument('--iters', type=int, metavar='N', help='train for N iterations')
    length.add_argument(
        '--batch-size', type=int, metavar='N', help='pictures of a GPU in an iteration; scales the rate, and says so'
    )
    length.add_argument('--lr', type=float, metavar='X', help='the rate, as it is')
    length.add_argument(
        '--image-size',
        type=int,
        nargs='+',
        metavar='N',
        help="shorter side of a detector's pictures; side, or height and width, of the others' crop",
    )
    parser.add_argument('--seed', type=int, help='seed of Python, NumPy and torch')
    parser.add_argument(
        '--bad-pictures',
        choices=('stop', 'skip'),
        default='stop',
        help='what to do at a picture that cannot be read: stop, or leave it out and list it in the work dir',
    )
    add_common_arguments(parser)
    run_command(train, parser)


if __name__ == '__main__':
    main()
