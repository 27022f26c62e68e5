"""Tables 1, 2, 7, 8 and 9: every row's network counted, timed, and trained on the demo data."""

import copy
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TextIO

import torch

from ..adapt.network import NETWORK_KEYS
from ..benchmark.candidates import photographs, settle_norms
from ..benchmark.complexity import Complexity, count_complexity
from ..benchmark.machine import describe_machine
from ..benchmark.rounds import Timer
from ..demo import DigitsConfig, make_digits
from ..deploy.fold import fold
from ..errors import UserError
from ..models import NextViT
from ..published import ABLATION_TABLES, load_ablation
from ..training.config import config_file, load_config
from ..training.launch import train
from ..utils.logs import read_scalars
from ..utils.progress import hush
from .tables import print_grid

RESULT = 'ablation.json'  # in the work dir of a finished run
# By task: the demo's config and data, and the metric with what takes it to %.
TASKS = dict(
    detection=('demo/mask_rcnn_nextvit_s_digits', 'coco', 'coco/bbox_mAP', 100.0),
    segmentation=('demo/semantic_fpn_nextvit_s_digits_scratch', 'ade', 'mIoU', 1.0),
)
LATENCY_SHAPE = (8, 3, 224, 224)  # the paper's


@dataclass
class AblationRow:
    """A row of an ablation table.

    Attributes:
        table, name: Which.
        config: Name of its config in ``configs/ablation``; ``''`` for a network that is not this project's.
        paper: Printed values: ``tensorrt_ms``, ``top1``, ``box_ap``, ``miou``.
        complexity: Of its classifier at 224×224.
        latency: Median time of the folded backbone, s; None where not measured.
        ratio: The latency over that of Next-ViT-S, measured in the same rounds.
        results: By task, what each finished run on the demo data reached, in % (see :data:`TASKS`).
    """

    table: int
    name: str
    config: str
    paper: dict[str, str]
    complexity: Complexity | None = None
    latency: float | None = None
    ratio: float | None = None
    results: dict[str, list[dict]] = field(default_factory=dict)


def load_rows(number: int) -> list[AblationRow]:
    """The rows of a table, as printed, with what their classifiers have and do.

    Raises:
        UserError: It is no table of ablations.
    """
    rows = []
    for printed in load_ablation(number):
        row = AblationRow(
            number,
            printed['row'],
            printed['config'],
            {key: printed[key] for key in ('tensorrt_ms', 'top1', 'box_ap', 'miou')},
        )
        if row.config:
            row.complexity = count_complexity(load_config(str(row_file(row.config))))
        rows.append(row)
    return rows


def row_file(config: str) -> Path:
    """The config file of a row."""
    return config_file(f'ablation/{config}')


def network(config: str) -> dict:
    """What makes a row's network what it is: arch, norm and activation of its backbone."""
    return copy.deepcopy(_network(config))


@cache  # reading a config takes MMEngine half a second
def _network(config: str) -> dict:
    backbone = load_config(str(row_file(config))).model.backbone.to_dict()
    return {key: backbone[key] for key in NETWORK_KEYS if key in backbone}


def first_with_same_network(config: str) -> str:
    """The first row, over all tables, whose network is this one's: it is trained and timed once for all of them."""
    wanted = _network(config)
    return next(
        printed['config']
        for number in ABLATION_TABLES
        for printed in load_ablation(number)
        if printed['config'] and _network(printed['config']) == wanted
    )


