"""Measure how fast backbones run and train, ours beside timm's networks, and whole models."""

import argparse
from typing import Any

from nextvit_mm.benchmark import report
from nextvit_mm.benchmark.latency import measure_latency
from nextvit_mm.benchmark.models import measure_models
from nextvit_mm.benchmark.options import LatencyOptions, ModelsOptions, TrainingOptions
from nextvit_mm.benchmark.rounds import Result
from nextvit_mm.benchmark.training import measure_training
from nextvit_mm.utils.command import add_options, run_command, take_options
from nextvit_mm.utils.figures import check_matplotlib, check_png
from nextvit_mm.utils.files import check_writable, write_json
from nextvit_mm.utils.progress import hush

# Networks of about Next-ViT-S's accuracy or work in Tables 4 to 6, and Next-ViT's three sizes.
PEERS = (
    'nextvit_s',
    'nextvit_b',
    'nextvit_l',
    'timm:nextvit_small',
    'timm:resnet101',
    'timm:resnext101_32x4d',
    'timm:regnety_080',
    'timm:convnext_tiny',
    'timm:swin_tiny_patch4_window7_224',
    'timm:pvt_v2_b2',
    'timm:twins_svt_small',
    'timm:poolformer_s24',
    'timm:poolformer_s36',
    'timm:efficientformer_l3',
    'timm:efficientformer_l7',
)
PRESETS = dict(peers=LatencyOptions(candidates=PEERS, shapes=('8x224',), runtimes=('eager', 'folded', 'openvino')))


def benchmark(command: str, markdown: str | None, json: str | None, **args) -> None:
    """Measure and report. What cannot be written is said before minutes of measuring, not after."""
    for path in (markdown, json):
        if path:
            check_writable(path)
    result = dict(latency=latency, models=models, train=train)[command](args)
    hush()
    report.print_report(result)
    if markdown:
        report.write_markdown([result], markdown)
    if json:
        write_json(json, result.as_dict())
    if args.get('png'):
        report.draw_latency(result, args['png'])


def latency(args: dict[str, Any]) -> Result:
    if args['png']:
        check_matplotlib()
        check_png(args['png'])
    return measure_latency(take_options(LatencyOptions, args, PRESETS.get(args['preset'])))


def train(args: dict[str, Any]) -> Result:
    return measure_training(take_options(TrainingOptions, args))


def models(args: dict[str, Any]) -> Result:
    return measure_models(take_options(ModelsOptions, args))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    of_latency = commands.add_parser('latency', help='inference of the backbone in several runtimes')
    of_latency.add_argument(
        '--preset',
        choices=tuple(PRESETS),
        help='peers: the networks of Tables 4 to 6 that timm has, at 8x224, eager and in OpenVINO; other flags '
        'override its choices',
    )
    add_options(of_latency, LatencyOptions)
    of_latency.add_argument('--png', metavar='FILE', help='draw latency against published accuracy')
    of_models = commands.add_parser('models', help='whole detectors and segmentors, from file to drawn result')
    add_options(of_models, ModelsOptions)
    of_training = commands.add_parser('train', help='forward, backward and AdamW: time and peak memory')
    add_options(of_training, TrainingOptions)
    for command in (of_latency, of_models, of_training):
        command.add_argument('--markdown', metavar='FILE', help='write the tables as Markdown')
        command.add_argument('--json', metavar='FILE', help="write everything, with every round's time, as JSON")
    run_command(benchmark, parser)


if __name__ == '__main__':
    main()
