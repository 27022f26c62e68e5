"""All that needs a GPU, in one call: ``python -m benchmarks.gpu OUT``

First what is timed, one after the other with nothing beside it: training steps of whole models, and the latency of the
backbone. Then trainings, many at once: somebody's own data, upstream models with Next-ViT, and rows of the paper's
ablations on the digits, three seeds each. When ``--seconds`` are over, what still runs is ended, and the last lines say
what did not fit. ``OUT`` has logs and results. Another call measures anew, and leaves out trainings that are done.
"""

import argparse
import contextlib
import datetime
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from nextvit_mm.demo import DigitsConfig, make_digits
from nextvit_mm.utils.files import write_json

from .steps import MODELS, PUBLISHED, measure, table

ROOT = Path(__file__).resolve().parents[2]
TABLES = ('1', '8')
SEEDS = ('0', '1', '2')
SHORT = (
    *('model.data_preprocessor.size=(64,64)', 'model.backbone.init_cfg=None', 'train_cfg.max_iters=20'),
    *('train_cfg.val_interval=100', 'default_hooks.checkpoint.interval=20'),
)
KEPT = ('.json', '.log', '.md', '.txt', '.py')


@dataclass
class Part:
    """A command with its log.

    Attributes:
        name: On the command line, and of its log.
        command: Its words.
        alone: Whether nothing may run beside it.
    """

    name: str
    command: list[str]
    alone: bool = False


def parts(out: Path) -> Iterator[Part]:
    python, tool = sys.executable, [sys.executable, 'tools/benchmark.py']
    yield Part(
        'latency',
        [
            *(*tool, 'latency', '--device', 'cuda', '--rounds', '3', '--runtimes', 'eager', 'folded'),
            *('--precisions', 'fp32', 'fp16', '--shapes', '64x224', '1x800x1280'),
            *('--candidates', 'nextvit_s', 'timm:nextvit_small', 'timm:nextvit_small@channels_last'),
            *('timm:resnet50@channels_last', 'timm:resnet101@channels_last', 'timm:convnext_tiny@channels_last'),
            *('--json', str(out / 'latency.json'), '--markdown', str(out / 'latency.md')),
        ],
        alone=True,
    )
    yield Part(
        'operators_tests', [python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/ops/test_definitions.py']
    )
    yield Part('operators', [python, 'benchmarks/operators.py', '--device', 'cuda'])
    data = out / 'digits'
    yield Part(
        'nccl',
        [
            *('tools/dist_train.sh', 'configs/demo/semantic_fpn_nextvit_s_digits.py', '1', '--data-root'),
            *(f'{data}/ade', '--work-dir', str(out / 'nccl'), '--cfg-options', *SHORT),
        ],
    )
    for task in ('detection', 'segmentation', 'classification'):
        yield Part(f'own_{task}', [python, 'benchmarks/own_data.py', str(out / 'own'), '--tasks', task])
    for name in ('RetinaNet', 'Faster', 'Cascade', 'DeepLab', 'DINO'):
        # Each makes its own data: at once they would write into one folder.
        command = [python, '-m', 'benchmarks.sweep.digits', str(out / 'swapped'), '--only', name]
        yield Part(f'swapped_{name}', [*command, '--data', str(out / 'swapped_data' / name)])
    for task in ('segmentation', 'detection'):
        for number in TABLES:
            for seed in SEEDS:
                command = [python, 'tools/ablation.py', '--tasks', task, '--seeds', seed, '--tables', number]
                yield Part(
                    f'ablation_{task}_{number}_{seed}',
                    [*command, '--data-dir', str(data), '--work-dir', str(out / 'ablation' / f'{number}_{seed}')],
                )


def start(part: Part, out: Path) -> subprocess.Popen:
    print('$', ' '.join(part.command), flush=True)
    settings = dict(OMP_NUM_THREADS='1') if not part.alone else {}
    with open(out / f'{part.name}.log', 'a') as log:
        return subprocess.Popen(
            part.command,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}', **settings},
        )


def end(process: subprocess.Popen) -> None:
    """Stop it and all that it started; a training saves itself first, if it is quick."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, sign)
            process.wait(8)


def run(wanted: list[Part], out: Path, deadline: float, together: int) -> dict[str, str]:
    """What became of each part."""
    ends: dict[str, str] = {}
    for part in [part for part in wanted if part.alone]:
        if time.monotonic() > deadline:
            ends[part.name] = 'not begun'
            continue
        process, began = start(part, out), time.monotonic()
        try:
            status = process.wait(max(1.0, deadline - time.monotonic()))
            ends[part.name] = f'status {status} after {time.monotonic() - began:.0f} s'
        except subprocess.TimeoutExpired:
            end(process)
            ends[part.name] = 'not finished'
    waiting = [part for part in wanted if not part.alone]
    running: dict[str, tuple[subprocess.Popen, float]] = {}
    while (waiting or running) and time.monotonic() < deadline:
        while waiting and len(running) < together:
            part = waiting.pop(0)
            running[part.name] = (start(part, out), time.monotonic())
        for name, (process, began) in list(running.items()):
            if process.poll() is not None:
                ends[name] = f'status {process.returncode} after {time.monotonic() - began:.0f} s'
                del running[name]
        time.sleep(0.5)
    with ThreadPoolExecutor() as pool:
        list(pool.map(end, [process for process, _ in running.values()]))
    ends.update(dict.fromkeys(running, 'not finished'))
    ends.update({part.name: 'not begun' for part in waiting})
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.gpu', description=__doc__)
    parser.add_argument('out', type=Path, help='folder for logs and results')
    parser.add_argument('--seconds', type=float, default=540)
    parser.add_argument('--only', nargs='+', metavar='PART', help='parts whose names begin so')
    parser.add_argument('--together', type=int, default=12, help='trainings at once')
    parser.add_argument('--models', nargs='*', choices=MODELS, default=list(MODELS), help='of the part steps')
    args = parser.parse_args()
    deadline, out = time.monotonic() + args.seconds, args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = tuple(args.only or [''])
    if 'steps'.startswith(chosen):
        result = measure(args.models)
        write_json(out / 'steps.json', result)
        print(table(result), PUBLISHED, sep='\n', flush=True)
    wanted = [part for part in parts(out) if part.name.startswith(chosen)]
    make_digits(out / 'digits', DigitsConfig())
    ends = run(wanted, out, deadline, args.together)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'
    print(f'\n{datetime.date.today()}, {card}, torch {torch.__version__}')
    for name, what in ends.items():
        print(f'{name}: {what}')
    write_json(out / 'ends.json', ends)
    with tarfile.open(out / 'results.tar.gz', 'w:gz') as tar:
        for path in sorted(out.rglob('*')):
            inside = path.relative_to(out)
            is_data = inside.parts[0] == 'digits' or 'data' in inside.parts[:-2]
            if path.suffix in KEPT and path.stat().st_size < 2**20 and not is_data:
                tar.add(path, inside)


if __name__ == '__main__':
    main()
