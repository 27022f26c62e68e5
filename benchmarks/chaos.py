"""Kill a training again and again, fill its disk, and see what is lost: ``python benchmarks/chaos.py --kills 30``

The runs are the demo's classifier with Next-ViT-S, a checkpoint after every iteration and one kept. Every second kill
comes while a checkpoint is being written, the others at random moments. At the end the weights are held against those
of a run that nothing disturbed. The full disk is a small tmpfs, where this user may mount one. A run in one process is
forked from this one, so that the seconds to go on leave out Python's imports; with ``--processes`` it is
tools/dist_train.sh.
"""

import argparse
import contextlib
import datetime
import multiprocessing
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import mmpretrain.datasets
import mmpretrain.evaluation
import mmpretrain.models  # noqa: F401  (what the forked runs need, once)
import torch

from nextvit_mm.demo import DigitClassesConfig, make_digit_classes
from nextvit_mm.errors import UserError
from nextvit_mm.training.launch import train

ROOT = Path(__file__).resolve().parent.parent
ITERATION = re.compile(r'Iter\(train\) *\[ *(\d+)/')
CONFIG = """
_base_ = '{base}'
train_cfg = dict(_delete_=True, by_epoch=False, max_iters={iterations}, val_interval=100000)
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}'),
    sampler=dict(_delete_=True, type='InfiniteSampler'))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}', indices=4))
test_dataloader = val_dataloader
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-6, by_epoch=False)]
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=1, save_best=None))
log_processor = dict(by_epoch=False)
randomness = dict(seed=1, deterministic=True)
"""


@dataclass
class Tally:
    """What the kills of one kind cost."""

    kills: int = 0
    survived: int = 0
    lost: int = 0  # bytes of checkpoints that a run cannot go on from
    again: list[int] = field(default_factory=list)  # iterations that are done anew
    seconds: list[float] = field(default_factory=list)  # from the start of the process to its first iteration

    def row(self, name: str) -> str:
        def both(values: list, form: str) -> str:
            return f'{statistics.mean(values):{form}}, {max(values):{form}}' if values else '–'

        return (
            f'| {name} | {self.survived} of {self.kills} | {self.lost:,} | {both(self.again, ".1f")} | '
            f'{both(self.seconds, ".1f")} |'
        )


class Run:
    """A training with ``--resume`` on a work dir, in ``processes`` processes of a session of their own."""

    def __init__(self, config: Path, work_dir: Path, processes: int) -> None:
        self.work_dir, self.start = work_dir, time.monotonic()
        self.log = config.parent / f'{work_dir.name}.log'  # not on the disk that is filled
        self.log.touch()
        self.before = self.log.stat().st_size
        if processes > 1:
            command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(config), str(processes)]
            with open(self.log, 'a') as log:
                self.process = subprocess.Popen(
                    [*command, '--work-dir', str(work_dir), '--resume', '--verbose'],
                    cwd=ROOT,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, 'PYTHON': sys.executable},
                    start_new_session=True,
                )
            self.pid, self.wait, self.alive = self.process.pid, self.process.wait, lambda: self.process.poll() is None
        else:
            child = multiprocessing.get_context('fork').Process(target=_train, args=(config, work_dir, self.log))
            child.start()
            self.process, self.pid, self.alive = child, child.pid, child.is_alive

    def text(self) -> str:
        with open(self.log, encoding='utf-8', errors='replace') as log:
            log.seek(self.before)
            return log.read()

    def iterations(self) -> list[int]:
        return [int(found) for found in ITERATION.findall(self.text())]

    def wait(self) -> int:
        self.process.join()
        return self.process.exitcode

    def wait_for_iteration(self) -> float:
        while self.alive() and not self.iterations():
            time.sleep(0.05)
        return time.monotonic() - self.start

    def wait_for_writing(self) -> None:
        while self.alive() and not any(self.work_dir.glob('.*.pth.part')):
            time.sleep(0.002)

    def kill(self) -> None:
        """The processes of this run, and nothing else; torchrun's are sessions of their own."""
        for pid in reversed(family(self.pid)) if self.alive() else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()


