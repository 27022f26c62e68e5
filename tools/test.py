"""Evaluate a checkpoint of a detector, segmentor or classifier."""

import argparse

from nextvit_mm.training.launch import evaluate
from nextvit_mm.training.options import EvaluateOptions
from nextvit_mm.utils.command import add_common_arguments, add_options, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    add_options(parser, EvaluateOptions)
    add_common_arguments(parser)
    run_command(evaluate, parser)


if __name__ == '__main__':
    main()
