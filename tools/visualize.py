"""Look into a network: Fourier spectra of its feature maps, class-activation maps, feature maps."""

import argparse

from mmengine.config import DictAction

from nextvit_mm.utils.command import run_command
from nextvit_mm.visualization.cam import METHODS
from nextvit_mm.visualization.commands import features, heatmap, spectrum


def run(command: str, **args) -> None:
    dict(spectrum=spectrum, heatmap=heatmap, features=features)[command](**args)


def add_common_arguments(parser: argparse.ArgumentParser, weights: bool = True) -> None:
    parser.add_argument('config', help='config file of a detector, segmentor or classifier')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='its weights'
        + (' (default: the published ones that the config names for its backbone)' if weights else ''),
    )
    parser.add_argument('--images', metavar='PATH', help="a picture or a folder (default: the config's test data)")
    parser.add_argument(
        '--out',
        metavar='FILE.png',
        help=f'the picture to write (default: work_dirs/<config>/visualize/{parser.prog.split()[-1]}.png)',
    )
    parser.add_argument('--device', default='cpu', help='where it runs, such as cuda (default: cpu)')
    parser.add_argument('--data-root', metavar='DIR', help="folder of the data, instead of the config's")
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
    )
    if weights:
        parser.add_argument('--random-weights', action='store_true', help='load no weights; the title says so')


def add_spectrum(commands) -> None:
    parser = commands.add_parser('spectrum', help='Fourier spectra of stages, blocks, and the two branches of NTBs')
    add_common_arguments(parser)
    parser.add_argument(
        '--beside',
        nargs='+',
        default=(),
        metavar='NETWORK',
        help='what to put beside it: random (the '
        'same with random weights), timm:NAME (random weights), timm:NAME@pretrained, '
        'CONFIG.py:CHECKPOINT, or CONFIG.py (random weights), also as mmdet::FOLDER/NAME.py',
    )
    parser.add_argument(
        '--branches',
        action='store_true',
        help='the E-MHSA and MHCA branches of every NTB apart, instead of stages and blocks',
    )
    parser.add_argument('--count', type=int, default=16, metavar='N', help='pictures at most (default: 16)')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar='N',
        help='height and width to resize every picture to, '
        "or one number for both (default: as the config's test pipeline does)",
    )


def add_heatmap(commands) -> None:
    parser = commands.add_parser('heatmap', help='class-activation maps over pictures')
    add_common_arguments(parser, weights=False)
    parser.add_argument('--count', type=int, default=4, metavar='N', help='pictures at most (default: 4)')
    parser.add_argument(
        '--stages',
        type=int,
        nargs='+',
        metavar='N',
        help='stages whose maps are weighed, from 1 (default: of a classifier the last one, of others all)',
    )
    parser.add_argument(
        '--method',
        choices=METHODS,
        help="how a map's channels are weighed (default: gradcam for classifiers, layercam for others)",
    )
    parser.add_argument(
        '--class',
        dest='class_name',
        metavar='NAME',
        help='name or number of the class to explain (default: what the model finds)',
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=0.3,
        metavar='X',
        help='detections of at least this score count (default: 0.3)',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar='N',
        help='height and width to resize pictures to fit '
        "into, or one number for both (default: as the config's test pipeline does)",
    )


def add_features(commands) -> None:
    parser = commands.add_parser('features', help='what each stage makes of one picture')
    add_common_arguments(parser)
    parser.add_argument(
        '--channels', type=int, default=4, metavar='N', help='strongest channels to show of each stage (default: 4)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar='N',
        help='height and width to resize the picture to '
        "fit into, or one number for both (default: as the config's test pipeline does)",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for add in (add_spectrum, add_heatmap, add_features):
        add(commands)
    run_command(run, parser)


if __name__ == '__main__':
    main()