def family(pid: int) -> list[int]:
    """A process and all that descends from it, the oldest first."""
    rows = subprocess.run(['ps', '-e', '-o', 'pid=,ppid='], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for row in rows.splitlines():
        child, parent = map(int, row.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _train(config: Path, work_dir: Path, log: Path) -> None:
    os.setsid()
    with open(log, 'a') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        train(str(config), work_dir=str(work_dir), resume='auto', verbose=True)
    except UserError as error:
        print(error, flush=True)
        os._exit(error.status)
    sys.stdout.flush()
    os._exit(0)


def kept_iteration(work_dir: Path) -> int:
    """The iteration of the checkpoint that ``last_checkpoint`` names; -1 where it cannot be gone on from."""
    pointer = work_dir / 'last_checkpoint'
    if not pointer.is_file():
        return 0 if not list(work_dir.glob('iter_*.pth')) else -1
    path = Path(pointer.read_text())
    return int(path.stem.split('_')[1]) if zipfile.is_zipfile(path) else -1


def same(left: Path, right: Path) -> tuple[bool, float]:
    """Whether two checkpoints have the same weights bit for bit, and their greatest difference."""
    one, other = (torch.load(path, weights_only=False)['state_dict'] for path in (left, right))
    difference = max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), difference


def kill_often(config: Path, folder: Path, args: argparse.Namespace, tallies: dict[str, Tally]) -> None:
    """Kill runs until there were enough kills; a run that came to its end is looked at, and another one begins."""
    rng, done, number = random.Random(args.seed), 0, 0
    while done < args.kills:
        number += 1
        work_dir = folder / f'killed{number}'
        while True:
            kind = ('while a checkpoint is written', 'at a random moment')[done % 2]
            before, run = max(kept_iteration(work_dir), 0), Run(config, work_dir, args.processes)
            seconds = run.wait_for_iteration()
            if done < args.kills:
                if done % 2 == 0:
                    run.wait_for_writing()
                else:
                    time.sleep(rng.uniform(0, args.longest))
            else:
                run.wait()
            finished = not run.alive()
            reached = run.iterations()
            run.kill()
            if not reached and not finished:
                continue
            if finished:
                equal, difference = same(work_dir / f'iter_{args.iterations}.pth', folder / 'whole.pth')
                print(f'run {number}: final weights bit for bit {equal}, greatest difference {difference:.3g}')
                break
            done += 1
            tally, kept = tallies[kind], kept_iteration(work_dir)
            tally.kills += 1
            tally.survived += kept >= before
            tally.lost += 0 if kept >= before else (folder / 'whole.pth').stat().st_size
            tally.again.append(max(reached[-1] - max(kept, 0), 0))
            tally.seconds.append(seconds)
            print(f'{done}: {kind}, kept iteration {kept}, {seconds:.1f} s to go on', flush=True)


def fill_disk(config: Path, folder: Path, size: int) -> None:
    """A run on a tmpfs with room for one checkpoint and a half, and then for all that it needs."""
    mount = folder / 'small'
    mount.mkdir()
    megabytes = int(1.5 * size / 1e6)
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={megabytes}m', 'tmpfs', str(mount)]).returncode:
        print('full disk: not tried, this user may not mount a tmpfs')
        return
    try:
        run = Run(config, mount / 'w', 1)
        status = run.wait()
        last = [line for line in run.text().splitlines() if line.strip()][-1]
        kept, parts = kept_iteration(mount / 'w'), len(list((mount / 'w').glob('.*.part')))
        print(f'full disk of {megabytes} MB: status {status}, kept iteration {kept}, {parts} partial files; {last}')
        subprocess.run(['mount', '-o', f'remount,size={3 * megabytes}m', str(mount)], check=True)
        status = Run(config, mount / 'w', 1).wait()
        final = max((mount / 'w').glob('iter_*.pth'))
        equal, difference = same(final, folder / 'whole.pth')
        print(f'with more room: status {status}, {final.name}, bit for bit {equal}, difference {difference:.3g}')
    finally:
        subprocess.run(['umount', str(mount)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--iterations', type=int, default=12, help='length of a run')
    parser.add_argument('--longest', type=float, default=6, help='seconds until a random kill, at most')
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/chaos'))
    args = parser.parse_args()
    folder = args.work_dir.resolve()
    folder.mkdir(parents=True)  # not into an old one
    make_digit_classes(folder / 'data', DigitClassesConfig())
    config = folder / 'chaos.py'
    base = ROOT / 'configs' / 'demo' / 'nextvit_s_digits.py'
    config.write_text(CONFIG.format(base=base, iterations=args.iterations, data=folder / 'data'))
    whole = Run(config, folder / 'whole', args.processes)
    if whole.wait():
        sys.exit(whole.text()[-2000:])
    (folder / 'whole' / f'iter_{args.iterations}.pth').replace(folder / 'whole.pth')
    tallies = {name: Tally() for name in ('while a checkpoint is written', 'at a random moment')}
    kill_often(config, folder, args, tallies)
    if args.processes == 1:
        fill_disk(config, folder, (folder / 'whole.pth').stat().st_size)
    print(f'\n{datetime.date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores')
    print('| kill −9 | survived | bytes lost | iterations again: mean, most | seconds to go on: mean, most |')
    print('|---|---|---|---|---|')
    for name, tally in tallies.items():
        print(tally.row(name))


if __name__ == '__main__':
    main()
