"""Training and testing in several processes, with and without GPUs, on one machine or several."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import is_cuda_available, is_mlu_available, is_musa_available, is_npu_available
from mmengine.dist import all_gather_object, barrier, broadcast, broadcast_object_list, get_rank, get_world_size
from mmengine.dist.utils import init_dist
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch import distributed, nn

from ..errors import UserError
from ..utils.processes import set_environment
from ..weights.models import unwrap_model

BLOCK = 1 << 24  # bytes of a file that are sent at a time


def has_accelerator() -> bool:
    return any(available() for available in (is_cuda_available, is_npu_available, is_mlu_available, is_musa_available))


def start(cfg: Config) -> None:
    """Make the process group of a run: with gloo where there is no accelerator, or else as MMEngine does.

    MMEngine would call CUDA without asking. Does nothing where ``cfg.launcher`` is ``'none'``; a group that is there
    already is kept.

    Raises:
        UserError: The processes were not started by this launcher, there are fewer GPUs than processes, or the config
            wants to spread the model itself.
    """
    if cfg.launcher == 'none':
        return
    _refuse_strategies(cfg)
    set_environment(cfg.launcher)
    _set_threads()
    if distributed.is_initialized():
        return
    env: dict[str, Any] = cfg.get('env_cfg', {})
    set_multi_processing(**env.get('mp_cfg', {}), distributed=True)
    options, store = dict(env.get('dist_cfg', {})), _store_after_a_restart()
    if not has_accelerator():
        timeout = options.get('timeout')
        distributed.init_process_group('gloo', timeout=timedelta(seconds=timeout) if timeout else None, **store)
        return
    local, gpus = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
    if is_cuda_available() and local >= gpus:
        raise UserError(
            f'process {local + 1} of this machine finds no GPU of its own: torch sees {gpus} here. Start as many '
            'processes as GPUs, or set CUDA_VISIBLE_DEVICES= to run on the CPU'
        )
    init_dist(cfg.launcher, **options, **store)


def _store_after_a_restart() -> dict[str, Any]:
    """What tells torch where the processes meet, once torchrun has started them again.

    torchrun's store is still there then, and in it the addresses of the processes that are gone.
    """
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    if attempt == '0':
        return {}
    store, rank, world_size = next(distributed.rendezvous('env://'))
    return dict(store=distributed.PrefixStore(f'start {attempt}', store), rank=rank, world_size=world_size)


def set_wrapper(cfg: Config) -> None:
    """Choose what wraps the model of a run in several processes; a config that names a wrapper keeps it."""
    if has_accelerator() and (cfg.get('model_wrapper_cfg') or {}).get('type') == 'DistributedOnCPU':
        cfg.pop('model_wrapper_cfg')  # of a config that a run on CPUs wrote down
    if cfg.launcher == 'none':
        return
    if cfg.model.type == 'ExportedModel':
        cfg.model_wrapper_cfg = dict(type='FixedModel')
    elif not has_accelerator():
        given = cfg.get('model_wrapper_cfg') or dict(
            type='DistributedOnCPU',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        cfg.model_wrapper_cfg = dict(given, device_ids=None)


def join(runner: Runner) -> None:
    """Have a run in several processes evaluate together what it saves."""
    if get_world_size() > 1:
        runner.register_hook(SharedEvaluationHook(), 'VERY_LOW')


@MODEL_WRAPPERS.register_module()
class DistributedOnCPU(MMDistributedDataParallel):
    """Distributed data parallel without a GPU, where torch has no SyncBN: each becomes a BN, and the log says so."""

    def __init__(self, module: nn.Module, **kwargs) -> None:
        count = sum(isinstance(m, nn.SyncBatchNorm) for m in module.modules())
        if count:
            module = revert_sync_batchnorm(module)
            print_log(
                f'no GPU: {count} SyncBN are BN here, each over the pictures of its own process', logger='current'
            )
        super().__init__(module=module, **kwargs)


@MODEL_WRAPPERS.register_module()
class FixedModel(nn.Module):
    """A model that has nothing to train, which torch's wrappers refuse; every process tests its own pictures."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs) -> Any:
        return self.module(*args, **kwargs)

    def val_step(self, data: dict) -> list:
        return self.module.val_step(data)

    test_step = val_step


