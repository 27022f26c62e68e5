"""The processes of one distributed run: when one fails, one of them says why, and all of them end."""

import io
import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from itertools import count

from torch import distributed

from ..errors import UserError

FAILED, ENDED, ALIVE = 'failed', 'ended', 'alive'  # keys of the store
POLL = 1.0  # seconds between two looks at the store
PATIENCE = 3.0  # seconds that the first process, or the one that knows the cause, has for speaking first
HEAD_START = 10.0  # seconds that the first process has for starting and printing
GRACE = 20.0  # seconds that a process has for ending by itself once another has failed, as after a checkpoint
SILENCE = 300.0  # seconds without a sign of life, which a thread gives every second, until a process counts as lost
# What gloo and NCCL say where the other side is gone: a consequence, never the cause.
LOST_PEER = re.compile('Connection closed by peer|Connection reset by peer|Broken pipe|remote process exited')
NEEDED = dict(
    pytorch=(dict(RANK='RANK', WORLD_SIZE='WORLD_SIZE', LOCAL_RANK='LOCAL_RANK'), 'tools/dist_train.sh or torchrun'),
    slurm=(dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'), 'srun'),
    mpi=(
        dict(RANK='OMPI_COMM_WORLD_RANK', WORLD_SIZE='OMPI_COMM_WORLD_SIZE', LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK'),
        "Open MPI's mpirun",
    ),
)
_runs = count()


class LostProcessError(UserError):
    """Another process of the run is gone and has left no message."""

    status = 1


def is_first() -> bool:
    """Whether this is the first process of its run, by what started it; one that runs alone is."""
    return all(os.environ.get(name, '0') == '0' for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))


@contextmanager
def first_says() -> Iterator[None]:
    """Let only the first process print why it ends, where all end for the same reason before they have met."""
    if is_first():
        yield
        return
    try:
        with redirect_stderr(io.StringIO()):
            yield
    except SystemExit as end:
        if end.code:
            time.sleep(HEAD_START)  # torchrun ends all others as soon as one has ended
        raise


def set_environment(launcher: str) -> None:
    """Give torch's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) the launcher's values.

    Args:
        launcher: ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        UserError: The launcher did not start this process, or does not tell where the first one is.
    """
    names, starter = NEEDED[launcher]
    missing = [name for name in names.values() if name not in os.environ]
    if missing:
        raise UserError(f'--launcher {launcher}: {missing[0]} is not set. Start the processes with {starter}')
    os.environ.update({name: os.environ[theirs] for name, theirs in names.items()})
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_machine(launcher)
    os.environ.setdefault('MASTER_PORT', '29500')


def _first_machine(launcher: str) -> str:
    machines = os.environ.get('SLURM_NODELIST', '') if launcher == 'slurm' else ''
    if machines and not set(machines) & set('[,'):
        return machines
    if machines:
        try:
            shown = subprocess.run(['scontrol', 'show', 'hostnames', machines], capture_output=True, text=True)
        except OSError:
            shown = None
        if shown and not shown.returncode and shown.stdout.split():
            return shown.stdout.split()[0]
    here = os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE')
    if launcher == 'mpi' and here and here == os.environ['WORLD_SIZE']:
        return '127.0.0.1'
    raise UserError(f'--launcher {launcher}: set MASTER_ADDR to the address of the machine of the first process')


@contextmanager
def together(launcher: str | None) -> Iterator[None]:
    """Run the body as one of several processes, of which one speaks when the body fails.

    The first process to fail claims it in torch's store, the run's first one with precedence; its error goes on from
    here. Every other process ends without a word. One that hangs, waiting for the one that failed, is ended.

    Args:
        launcher: What started the processes; ``'none'`` or None: this one runs alone, and nothing is done.

    Raises:
        UserError: The processes cannot find each other.
        LostProcessError: Another process is gone without a message.
        SystemExit: Another process has spoken.
    """
    if launcher in (None, 'none'):
        yield
        return
    set_environment(launcher)
    had_group = distributed.is_initialized()
    voice = _Voice(_meet(), int(os.environ['RANK']), int(os.environ['WORLD_SIZE']))
    voice.start()
    try:
        yield
    except Exception as error:
        voice.stop()
        raise voice.speaks(error) from error.__cause__
    voice.wait_for_all()
    if not had_group and distributed.is_initialized():
        distributed.destroy_process_group()


def _meet() -> distributed.Store:
    """torch's own store for this run, of torchrun's agent or of the first process."""
    try:
        store, *_ = next(distributed.rendezvous('env://', int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])))
    except (RuntimeError, ValueError) as error:
        address = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
        raise UserError(
            f'the processes cannot meet at {address} ({str(error).splitlines()[0]}): is the port in use, or the '
            'address wrong? Set MASTER_ADDR, and PORT or MASTER_PORT'
        ) from None
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    return distributed.PrefixStore(f'nextvit_mm/{attempt}/{next(_runs)}', store)


