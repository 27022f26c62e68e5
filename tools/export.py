"""Export a trained model, folded and verified, to ONNX, OpenVINO, Core ML, TensorRT or torch.export."""

import argparse

from mmengine.config import DictAction

from nextvit_mm.deploy.backends import SUFFIXES
from nextvit_mm.deploy.export import export
from nextvit_mm.utils.command import add_backbone_argument, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a detector, segmentor or classifier')
    parser.add_argument(
        'checkpoint', nargs='?', help="its weights (default, for a backbone: what the config's init_cfg names)"
    )
    parser.add_argument('--to', choices=SUFFIXES, default='onnx', help='format (default: onnx)')
    parser.add_argument(
        '--what',
        choices=('model', 'backbone'),
        default='model',
        help='from the image to results, or to the feature maps (default: model)',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar='N',
        help="height and width in pixels, or one number for both (default: from the config's test pipeline)",
    )
    parser.add_argument(
        '--dynamic', nargs='+', choices=('batch', 'size'), default=(), help='what may differ at run time'
    )
    parser.add_argument('--out', metavar='FILE', help='the file to write (default: work_dirs/<config>/export/…)')
    parser.add_argument('--overwrite', action='store_true', help='replace a file that is there')
    parser.add_argument(
        '--images', metavar='PATH', help="a picture or a folder to verify with (default: the config's test data)"
    )
    parser.add_argument('--image-count', type=int, default=4, metavar='N', help='how many at most (default: 4)')
    parser.add_argument(
        '--normalize-inside',
        action='store_true',
        help='put mean and standard deviation into the network, which then takes colors from 0 to 255',
    )
    parser.add_argument('--int8', action='store_true', help='quantise after training (onnx, openvino)')
    parser.add_argument(
        '--calibration-images', metavar='DIR', help="pictures to calibrate with (default: the config's training data)"
    )
    parser.add_argument('--calibration-count', type=int, default=64, metavar='N', help='how many at most (default: 64)')
    parser.add_argument(
        '--evaluate',
        action='store_true',
        default=None,
        help='measure the checkpoint and the exported '
        "model on the config's test data (default: for --int8, where the data are there)",
    )
    parser.add_argument('--no-evaluate', dest='evaluate', action='store_false', help='do not')
    parser.add_argument('--random-weights', action='store_true', help='load no weights: for measuring speed only')
    parser.add_argument('--data-root', metavar='DIR', help="folder of the data, instead of the config's")
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
    )
    add_backbone_argument(parser)
    run_command(export, parser)


if __name__ == '__main__':
    main()
