"""The networks of Tables 1, 2, 7, 8 and 9, trained on the demo data; and what such runs reached."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ..demo import DigitsConfig, make_digits
from ..errors import UserError
from ..published import load_ablation
from ..training.config import config_file, load_config
from ..training.launch import train
from ..utils.files import write_json
from ..utils.logs import read_scalars
from .ablation import AblationRow, first_with_same_network, row_file

RESULT = 'ablation.json'  # in the work dir of a finished run
# By task: the demo's config and data, and the metric with what takes it to %.
TASKS = dict(
    detection=('demo/mask_rcnn_nextvit_s_digits', 'coco', 'coco/bbox_mAP', 100.0),
    segmentation=('demo/semantic_fpn_nextvit_s_digits_scratch', 'ade', 'mIoU', 1.0),
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
    options = {key: str(value) for key, value in (cfg_options or {}).items()}
    shared = dict(cfg_options=options, digits=asdict(digits))
    settings = {task: dict(shared, config=_digest_of_config(TASKS[task][0])) for task in tasks}
    for i, (task, config, seed) in enumerate(runs, start=1):
        folder = Path(work_dir, task, config, f'seed{seed}')
        same = [name for name in names if name != config and first_with_same_network(name) == config]
        title = f'[{i}/{len(runs)}] {task}, {config}{" = " * bool(same)}{" = ".join(same)}, seed {seed}'
        if (folder / RESULT).is_file():
            done = read_result(folder)
            if done['settings'] != settings[task]:
                raise UserError(
                    f'{folder} was run with other settings ({done["settings"]}, not {settings[task]}): remove it, or '
                    'choose another --work-dir'
                )
            print(f'{title}: done before, {done["metric"]:.1f} %', flush=True)
            continue
        print(title, flush=True)
        result = _train_row(task, config, seed, data_dir, folder, cfg_options, settings[task])
        print(
            f'{title}: {result["metric"]:.1f} % after {result["iterations"]} iterations, '
            f'{result["seconds"] / 60:.1f} min',
            flush=True,
        )


def _digest_of_config(name: str) -> str:
    """The same for runs of the same config: its neck and heads, too, decide what a network reaches."""
    return hashlib.sha256(load_config(str(config_file(name))).pretty_text.encode()).hexdigest()[:8]


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
    write_json(folder / RESULT, result)
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
