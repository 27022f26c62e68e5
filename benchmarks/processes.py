"""Two machines as two network namespaces: train with NNODES=2, kill one machine, resume; needs root and Linux.

    python benchmarks/processes.py

Each machine has an address and a work dir of its own, and one process. A tiny Semantic FPN trains on the demo data with
gloo. When the first checkpoint is there, the second machine's processes are killed. Printed is how long the first
machine takes to end, what it says, and whether both go on from the checkpoint, which only the first one has.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from nextvit_mm.demo import DigitsConfig, make_digits

ROOT = Path(__file__).resolve().parents[1]
NAMES, ADDRESSES, CARD = ('nextvit_a', 'nextvit_b'), ('10.77.0.1', '10.77.0.2'), 'nextvit0'
ITERATIONS, INTERVAL, PORT = 60, 20, '29700'
CONFIG = f"""
_base_ = '{ROOT}/configs/demo/semantic_fpn_nextvit_s_digits_scratch.py'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch=dict(_delete_=True, stem_channels=(16, 8, 16), stages=[
        dict(num_ncb=1, num_ntb=0, ncb_channels=32, sr_ratio=8, head_dim=16),
        dict(num_ncb=1, num_ntb=1, ncb_channels=32, ntb_channels=64, sr_ratio=4, head_dim=16),
        dict(num_ncb=1, num_ntb=1, ncb_channels=64, ntb_channels=128, sr_ratio=2, head_dim=16),
        dict(num_ncb=1, num_ntb=1, ncb_channels=96, ntb_channels=128, sr_ratio=1, head_dim=16)])),
    neck=dict(in_channels=[32, 64, 128, 128]))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_iters={ITERATIONS}, val_interval={ITERATIONS})
default_hooks = dict(checkpoint=dict(interval={INTERVAL}))
"""


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextmanager
def two_machines():
    """Two namespaces with a cable between them; each is called by its address there."""
    for name in NAMES:
        run('ip', 'netns', 'add', name)
    try:
        run('ip', 'link', 'add', CARD, 'netns', NAMES[0], 'type', 'veth', 'peer', 'name', CARD, 'netns', NAMES[1])
        for name, address in zip(NAMES, ADDRESSES):
            run('ip', '-n', name, 'addr', 'add', f'{address}/24', 'dev', CARD)
            run('ip', '-n', name, 'link', 'set', CARD, 'up')
            run('ip', '-n', name, 'link', 'set', 'lo', 'up')
        yield
    finally:
        for name in NAMES:
            run('ip', 'netns', 'del', name)


def start(folder: Path, *flags: str) -> list[subprocess.Popen]:
    """Start training on both machines, each in a session of its own, with its output in ``folder/<machine>.txt``."""
    found = []
    for rank, name in enumerate(NAMES):
        place = folder / name
        place.mkdir(exist_ok=True)
        settings = dict(
            NNODES='2',
            NODE_RANK=str(rank),
            MASTER_ADDR=ADDRESSES[0],
            PORT=PORT,
            GLOO_SOCKET_IFNAME=CARD,
            OMP_NUM_THREADS='1',
            CUDA_VISIBLE_DEVICES='',
            PYTHON=sys.executable,
            PYTHONPATH=str(ROOT),
        )
        command = [str(ROOT / 'tools' / 'dist_train.sh'), str(folder / 'config.py'), '1']
        command += ['--data-root', f'{folder}/data/ade/', '--work-dir', 'work', *flags]
        with open(folder / f'{name}.txt', 'w') as output:
            found.append(
                subprocess.Popen(
                    ['ip', 'netns', 'exec', name, *command],
                    cwd=place,
                    env={**os.environ, **settings},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    return found


def kill(machine: subprocess.Popen, name: str) -> None:
    """Every process of a machine at once, as when it loses its power."""
    pids = subprocess.run(['ip', 'netns', 'pids', name], capture_output=True, text=True, check=True).stdout.split()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    machine.wait()


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix='two_machines_'))
    (folder / 'config.py').write_text(CONFIG)
    make_digits(folder / 'data', DigitsConfig(train=16, val=5, size=64))
    with two_machines():
        machines = start(folder)
        checkpoint = folder / NAMES[0] / 'work' / f'iter_{INTERVAL}.pth'
        while not checkpoint.exists():
            if machines[0].poll() is not None:
                sys.exit(f'no checkpoint:\n{(folder / (NAMES[0] + ".txt")).read_text()[-3000:]}')
            time.sleep(0.2)
        time.sleep(1)
        kill(machines[1], NAMES[1])
        killed = time.monotonic()
        status = machines[0].wait(300)
        said = (folder / f'{NAMES[0]}.txt').read_text()
        lines = [line for line in said.splitlines() if 'train.py: ' in line]
        print(f'first machine ended {time.monotonic() - killed:.1f} s after the kill, status {status}: {lines}')
        began = time.monotonic()
        ends = [machine.wait(600) for machine in start(folder, '--resume')]
    logs = [(folder / f'{name}.txt').read_text() for name in NAMES]
    resumed = re.search(r'resumed from .*, iteration (\d+)', logs[0])
    print(f'resumed from iteration {resumed and resumed[1]} in {time.monotonic() - began:.0f} s; statuses {ends}')
    print(f'the second machine got the checkpoint: {"has come from the first machine" in logs[1]}')
    last = folder / NAMES[0] / 'work' / f'iter_{ITERATIONS}.pth'
    print(f'last checkpoint written: {last.exists()}')
    if status and not any(ends) and resumed and last.exists():
        shutil.rmtree(folder)
    else:
        sys.exit(f'failed; the logs are in {folder}')


if __name__ == '__main__':
    main()