def _node() -> str:
    """This machine, also among several of one name."""
    return f'{socket.gethostname()}/{os.environ.get("GROUP_RANK") or os.environ.get("SLURM_NODEID")}'


class _Voice(threading.Thread):
    """Who speaks for a run, and a look at the others now and then."""

    def __init__(self, store: distributed.Store, rank: int, world: int) -> None:
        super().__init__(daemon=True)
        self.store, self.rank, self.world = store, rank, world
        self.over = threading.Event()
        self._beats = {other: (0, time.monotonic()) for other in range(1, world)}  # number, and when it was new

    def stop(self) -> None:
        self.over.set()

    def run(self) -> None:
        """End this process where another has failed and this one does not notice, as in a collective call."""
        while not self.over.wait(POLL):
            failure = self.look()
            if failure is None:
                continue
            if self.over.wait(GRACE):
                return
            speaks = self.rank == 0 if failure['machine'] else os.environ.get('LOCAL_RANK') == '0'
            if speaks and failure.get('node') != _node():
                where = f' on {failure["machine"]}' if failure['machine'] else ''
                print(f'process {failure["rank"]}{where} has failed: {failure["text"]}', file=sys.stderr)
                sys.stderr.flush()
            os._exit(1)

    def look(self) -> dict | None:
        """Which process has failed, if any: rank, machine (None: not known), text."""
        try:
            self.store.add(f'{ALIVE}/{self.rank}', 1)
            silent = self._silent() if self.rank == 0 else None
            if silent is not None:
                text = f'it has been silent for {SILENCE:.0f} s. Its machine or the network may be down'
                self.store.compare_set(FAILED, '', json.dumps(dict(rank=silent, machine=None, text=text)))
            return json.loads(self.store.get(FAILED)) if self.store.check([FAILED]) else None
        except Exception:  # the store's process is gone, and with it the run's first machine
            return dict(rank=0, machine=None, text='it has left no message')

    def _silent(self) -> int | None:
        if self.store.add(ENDED, 0):  # who has ended is silent
            return None
        now = time.monotonic()
        for other, (number, since) in self._beats.items():
            current = self.store.add(f'{ALIVE}/{other}', 0)
            if current != number:
                self._beats[other] = current, now
            elif current and now - since > SILENCE:
                return other
        return None

    def speaks(self, error: Exception) -> BaseException:
        """What this process ends with: its error, where no other has spoken, or else a silent end."""
        lost = not isinstance(error, UserError) and LOST_PEER.search(str(error))
        machine = socket.gethostname()
        text = str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
        claim = json.dumps(dict(rank=self.rank, machine=machine, node=_node(), text=text))
        try:
            patience = math.inf if getattr(error, 'is_shared', False) else PATIENCE
            until = time.monotonic() + (patience if self.rank or lost else 0)
            while time.monotonic() < until and not self.store.check([FAILED]):
                time.sleep(0.1)
            first = self.store.compare_set(FAILED, '', claim).decode() == claim
        except Exception:  # no store any more: the first process was faster, or is gone
            first = bool(lost)
        status = error.status if isinstance(error, UserError) else 1
        if not first:
            time.sleep(1)  # torchrun ends all others as soon as one has ended: the speaker must have printed
            return SystemExit(status)
        if lost:
            error = LostProcessError(
                'another process of this run is gone without a message. It may have been killed, for instance for want '
                f'of memory ({type(error).__name__}: {str(error).splitlines()[0][:150]})'
            )
        if self.rank and isinstance(error, UserError):
            error.args = (f'{error} (process {self.rank} of {self.world}, on {machine})',)
        _tell_torchrun(error)
        return error

    def wait_for_all(self) -> None:
        """Stay until the others have ended too: the first process may hold the store."""
        try:
            self.store.add(ENDED, 1)
            until = time.monotonic() + SILENCE
            while self.rank == 0 and self.store.add(ENDED, 0) < self.world and time.monotonic() < until:
                time.sleep(0.1)
        except Exception:  # the others have ended, and the store with them
            pass
        self.stop()


def _tell_torchrun(error: BaseException) -> None:
    """Write the error where torchrun looks for what to name in its own last lines."""
    path = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if not path:
        return
    is_told = isinstance(error, UserError)
    text = str(error) if is_told else ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    extra = dict(py_callstack=text, timestamp=str(int(time.time())))
    try:
        with open(path, 'w') as file:
            json.dump(dict(message=dict(message=text, extraInfo=extra)), file)
    except OSError:
        pass
