"""Whether the tests notice a changed line: three changes in each room of the package, one at a time.

Each change is made in a copy of the repository, and the tests named beside it run there. A change that they do not
notice is a hole in them. ``python benchmarks/mutants.py`` prints a line for each, and ends with 1 where one survived.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)


class Mutant(NamedTuple):
    """One line of a file of nextvit_mm/, what becomes of it, and the tests that should notice, below tests/."""

    file: str
    line: str
    becomes: str
    tests: str


MUTANTS = [
    Mutant('models/arch.py', 'if mhsa < 0.9 * wanted:', 'if mhsa < 0.5 * wanted:', 'models'),
    Mutant('models/arch.py', 'steps = max(sum(depths) - 1, 1)', 'steps = max(sum(depths), 1)', 'models'),
    Mutant('models/layers.py', 'hidden = int(channels * ratio)', 'hidden = int(channels * ratio) + 32', 'models'),
    Mutant('ops/regions.py', 'rois[:, 3] + 1, rois[:, 4] + 1', 'rois[:, 3], rois[:, 4]', 'ops/test_definitions.py'),
    Mutant('ops/regions.py', 'values.sum(3) / max(count, 1)', 'values.sum(3)', 'ops/test_definitions.py'),
    Mutant('ops/regions.py', 'LOWEST = -10000.0', 'LOWEST = 0.0', 'ops/test_definitions.py'),
    Mutant('ops/threads.py', 'initargs=(1,)', 'initargs=(2,)', 'ops/test_definitions.py'),
    Mutant('weights/keys.py', 'max(found.get(stage, 0), block + 1)', 'max(found.get(stage, 0), block)', 'weights'),
    Mutant('weights/keys.py', 'if number < depth:', 'if number <= depth:', 'weights'),
    Mutant('weights/pretrained.py', 'or self.misshapen)', ')', 'weights'),
    Mutant('published/runs.py', 'return -(-self.train_images', 'return (self.train_images', 'published configs'),
    Mutant(
        'published/runs.py',
        "name: (name, 100.0) for name in ('mIoU'",
        "name: (name, 1.0) for name in ('mIoU'",
        'published reproduction',
    ),
    Mutant('published/runs.py', '- self.epoch_length + 1', '- self.epoch_length', 'published reproduction'),
    Mutant('utils/files.py', 'json.dumps(_finite(content), indent=2)', 'json.dumps(content, indent=2)', 'utils'),
    Mutant('utils/tables.py', "not name.startswith('paper')", 'True', 'utils'),
    Mutant('utils/tables.py', 'grid.add_row(*map(Text, line))', 'grid.add_row(*line)', 'utils'),
    Mutant(
        'predict/predictor.py', 'pasted[place] = values >= threshold', 'pasted[place] = values > 0.9', 'predict deploy'
    ),
    Mutant('predict/predictor.py', '2 * placed.scale[::-1]', '2 * placed.scale', 'predict deploy'),
    Mutant(
        'predict/predictor.py',
        'seen = (boxes[:, :2] <= (width, height))',
        'seen = (boxes[:, :2] >= 0)',
        'predict deploy',
    ),
    Mutant('adapt/swap.py', 'if not vectors and strides != ours:', 'if False:', 'adapt'),
    Mutant('adapt/look.py', 'x if x.shape[1] == norm.num_features else', 'x if True else', 'adapt benchmark'),
    Mutant('adapt/swap.py', 'pairs = [Pair(a.width, b.width)', 'pairs = [Pair(a.width, a.width)', 'adapt'),
    Mutant('adapt/swap.py', 'strides[0] == 4 < strides[-1]', 'strides[0] == 8 < strides[-1]', 'adapt'),
    Mutant('data/length.py', 'math.ceil(other / each)', 'other // each', 'data/test_length.py'),
    Mutant('data/maps.py', 'set(values) <= {0, 255} or', 'set(values) <= {0, 25} or', 'data'),
    Mutant('data/check_coco.py', 'missing = [c for c in classes if c not in names]', 'missing = []', 'data'),
    Mutant(
        'training/sampling.py',
        'skip = iteration - epoch * len(loader)',
        'skip = iteration',
        'training/test_resuming.py',
    ),
    Mutant('training/saving.py', 'if name not in kept]', ']', 'training/test_saving.py'),
    Mutant(
        'training/resuming.py', "content['state_dict'], strict=True", "content['state_dict'], strict=False", 'training'
    ),
    Mutant('deploy/fold.py', 'bias + weight @ v_bias', 'bias', 'deploy/test_fold.py'),
    Mutant(
        'deploy/verify.py', "'least box IoU': ('>=', 0.99)", "'least box IoU': ('>=', 0.5)", 'deploy/test_verify.py'
    ),
    Mutant('deploy/verify.py', 'MASK_SLACK = 0.02', 'MASK_SLACK = 0.5', 'deploy/test_verify.py'),
    Mutant('inference/models.py', 'best = sorted(work_dir.glob(', 'best = sorted(work_dir.glob("x" + ', 'inference'),
    Mutant('inference/command.py', 'score_thr: float = 0.3', 'score_thr: float = 0.9', 'inference'),
    Mutant('inference/command.py', 'if unreadable:', 'if False:', 'inference'),
    Mutant('benchmark/rounds.py', 'while total < self.min_time:', 'while False:', 'benchmark'),
    Mutant(
        'benchmark/complexity.py',
        'return x.numel() * (2 if affine else 1)',
        'return x.numel()',
        'benchmark/test_complexity.py',
    ),
    Mutant('benchmark/latency.py', 'error <= TOLERANCES[precision]', 'True', 'benchmark'),
    Mutant(
        'demo/digits.py',
        '(old & ~mask).sum() < MIN_VISIBLE * area',
        '(old & ~mask).sum() < 0.1 * area',
        'demo/test_digits.py',
    ),
    Mutant(
        'demo/digits.py',
        'masks = [old & ~mask for old in masks] + [mask]',
        'masks = masks + [mask]',
        'demo/test_digits.py',
    ),
    Mutant('demo/digits.py', 'VAL_SHARE = 0.2', 'VAL_SHARE = 0.0', 'demo/test_digits.py'),
    Mutant(
        'reproduction/hook.py',
        'self._outside + 1 if outside else 0',
        '2 if outside else 0',
        'reproduction/test_hook.py',
    ),
    Mutant('reproduction/compare.py', 'LOSS_BAND = 0.10', 'LOSS_BAND = 0.50', 'reproduction'),
    Mutant('reproduction/compare.py', '(iteration - 1) * scale) + 1', 'iteration * scale)', 'reproduction'),
    Mutant(
        'visualization/spectrum.py',
        '(rho > cutoff + ROUNDING).sum() /',
        '(rho > cutoff - 0.5).sum() /',
        'visualization/test_spectrum.py',
    ),
    Mutant(
        'visualization/spectrum.py', '* 2 * math.pi for side', '* math.pi for side', 'visualization/test_spectrum.py'
    ),
    Mutant(
        'visualization/cam.py',
        'chosen = found.scores >= min_score',
        'chosen = found.scores < min_score',
        'visualization/test_cam.py',
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--only', nargs='+', default=[''], metavar='PART', help='files whose names begin with one of these'
    )
    args = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if mutant.file.startswith(tuple(args.only))]
    with tempfile.TemporaryDirectory(prefix='mutants-') as folder:
        copy = Path(folder, 'project')
        ignored = shutil.ignore_patterns('.git', '.venv', '__pycache__', 'work_dirs', 'data/digits', 'site')
        shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
        survived = [mutant for mutant in chosen if not is_noticed(mutant, copy)]
    print(f'{len(chosen) - len(survived)} of {len(chosen)} changes were noticed')
    sys.exit(bool(survived))


def is_noticed(mutant: Mutant, project: Path) -> bool:
    """Make the change, run the tests beside it, take the change back, and print what came of it."""
    path = project / 'nextvit_mm' / mutant.file
    text = path.read_text(encoding='utf-8')
    if text.count(mutant.line) != 1:
        sys.exit(f'{mutant.file} no longer has {mutant.line!r} once: correct the list in {Path(__file__).name}')
    path.write_text(text.replace(mutant.line, mutant.becomes, 1), encoding='utf-8')
    start = time.monotonic()
    try:
        command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider']
        tests = [str(project / 'tests' / part) for part in mutant.tests.split()]
        env = {**os.environ, 'PYTHONPATH': str(project)}
        result = subprocess.run([*command, *tests], cwd=project, env=env, capture_output=True, text=True)
    finally:
        path.write_text(text, encoding='utf-8')
    # Of pytest: passed, failed, stopped at an import; or it crashed. Without memory it would be killed.
    if result.returncode not in (0, 1, 2, *(-number for number in CRASHES)):
        sys.exit(f'pytest ended with {result.returncode}:\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}')
    by = [
        line.split()[1].partition('::')[2]
        for line in result.stdout.splitlines()
        if line.startswith(('FAILED', 'ERROR'))
    ]
    how = by[0] if by else 'an import' if result.returncode > 0 else 'a crash'
    word = f'noticed by {how}' if result.returncode else 'SURVIVED'
    print(f'{word:<60} {mutant.file}: {mutant.line} -> {mutant.becomes} ({time.monotonic() - start:.0f} s)', flush=True)
    return bool(result.returncode)


if __name__ == '__main__':
    main()
