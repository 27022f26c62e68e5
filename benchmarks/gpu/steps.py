"""A training step of whole models on a GPU, side by side: seconds and memory, by precision, layout and compilation."""

import copy
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from nextvit_mm.benchmark.machine import describe_machine
from nextvit_mm.benchmark.turns import serve
from nextvit_mm.errors import UserError
from nextvit_mm.utils.subprocess import Served
from nextvit_mm.utils.tables import format_table

from .batches import make_batch

TIMED, UNTIMED, ROUNDS = 8, 2, 2  # steps of a turn, and turns
PLAIN, LAST, COMPILED = ('fp16', 'contiguous', False), ('fp16', 'channels_last', False), ('fp16', 'channels_last', True)
FLOAT, ROUNDED, BRAIN = ((precision, 'contiguous', False) for precision in ('fp32', 'tf32', 'bf16'))
# By model, one of `tools/benchmark.py models` or a config of this project: (precision, layout, compiled) to measure.
# Precisions are autocast's, but fp32 and tf32.
MODELS: dict[str, tuple[tuple[str, str, bool], ...]] = {
    'mask_rcnn_nextvit_s': (PLAIN, FLOAT, ROUNDED, BRAIN, LAST, COMPILED),
    **{f'mask_rcnn_{name}': (PLAIN,) for name in ('timm_nextvit_s', 'resnet50', 'resnet101', 'swin_t')},
    'upernet_nextvit_s': (PLAIN,),
    'segmentation/semantic_fpn_nextvit_s_80k': (PLAIN, FLOAT, LAST, COMPILED),
    'classification/nextvit_s_224': (PLAIN, FLOAT, LAST, COMPILED),
}
PUBLISHED = 'the published log of mask_rcnn_1x_nextvit_small: 0.277 s, 7.2 GB, on each of 8 GPUs with 2 pictures'


class Step:
    """A model with its optimizer and one batch on the GPU, which takes turns."""

    def __init__(self, model: str, precision: str, layout: str, compiled: bool, scale: float = 1.0) -> None:
        from mmengine.device import get_device
        from mmengine.model import revert_sync_batchnorm
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import MODELS as BUILD, init_default_scope

        from nextvit_mm.benchmark.model_list import load, parse_model
        from nextvit_mm.training.config import config_file, use_amp

        cfg = load(parse_model(str(config_file(model)) if '/' in model else model))
        init_default_scope(cfg.default_scope)
        cfg.model.backbone.init_cfg = None
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))  # MMPretrain's runner does so
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = bool(cfg.get('env_cfg', {}).get('cudnn_benchmark'))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == 'tf32'
        self.device = get_device()
        network = revert_sync_batchnorm(BUILD.build(cfg.model)).train()
        self.batch = make_batch(network, cfg.train_dataloader.batch_size, scale)
        network = network.to(self.device)
        if layout == 'channels_last':
            network = network.to(memory_format=torch.channels_last)
        if compiled:
            network.backbone.forward = torch.compile(network.backbone.forward)
        if precision in ('fp16', 'bf16') and self.device == 'cuda':
            use_amp(cfg)
            cfg.optim_wrapper.update(dtype='float16' if precision == 'fp16' else 'bfloat16', loss_scale='dynamic')
        else:
            cfg.optim_wrapper.type = 'OptimWrapper'
            for key in ('loss_scale', 'dtype'):
                cfg.optim_wrapper.pop(key, None)
        cfg.optim_wrapper.optimizer.lr = 1e-7  # the work of a step, and the same work in every step
        self.network, self.optimizer = network, build_optim_wrapper(network, cfg.optim_wrapper)
        self.turn()  # which compiles, and is not kept

    def _step(self) -> dict[str, Any]:
        return self.network.train_step(copy.deepcopy(self.batch), self.optimizer)

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()

    def turn(self) -> dict[str, float]:
        """Median seconds of a step, and peak memory as MMEngine's log has it, in GB."""
        for _ in range(UNTIMED):
            self._step()
        self._wait()
        if self.device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(TIMED):
            start = time.perf_counter()
            self._step()
            self._wait()
            times.append(time.perf_counter() - start)
        memory = 0.0
        if self.device == 'cuda':
            memory = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.empty_cache()  # for those whose turn it is
        return dict(seconds=statistics.median(times), memory=memory)


def main() -> None:
    """A process of a model."""
    serve(Step)


def measure(names: list[str], scale: float = 1.0) -> dict[str, Any]:
    """All models are built and compiled at once; then they take turns, one at a time, in a shuffled order."""
    wanted = [(name, *how) for name in names for how in MODELS[name]]
    rows: dict[str, dict[str, Any]] = {}
    processes: dict[str, Served] = {}

    def start(model: str, precision: str, layout: str, compiled: bool) -> None:
        key = f'{model}/{precision}/{layout}' + '/compiled' * compiled
        arguments = dict(model=model, precision=precision, layout=layout, compiled=compiled, scale=scale)
        rows[key] = dict(arguments, times=[])
        try:
            processes[key] = Served(main, key, arguments)
            print(f'ready: {key}', flush=True)
        except UserError as error:
            rows[key]['failed'] = str(error)[-1500:]
            print(error, flush=True)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda one: start(*one), wanted))
    order = list(processes)
    for number in range(ROUNDS):
        random.Random(number).shuffle(order)
        for key in order:
            if 'failed' in rows[key]:
                continue
            try:
                answer = processes[key].ask('turn')
            except UserError as error:
                rows[key]['failed'] = str(error)[-1500:]
                continue
            rows[key]['times'].append(answer['seconds'])
            rows[key]['memory'] = answer['memory']
    for process in processes.values():
        process.process.kill()
        process.close()
    return dict(machine=describe_machine('cuda' if torch.cuda.is_available() else 'cpu'), rows=rows)


def table(result: dict[str, Any]) -> str:
    lines = []
    for name, row in result['rows'].items():
        if 'failed' in row or not row['times']:
            lines.append([name, 'failed: ' + row.get('failed', 'no turn').splitlines()[-1][:80], '', '', ''])
            continue
        base = result['rows'].get(f'{row["model"]}/fp16/contiguous', row)
        median = statistics.median(row['times'])
        ratio = f'{statistics.median(base["times"]) / median:.2f}×' if base.get('times') else ''
        spread = (max(row['times']) - min(row['times'])) / median
        lines.append([name, f'{median:.4f}', f'{spread:.0%}', ratio, f'{row["memory"]:.1f}'])
    return format_table(['model', 's a step', 'spread', 'to fp16', 'GB'], lines, 'markdown', left=(0,))
