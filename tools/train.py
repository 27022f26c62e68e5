"""Train a detector, segmentor or classifier from a config."""

import argparse

from nextvit_mm.training.launch import train
from nextvit_mm.training.options import TrainOptions
from nextvit_mm.utils.command import add_common_arguments, add_options, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, such as configs/detection/mask_rcnn_nextvit_s_1x.py')
    add_options(parser, TrainOptions)
    add_common_arguments(parser)
    run_command(train, parser)


if __name__ == '__main__':
    main()