def train_rows(
    tables: Sequence[int],
    tasks: Sequence[str],
    data_dir: str,
    work_dir: str,
    seeds: Sequence[int] = (0,),
    cfg_options: dict | None = None,
    configs: Sequence[str] | None = None,
    digits: DigitsConfig | None = None,
) -> None:
    """Train the rows' networks on the demo data from random weights, each for as many iterations; finished ones stay.

    Args:
        tables: Of :data:`.published.ABLATION_TABLES`.
        tasks: Of :data:`TASKS`.
        data_dir: Where the demo data are, or are made.
        work_dir: Runs go to ``work_dir/TASK/ROW/seedN``.
        seeds: Of weights and order of the data; a run for each.
        cfg_options: Dotted keys and values merged into the demo's configs, for all rows alike.
        configs: Only these rows, by the names of their configs. Default: all of the tables.
        digits: The data to make.

    Raises:
        UserError: ``data_dir`` holds something else, a row is none of the tables, or a finished run had other options.
    """
    names = [printed['config'] for number in tables for printed in load_ablation(number) if printed['config']]
    for name in configs or ():
        if name not in names:
            raise UserError(
                f'{name!r} is not a row of the tables {", ".join(map(str, tables))}; there are:\n  '
                + '\n  '.join(names)
            )
    try:
        digits = digits or DigitsConfig()
        make_digits(data_dir, digits)
    except (FileExistsError, ValueError) as error:
        raise UserError(str(error)) from None
    networks = list(dict.fromkeys(map(first_with_same_network, configs or names)))
    runs = [(task, config, seed) for seed in seeds for task in tasks for config in networks]
    settings = dict(cfg_options={key: str(value) for key, value in (cfg_options or {}).items()}, digits=asdict(digits))
    for i, (task, config, seed) in enumerate(runs, start=1):
        folder = Path(work_dir, task, config, f'seed{seed}')
        same = [name for name in names if name != config and first_with_same_network(name) == config]
        title = f'[{i}/{len(runs)}] {task}, {config}{" = " * bool(same)}{" = ".join(same)}, seed {seed}'
        if (folder / RESULT).is_file():
            done = read_result(folder)
            if done['settings'] != settings:
                raise UserError(
                    f'{folder} was run with other settings ({done["settings"]}): remove it, or choose '
                    'another --work-dir'
                )
            print(f'{title}: done before, {done["metric"]:.1f} %', flush=True)
            continue
        print(title, flush=True)
        result = _train_row(task, config, seed, data_dir, folder, cfg_options, settings)
        print(
            f'{title}: {result["metric"]:.1f} % after {result["iterations"]} iterations, '
            f'{result["seconds"] / 60:.1f} min',
            flush=True,
        )


def _train_row(
    task: str, config: str, seed: int, data_dir: str, folder: Path, cfg_options: dict | None, settings: dict
) -> dict:
    demo, data, metric, whole = TASKS[task]
    start = time.monotonic()
    runner = train(
        str(config_file(demo)),
        work_dir=str(folder),
        data_root=str(Path(data_dir, data)),
        backbone=str(row_file(config)),
        no_pretrained=True,
        seed=seed,
        cfg_options=cfg_options,
    )
    record = read_scalars(folder)[1][-1]
    result = dict(
        task=task,
        config=config,
        seed=seed,
        metric=record[metric] * whole,
        iterations=runner.iter,
        batch_size=runner.train_dataloader.batch_sampler.batch_size,
        seconds=time.monotonic() - start,
        threads=torch.get_num_threads(),
        settings=settings,
    )
    for checkpoint in folder.glob('*.pth'):  # 100 MB each, of networks that serve no one
        checkpoint.unlink()
    part = folder / f'{RESULT}.part'
    part.write_text(json.dumps(result, indent=2) + '\n')
    part.replace(folder / RESULT)
    return result


def read_result(folder: Path) -> dict:
    """What a finished run left.

    Raises:
        UserError: It is damaged.
    """
    path = folder / RESULT
    try:
        result = json.loads(path.read_text())
        float(result['metric']), result['settings']
        return result
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} cannot be read ({error}): remove it, and run the row again') from None


def add_results(rows: Sequence[AblationRow], work_dirs: Sequence[str]) -> None:
    """Give each row what was found of it below ``work_dirs``.

    Raises:
        UserError: There is no such folder, a result is damaged, or runs of one task differ in iterations or batch.
    """
    for work_dir in work_dirs:
        if not Path(work_dir).is_dir():
            raise UserError(f'--runs {work_dir} is not a folder')
    paths = sorted({path.resolve() for work_dir in work_dirs for path in Path(work_dir).rglob(RESULT)})
    found = [read_result(path.parent) for path in paths]
    if len({(r['task'], r['config'], r['seed']) for r in found}) < len(found):
        raise UserError(f'a row lies twice below {", ".join(work_dirs)}: give the folder of one of them')
    for task in TASKS:
        lengths = {(r['iterations'], r['batch_size'], str(r['settings'])) for r in found if r['task'] == task}
        if len(lengths) > 1:
            raise UserError(
                f'the runs of {task} below {", ".join(work_dirs)} differ, and cannot stand in one table '
                f'(iterations, batch size, settings): {", ".join(map(str, sorted(lengths)))}'
            )
    for row in rows:
        for task in TASKS:
            row.results[task] = [
                r
                for r in found
                if r['task'] == task and row.config and r['config'] == first_with_same_network(row.config)
            ]


