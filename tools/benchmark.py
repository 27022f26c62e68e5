"""Measure how fast backbones run and train, ours beside timm's networks."""

import argparse

from nextvit_mm.benchmark import report, training
from nextvit_mm.benchmark.latency import REFERENCE, measure_latency
from nextvit_mm.benchmark.rounds import Result
from nextvit_mm.benchmark.runtimes import PRECISIONS, RUNTIMES
from nextvit_mm.utils.command import run_command
from nextvit_mm.utils.figures import check_matplotlib
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
PRESETS = dict(peers=dict(candidates=PEERS, shapes=('8x224',), runtimes=('eager', 'folded', 'openvino')))


def benchmark(command: str, **args) -> None:
    dict(latency=latency, train=train)[command](**args)


def latency(preset: str | None, markdown: str | None, json: str | None, png: str | None, **args) -> None:
    defaults = dict(
        candidates=('nextvit_s', 'timm:nextvit_small'),
        shapes=('8x224', '1x224'),
        runtimes=('eager', 'folded', 'onnxruntime', 'openvino'),
    )
    chosen = {**defaults, **PRESETS.get(preset, {}), **{key: value for key, value in args.items() if value is not None}}
    if png:
        check_matplotlib()  # before minutes of measuring, not after
    result = measure_latency(**chosen)
    write_report(result, markdown, json)
    if png:
        report.draw_latency(result, png)


def train(markdown: str | None, json: str | None, **args) -> None:
    write_report(training.measure_training(**args), markdown, json)


def write_report(result: Result, markdown: str | None, json: str | None) -> None:
    hush()
    report.print_report(result)
    if markdown:
        report.write_markdown([result], markdown)
    if json:
        report.write_json(result.as_dict(), json)


def add_run_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument(
        '--rounds', type=int, default=rounds, metavar='N', help='interleaved rounds (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of weights, images and order (default: %(default)s)')
    parser.add_argument('--threads', type=int, metavar='N', help='CPU threads of every runtime (default: as torch)')
    parser.add_argument('--markdown', metavar='FILE', help='write the tables as Markdown')
    parser.add_argument('--json', metavar='FILE', help="write everything, with every round's time, as JSON")
    parser.add_argument(
        '--warmup', type=int, default=1, metavar='N', help='calls of each before the first round (default: %(default)s)'
    )
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='(default: %(default)s)')


def add_latency(commands) -> None:
    parser = commands.add_parser('latency', help='inference of the backbone in several runtimes')
    parser.add_argument(
        '--preset',
        choices=tuple(PRESETS),
        help='peers: the networks of Tables 4 to 6 that timm has, '
        'at 8x224, eager and in OpenVINO; other flags override its choices',
    )
    parser.add_argument(
        '--candidates',
        nargs='+',
        metavar='NAME',
        help='nextvit_s, _b, _l, or timm:NAME; with '
        '@contiguous or @channels_last (default: nextvit_s timm:nextvit_small)',
    )
    parser.add_argument(
        '--shapes',
        nargs='+',
        metavar='SHAPE',
        help='BATCHxSIDE or BATCHxHEIGHTxWIDTH (default: 8x224 1x224; the paper also has 1x512 and 1x800x1280)',
    )
    parser.add_argument(
        '--runtimes',
        nargs='+',
        choices=RUNTIMES,
        metavar='NAME',
        help=f'{", ".join(RUNTIMES)} (default: eager folded onnxruntime openvino)',
    )
    parser.add_argument(
        '--precisions', nargs='+', choices=PRECISIONS, metavar='NAME', help=f'{", ".join(PRECISIONS)} (default: fp32)'
    )
    parser.add_argument(
        '--only', nargs='+', metavar='ROW', help='CANDIDATE/RUNTIME/PRECISION to measure, instead of every combination'
    )
    parser.add_argument(
        '--reference',
        metavar='ROW',
        help=f'what ratios refer to (default: {REFERENCE} if measured, else the first row)',
    )
    parser.add_argument(
        '--min-time',
        type=float,
        default=0.2,
        metavar='S',
        help='seconds of timed calls in a turn (default: %(default)s)',
    )
    parser.add_argument('--png', metavar='FILE', help='draw latency against published accuracy')
    add_run_arguments(parser, rounds=10)


def add_train(commands) -> None:
    parser = commands.add_parser('train', help='forward, backward and AdamW: time and peak memory')
    parser.add_argument(
        '--candidates',
        nargs='+',
        default=training.CANDIDATES,
        metavar='NAME',
        help='as for latency, ours also with @with_cp (default: %(default)s)',
    )
    parser.add_argument(
        '--precisions',
        nargs='+',
        choices=training.PRECISIONS,
        default=('fp32', 'bf16'),
        metavar='NAME',
        help='fp32, or autocast to bf16 or fp16 (default: fp32 bf16)',
    )
    parser.add_argument(
        '--only', nargs='+', metavar='ROW', help='CANDIDATE/PRECISION to measure, instead of every combination'
    )
    parser.add_argument('--shape', default='4x256', help='BATCHxSIDE or BATCHxHEIGHTxWIDTH (default: %(default)s)')
    parser.add_argument(
        '--reference',
        metavar='ROW',
        help=f'what ratios refer to (default: {training.REFERENCE} if measured, else the first row)',
    )
    parser.add_argument(
        '--no-memory',
        dest='memory',
        action='store_false',
        help='leave out peak memory, which takes a process for each row',
    )
    add_run_arguments(parser, rounds=5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for add in (add_latency, add_train):
        add(commands)
    run_command(benchmark, parser)


if __name__ == '__main__':
    main()
