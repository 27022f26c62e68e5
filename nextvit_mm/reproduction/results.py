"""What runs of this project reached, found in their work dirs."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..published import PublishedEpochs, load_run
from ..training.config import load_config
from ..utils.logs import read_scalars
from ..weights.zoo import ZOO
from .compare import Comparison

TITLES = dict(top1='top-1', miou='mIoU', miou_ms='mIoU MS', box_ap='box AP', mask_ap='mask AP')
# Under which name MMEngine logs a column's metric, and what takes it to %.
LOGGED = {
    'accuracy/top1': ('top1', 1.0),
    'mIoU': ('miou', 1.0),
    'ms/mIoU': ('miou_ms', 1.0),
    'coco/bbox_mAP': ('box_ap', 100.0),
    'coco/segm_mAP': ('mask_ap', 100.0),
}


@dataclass(frozen=True)
class RunResult:
    """What a run of this project reached.

    Attributes:
        run: The published run that it reproduces, or the published weights that it evaluates.
        work_dir: Where it lies.
        metrics: Last values in %, of classifiers those of the best epoch, by the tables' column names.
        progress: Share of the run that its last evaluation came after; 1 for a checkpoint that was only tested.
        remark: What keeps it from being the published recipe, finished; ``''`` if nothing.
        tested: Metrics that are of ``tools/test.py``, on a checkpoint that need not be the run's own.
        notes: What was found that is no metric of the table.
    """

    run: str
    work_dir: Path
    metrics: dict[str, float]
    progress: float = 1.0
    remark: str = ''
    tested: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_runs(folder: str) -> tuple[list[RunResult], list[str]]:
    """The runs below a folder whose config has a :class:`PublishedRunHook`, trained or only tested, or ``weights``.

    Returns:
        tuple[list[RunResult], list[str]]: The runs, and what was left out because it cannot be read.

    Raises:
        UserError: There is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f'--runs {folder} is not a folder')
    results, problems = [], []
    for work_dir in sorted({path.parents[2] for path in Path(folder).resolve().rglob('vis_data/config.py')}):
        try:
            result = _read_run(work_dir)
        except (UserError, ValueError, OSError) as error:
            problems.append(f'{work_dir} was left out: {error}')
        else:
            results += [result] if result else []
    return results, problems


def _read_run(work_dir: Path) -> RunResult | None:
    cfg = load_config(str(max(work_dir.glob('*/vis_data/config.py'))))
    name = next(
        (hook.get('run') for hook in cfg.get('custom_hooks') or [] if hook.get('type') == 'PublishedRunHook'),
        cfg.get('weights'),
    )
    if name is None:
        return None
    if name not in ZOO:
        load_run(name)  # or raise
    metrics: dict[str, float] = {}
    progress, remark, trained = 1.0, '', ''
    logs = list(work_dir.glob('*/vis_data/scalars.json'))
    if logs and name not in ZOO:
        trained = max(logs).parents[1].name  # its time stamp
        metrics, progress, remark = _trained(work_dir, name)
    tested: dict[str, float] = {}
    notes: list[str] = []
    for file in sorted(work_dir.glob('*/*.json')):
        if file.parent.name > trained:
            found, pipeline = _percent(json.loads(file.read_text())), _pipeline_of(file)
            if pipeline:
                notes += [
                    f'{TITLES[key]} {value:.1f} with --pipeline {pipeline}'
                    for key, value in found.items()
                    if key in TITLES
                ]
            else:
                tested.update(found)
    metrics = {**metrics, **tested}
    return RunResult(name, work_dir, metrics, progress, remark, tuple(tested), tuple(notes)) if metrics else None


def _pipeline_of(file: Path) -> str:
    """The ``--pipeline`` that a test's metrics were found with; ``''`` for the config's own."""
    config = file.parent / 'vis_data' / 'config.py'
    return load_config(str(config)).get('tested_pipeline', '') if config.is_file() else ''


def _trained(work_dir: Path, name: str) -> tuple[dict[str, float], float, str]:
    """Metrics of the last evaluation of a training run, the share of it that was done, and a remark if need be."""
    run, comparison = load_run(name), Comparison.load(work_dir)
    _, val = read_scalars(work_dir)
    if not val:
        return {}, 0.0, ''
    if comparison is not None and comparison.scale is None:
        return _percent(val[-1]), 0.0, 'another recipe: ' + '; '.join(comparison.remarks)
    length = run.length
    if comparison is not None and run.unit == 'iters':
        length = round(run.length * comparison.scale)
    step = val[-1]['step']
    if isinstance(run, PublishedEpochs):  # the release's figures are of the best epoch, and its checkpoint is kept
        val.sort(key=lambda record: record.get('accuracy/top1', 0.0))
    return _percent(val[-1]), step / length, '' if step >= length else f'at {run.unit[:-1]} {step:,} of {length:,}'


def _percent(record: dict[str, float]) -> dict[str, float]:
    return {LOGGED[key][0]: record[key] * LOGGED[key][1] for key in LOGGED if key in record}
