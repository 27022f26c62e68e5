"""The runs of the sweep: each in a process of its own, with limits, and kept in a JSON as soon as it ends."""

import inspect
import json
import multiprocessing
import os
import resource
import signal
from pathlib import Path
from typing import Any

import mmcv._ext
import mmdet
import mmdet.models  # noqa: F401  (registers; what is imported here, no process imports again)
import mmpretrain.models  # noqa: F401
import mmseg.models  # noqa: F401
from mmengine.registry import MODELS

from nextvit_mm.adapt import read_config
from tests.ops.cases import operators

from .choice import backbone_of, combinations
from .step import SIDES, Watched, attempt, first_line

SECONDS = 120  # of the processor, for a run
PATIENCE = 5  # times that, on the clock
GIGABYTES = 8  # of memory, beside the parent's
COLUMNS = dict(own=None, ours='small')


def choose(file: Path) -> dict[str, Any]:
    """The combinations in the JSON; they are looked for when there is no JSON yet."""
    if file.exists():
        return json.loads(file.read_text())
    rows = {kind: dict(config=name) for kind, name in sorted(combinations().items())}
    for row in rows.values():
        skipped = why_not(row['config'])
        if skipped:
            row['skipped'] = skipped
    write(file, rows)
    return rows


def why_not(name: str) -> str:
    """Why a config is not run; empty for what is."""
    cfg = read_config(name)
    backbone = backbone_of(cfg.model)
    if 'type' not in backbone:
        return 'no backbone in the config'
    kind = backbone['type']
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(cfg.get('default_scope') or name.split(':')[0]) as registry:
            kind = registry.get(kind)
    parameters = inspect.signature(kind.forward).parameters if kind is not None else {}
    if {'mask', 'importance'} & set(parameters):
        return 'the backbone takes a mask beside the pictures'
    return ''


def sweep(file: Path, wanted: str, again: str) -> dict[str, Any]:
    """Run what has not been run.

    Args:
        file: The JSON.
        wanted: Only combinations or configs with this in their names.
        again: Run those with this outcome again: ``fails`` or ``refused``.
    """
    rows = choose(file)
    for kind, row in rows.items():
        if 'skipped' in row or wanted not in kind and wanted not in row['config']:
            continue
        for column, backbone in COLUMNS.items():
            done = row.get(column)
            if done and done['outcome'] != again:
                continue
            side = row['own'].get('side') if column == 'ours' else None
            row[column] = apart(row['config'], backbone, (side,) if side else SIDES)
            write(file, rows)
            print(kind, '|', column, {k: v for k, v in row[column].items() if k != 'trace'}, flush=True)
    return rows


def apart(name: str, backbone: str | None, sides: tuple[int, ...]) -> dict[str, Any]:
    """One run in a process of its own."""
    context = multiprocessing.get_context('fork')  # importing the libraries again would take longer than a step
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, backbone, sides, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(SECONDS * PATIENCE):
            return receiver.recv()
    except EOFError:
        pass
    finally:
        if process.is_alive():
            process.join(5)
            process.kill()
        process.join()
    code = process.exitcode
    return dict(outcome='fails', reason=f'ended with {code}' if code != -signal.SIGKILL else 'ended at a limit')


def _work(name: str, backbone: str | None, sides: tuple[int, ...], sender) -> None:
    os.environ['HF_HUB_OFFLINE'] = '1'  # language models are not part of it
    os.chdir(Path(str(mmdet.__file__)).parent / '.mim')  # some configs name another one, from the root of the sources
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    watched = Watched(mmcv._ext)
    try:
        with open('/proc/self/statm') as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + GIGABYTES * 2**30,) * 2)
        with operators(watched):
            row = attempt(name, backbone, sides)
    except BaseException as error:
        row = dict(outcome='fails', reason=first_line(error))
    sender.send(dict(row, operators=sorted(watched.called)))


def write(file: Path, rows: dict[str, Any]) -> None:
    """Write the whole, or nothing."""
    part = file.with_suffix('.part')
    part.write_text(json.dumps(rows, indent=1))
    part.replace(file)