def measure_latencies(
    rows: Sequence[AblationRow], rounds: int = 5, seed: int = 0, shape: Sequence[int] = LATENCY_SHAPE
) -> dict:
    """Time the rows' folded backbones on the CPU, in interleaved rounds, beside Next-ViT-S.

    Channels-last, float32, random weights. Gives the rows their ``latency`` and ``ratio``.

    Returns:
        dict: The machine (:func:`nextvit_mm.benchmark.machine.describe_machine`).
    """
    image = photographs(shape, seed).contiguous(memory_format=torch.channels_last)
    reference = first_with_same_network('table8_r075')
    names = list(dict.fromkeys([reference] + [first_with_same_network(row.config) for row in rows if row.config]))
    runs = {}
    for name in names:
        torch.manual_seed(seed)
        model = NextViT(**network(name)).eval()
        settle_norms(model, (64, 64), seed)
        runs[name] = _forward(fold(model).to(memory_format=torch.channels_last), image)
    machine = describe_machine()
    times = Timer(rounds, 1, 0.2, seed, 'cpu').measure(runs, 'latency')
    hush()
    medians = {name: statistics.median(times[name]) for name in names}
    for row in rows:
        if row.config:
            row.latency = medians[first_with_same_network(row.config)]
            row.ratio = row.latency / medians[reference]
    return machine


def _forward(model: torch.nn.Module, image: torch.Tensor):
    def run() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return model(image)

    return run


CAPTIONS = {
    1: 'Table 1: hybrid strategies',
    2: 'Table 2: N and L of stage 3',
    7: 'Table 7: convolution blocks',
    8: 'Table 8: mix ratio r',
    9: 'Table 9: norm and activation',
}
NOT_LEGIBLE = (2, 9)
_WITHIN = 'rows have multiply-adds within 6 % of those of Next-ViT-S (the paper: about its TensorRT latency)'
_DEPTHS = 'all rows have the depths of Next-ViT-S'
MATCHED = {1: _WITHIN, 2: 'all but stage 3 is that of Next-ViT-S', 7: _WITHIN, 8: _DEPTHS, 9: _DEPTHS}


def table_cells(rows: Sequence[AblationRow]) -> tuple[list[str], list[list[str]]]:
    """Header and cells, as text."""
    header = [
        'row',
        'Params (M)',
        'FLOPs (G)',
        'latency (ms): paper',
        'ours',
        'to S',
        'top-1: paper',
        'box AP: paper',
        'demo',
        'mIoU: paper',
        'demo',
    ]
    cells = []
    for row in rows:
        count = row.complexity
        cells.append(
            [
                row.name,
                f'{count.params / 1e6:.1f}' if count else '',
                f'{count.flops / 1e9:.2f}' if count else '',
                row.paper['tensorrt_ms'],
                f'{row.latency * 1e3:.0f}' if row.latency else '',
                f'{row.ratio:.2f}×' if row.ratio else '',
                row.paper['top1'],
                row.paper['box_ap'],
                _demo(row, 'detection'),
                row.paper['miou'],
                _demo(row, 'segmentation'),
            ]
        )
    return header, cells


def print_rows(number: int, rows: Sequence[AblationRow], style: str, file: TextIO, machine: dict | None = None) -> None:
    """Write the table as :func:`.tables.print_grid` does."""
    header, cells = table_cells(rows)
    print_grid(header, cells, style, file, CAPTIONS[number], footnotes(number, rows, machine), text_columns=1)


def _demo(row: AblationRow, task: str) -> str:
    values = [result['metric'] for result in row.results.get(task, [])]
    if not row.config:
        return ''
    if not values:
        return 'not run'
    spread = f' ±{statistics.stdev(values):.1f} ({len(values)})' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def footnotes(number: int, rows: Sequence[AblationRow], machine: dict | None = None) -> list[str]:
    """What the columns mean, and how long the runs took."""
    notes = [
        'Params and FLOPs: of the classifier at 224×224, all multiply-adds; the paper does not print the '
        f'depths of its rows; here {MATCHED[number]}'
    ]
    if number in NOT_LEGIBLE:
        notes.append(
            f'the figures that Table {number} prints were not legible in the copy of the paper that this '
            'project had, and are left out'
        )
    if machine:
        notes.append(
            f'latency: backbone, folded, channels-last, fp32, 8×3×224×224 on {machine["cpu"]}, '
            f'{machine["torch_threads"]} threads, {machine["date"]}; to S: over that of Next-ViT-S in the '
            'same rounds; paper: TensorRT on a T4'
        )
    for task in TASKS:
        results = [result for row in rows for result in row.results.get(task, [])]
        if results:
            seeds = sorted({result['seed'] for result in results})
            longest = max(result['seconds'] for result in results) / 60
            notes.append(
                f'demo, {task}: {results[0]["iterations"]} iterations of {results[0]["batch_size"]} digit '
                f'pictures from random weights, at most {longest:.1f} min a run; '
                + (
                    f'mean ± standard deviation (runs) over seeds {", ".join(map(str, seeds))}'
                    if len(seeds) > 1
                    else 'one seed, so that small differences say nothing'
                )
            )
    return notes
