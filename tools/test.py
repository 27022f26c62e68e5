"""Evaluate a checkpoint of a detector, segmentor or classifier."""

import argparse

from nextvit_mm.training.launch import evaluate
from nextvit_mm.utils.command import add_backbone_argument, add_common_arguments, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='FILE.pkl', help='write all predictions to a pickle')
    parser.add_argument('--show-dir', metavar='DIR', help='draw every prediction into this folder')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation of the config (several scales, flipped); metrics are named ms/…',
    )
    parser.add_argument(
        '--pipeline', metavar='NAME', help="test with the config's NAME_test_pipeline, such as timm of the classifiers"
    )
    add_backbone_argument(parser)
    add_common_arguments(parser)
    run_command(evaluate, parser)


if __name__ == '__main__':
    main()