class SharedEvaluationHook(Hook):
    """Before an evaluation of several processes: one model, and results that reach the first process.

    Without SyncBN every process has running statistics of its own; the first one's are saved, so that all evaluate
    with these. MMEngine collects the results through files below the current folder; where the machines do not share
    it, they are sent instead.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        self._prepare(runner, runner.val_evaluator)

    def before_test_epoch(self, runner: Runner) -> None:
        self._prepare(runner, runner.test_evaluator)

    def _prepare(self, runner: Runner, evaluator: Any) -> None:
        for buffer in unwrap_model(runner.model).buffers():
            broadcast(buffer)
        if not share_folder('.'):
            for metric in evaluator.metrics:
                metric.collect_device = 'gpu'  # MMEngine's word for "by the process group", which may be gloo's


def share_folder(folder: str) -> bool:
    """Whether what the first process writes into a folder is there for all others."""
    if _on_one_machine():
        return True
    with ExitStack() as stack:
        name = None
        if get_rank() == 0:
            with suppress(OSError):
                name = os.path.basename(stack.enter_context(tempfile.NamedTemporaryFile(dir=folder)).name)
        name = same_for_all(name)
        return all(all_gather_object(name is not None and os.path.exists(os.path.join(folder, name))))


@contextmanager
def first_process_first() -> Iterator[None]:
    """Have the first process of a machine do what follows before its others do, such as writing files that all read."""
    is_local_first = os.environ.get('LOCAL_RANK', '0') == '0'
    if not is_local_first:
        barrier()
    yield
    if is_local_first:
        barrier()


def same_for_all(value: Any) -> Any:
    """The first process's value."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def same_checkpoint(path: str | None, work_dir: str) -> str | None:
    """The checkpoint that the first process goes on from, on every machine.

    Args:
        path: The file that this process has found, if any; the first one's counts.
        work_dir: Where a machine that lacks the file, or has another, gets a copy.

    Returns:
        str | None: The file's path for this process.
    """
    chosen = same_for_all(path)
    if chosen is None or '://' in chosen or _on_one_machine():
        return chosen
    is_local_first = os.environ['LOCAL_RANK'] == '0'
    own = chosen if os.path.isfile(chosen) else os.path.join(work_dir, os.path.basename(chosen))
    digest = _digest(own) if is_local_first else ''
    wanted = same_for_all(digest)
    if not wanted:  # a name, or a file that is not there, which is said by who reads it
        return chosen
    if not all(all_gather_object(digest in ('', wanted) and (bool(digest) or not is_local_first))):
        _send(chosen, own if is_local_first and digest != wanted else None)
    barrier()
    return own


def _send(path: str, target: str | None) -> None:
    """Send a file of the first process to all; those that name a target write it there, whole or not at all."""
    size = same_for_all(os.path.getsize(path) if get_rank() == 0 else None)
    part = Path(f'{target}.part') if target else None
    if part:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
    with open(path, 'rb') if get_rank() == 0 else nullcontext() as source:
        for begin in range(0, size, BLOCK):
            data = torch.empty(min(BLOCK, size - begin), dtype=torch.uint8)
            if source:
                data = torch.frombuffer(bytearray(source.read(len(data))), dtype=torch.uint8)
            broadcast(data)
            if part:
                with open(part, 'ab') as file:
                    file.write(data.numpy().tobytes())
    if part:
        part.replace(target)
        print(f'{target} has come from the first machine')


def _digest(path: str) -> str:
    """SHA-256 of a file, empty where there is none."""
    if not os.path.isfile(path):
        return ''
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(BLOCK), b''):
            digest.update(block)
    return digest.hexdigest()


def _on_one_machine() -> bool:
    here = os.environ.get('LOCAL_WORLD_SIZE') or os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE')
    return get_world_size() == 1 or here == str(get_world_size()) or os.environ.get('SLURM_JOB_NUM_NODES') == '1'


def _set_threads() -> None:
    """A process's share of the cores, where neither the user nor torchrun has set it; MMEngine would take one."""
    if 'OMP_NUM_THREADS' in os.environ:
        return
    here = int(os.environ.get('LOCAL_WORLD_SIZE') or os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE') or 1)
    share = os.environ.get('SLURM_CPUS_PER_TASK') or max(1, len(os.sched_getaffinity(0)) // here)
    os.environ['OMP_NUM_THREADS'] = str(share)
    torch.set_num_threads(int(share))


def _refuse_strategies(cfg: Config) -> None:
    wrapper = (cfg.get('model_wrapper_cfg') or {}).get('type', '')
    wanted = (cfg.get('strategy') or {}).get('type') or (wrapper if 'FullySharded' in str(wrapper) else None)
    if wanted or cfg.get('runner_type') == 'FlexibleRunner':
        raise UserError(
            f'{cfg.filename} wants {wanted or cfg.runner_type}, and these tools share out pictures, not parameters: '
            'the largest recipe has 91 M of these, which fit one GPU. Leave out strategy, runner_type and '
            'model_wrapper_cfg'
        )
