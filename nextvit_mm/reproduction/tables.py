"""The paper's result tables with this project's columns beside the published ones."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from mmengine.config import Config

from ..benchmark.complexity import Complexity, count_complexity
from ..errors import UserError
from ..published import PublishedEpochs, load_errata, load_release, load_run, load_table
from ..training.config import config_file, load_config
from ..utils.figures import new_figure, save_figure
from ..utils.logs import read_scalars
from ..weights.zoo import ZOO
from .compare import Comparison

SIZES = {'Next-ViT-S': 'small', 'Next-ViT-B': 'base', 'Next-ViT-L': 'large'}
# Method of a row: published run and config of a size, and of 6M weights. {0} is small, {1} is s.
METHODS: dict[str, tuple[str, str]] = {
    'Semantic FPN 80k': ('fpn_80k_nextvit_{0}', 'segmentation/semantic_fpn_nextvit_{1}_80k'),
    'UperNet 160k': ('upernet_160k_nextvit_{0}', 'segmentation/upernet_nextvit_{1}_160k'),
    'Mask R-CNN 1x': ('mask_rcnn_1x_nextvit_{0}', 'detection/mask_rcnn_nextvit_{1}_1x'),
    'Mask R-CNN 3x': ('mask_rcnn_3x_nextvit_{0}', 'detection/mask_rcnn_nextvit_{1}_3x'),
    'ImageNet-1K 224': ('nextvit_{0}_in1k_224', 'classification/nextvit_{1}_224'),
    'ImageNet-1K 384': ('nextvit_{0}_in1k_384', 'classification/nextvit_{1}_384'),
}
METRICS = {4: ['top1'], 5: ['miou', 'miou_ms'], 6: ['box_ap', 'mask_ap']}
TITLES = dict(top1='top-1', miou='mIoU', miou_ms='mIoU MS', box_ap='box AP', mask_ap='mask AP')
CAPTIONS = {4: 'Table 4: ImageNet-1K', 5: 'Table 5: ADE20K', 6: 'Table 6: COCO'}
LOGGED = {
    'accuracy/top1': ('top1', 1.0),
    'mIoU': ('miou', 1.0),
    'ms/mIoU': ('miou_ms', 1.0),
    'coco/bbox_mAP': ('box_ap', 100.0),
    'coco/segm_mAP': ('mask_ap', 100.0),
}
NOT_RUN = 'not run'


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


@dataclass
class Row:
    """A row of a table: what is printed in the paper and in the authors' README, and what this project has."""

    method: str
    backbone: str
    weights: str
    paper: dict[str, str] = field(default_factory=dict)
    release: dict[str, str] = field(default_factory=dict)
    complexity: Complexity | None = None
    results: list[RunResult] = field(default_factory=list)  # the best first
    misprints: dict[str, dict] = field(default_factory=dict)  # by source and column

    @property
    def ours(self) -> bool:
        return self.backbone in SIZES

    @property
    def result(self) -> RunResult | None:
        return self.results[0] if self.results else None

    def reference(self, column: str) -> float | None:
        """The published value to measure up to: the release's, else the paper's, a misprint put right."""
        for source, values in (('release', self.release), ('paper', self.paper)):
            if values.get(column):
                misprint = self.misprints.get((source, column))
                return float(misprint['correct'] if misprint else values[column])
        return None


@dataclass(frozen=True)
class Table:
    """A table: its number in the paper, its rows, and what of the runs could not be read."""

    number: int
    rows: list[Row]
    problems: list[str]


def make_table(number: int, run_dirs: Sequence[str] = (), baselines: bool = True) -> Table:
    """Put together a table: published rows, complexity counted now, results of the runs that are found.

    Args:
        number: 4, 5 or 6.
        run_dirs: Folders below which work dirs of runs are looked for.
        baselines: Include the paper's other backbones.

    Returns:
        Table: Its rows in the paper's order; Next-ViT from ImageNet-1K-6M, which only the authors' README has, last.

    Raises:
        UserError: There is no such table, or a folder of runs does not exist.
    """
    published = load_table(number)
    results: dict[str, list[RunResult]] = {}
    problems: list[str] = []
    for folder in run_dirs:
        found, unreadable = find_runs(folder)
        problems += unreadable
        for result in found:
            results.setdefault(result.run, []).append(result)
    rows = [
        Row(r['method'], r['backbone'], 'ImageNet-1K', paper=r)
        for r in published
        if baselines or r['backbone'] in SIZES
    ]
    by_key = {(row.method, row.backbone, row.weights): row for row in rows}
    methods = {row.method for row in rows}
    for r in load_release():
        if r['method'] in methods:
            key = (r['method'], r['backbone'], r['weights'])
            if key not in by_key:
                by_key[key] = Row(*key)
                rows.append(by_key[key])
            by_key[key].release = r
    sources = {f'table{number}': 'paper', 'release': 'release'}
    for erratum in load_errata():
        for row in rows:
            if erratum['source'] in sources and (row.method, row.backbone) == (erratum['method'], erratum['backbone']):
                source = sources[erratum['source']]
                if getattr(row, source).get(erratum['column']) == erratum['printed']:
                    row.misprints[source, erratum['column']] = erratum
    counted: dict[tuple, Complexity] = {}
    for row in rows:
        if row.ours:
            same = (row.method.replace('3x', '1x'), row.backbone)  # of another schedule: the same model
            if same not in counted:
                counted[same] = count_complexity(*_model_of(row))
            row.complexity = counted[same]
            # Of several, the published recipe before others, and then the one that went furthest.
            row.results = sorted(results.get(run_name(row), []), key=lambda r: (r.remark != '', -r.progress))
    return Table(number, rows, problems)


def run_name(row: Row) -> str:
    """The published run of a Next-ViT row; of a classifier from ImageNet-1K-6M, whose training is not: its weights."""
    if row.method.startswith('ImageNet') and row.weights.endswith('6M'):
        return f'nextvit-{SIZES[row.backbone]}_6m' + ('-384' if row.method.endswith('384') else '')
    name = METHODS[row.method][0].format(SIZES[row.backbone])
    return name + ('_1n1k6m_pretrained' if row.weights.endswith('6M') else '')


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
    metrics, progress, remark, trained = {}, 1.0, '', ''
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


def _model_of(row: Row) -> tuple[Config, tuple[int, int] | None]:
    """The config that a row's model is in, and the size at which the paper counted it if not the usual one."""
    cfg = Config.fromfile(config_file(METHODS[row.method][1].format(None, SIZES[row.backbone][0])))
    side = int(row.method.split()[-1]) if row.method.startswith('ImageNet') else None
    return cfg, side and (side, side)


# --- printing -------------------------------------------------------------------------------------------------------


def table_cells(table: Table, every_column: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a table, as text; a misprint is marked with †."""
    metrics, rows = METRICS[table.number], table.rows
    extra = [c for c in rows[0].paper if c in ('tensorrt_ms', 'coreml_ms') or c.endswith(('50', '75'))]
    header = ['method', 'backbone']
    for name, unit in (('Params', 'M'), ('FLOPs', 'G')):
        header += [f'{name} ({unit}): paper', 'counted so', 'actual']
    for metric in metrics:
        header += [f'{TITLES[metric]}: paper', 'release', 'ours', 'Δ']
    if every_column:
        header += [f'paper: {name}' for name in extra]
    return header, [
        _cells(row, metrics) + ([row.paper.get(c, '') for c in extra] if every_column else []) for row in rows
    ]


def _cells(row: Row, metrics: Sequence[str]) -> list[str]:
    cells = [row.method, row.backbone + (', 6M' if row.weights.endswith('6M') else '')]
    c = row.complexity
    for column, counted, actual, unit in (
        ('params', c and c.published_params, c and c.params, 1e6),
        ('flops', c and c.published_flops, c and c.flops, 1e9),
    ):
        digits = 0 if column == 'flops' and row.method.split()[0] != 'ImageNet-1K' else 1
        cells += [_printed(row, 'paper', column)]
        cells += [f'{value / unit:.{digits}f}' for value in (counted, actual)] if c else ['', '']
    for metric in metrics:
        cells += [_printed(row, source, metric) for source in ('paper', 'release')]
        value = row.result.metrics.get(metric) if row.result else None
        reference = row.reference(metric)
        if not row.ours or (value is None and reference is None):
            cells += ['', '']
        elif value is None:
            cells += [NOT_RUN, '']
        else:
            mark = '*' if row.result.remark else '‡' if metric in row.result.tested else ''
            cells += [f'{value:.1f}{mark}', '' if reference is None else f'{value - reference:+.1f}']
    return cells


def _printed(row: Row, source: str, column: str) -> str:
    return getattr(row, source).get(column, '') + ('†' if (source, column) in row.misprints else '')


COUNTED = {  # what the paper's count is, and what Params and FLOPs "actual" are not
    4: 'counted so: all parameters (the paper cuts off their last digit); multiply-adds and the elements of norms '
    'twice; actual: multiply-adds alone',
    5: "counted so: trainable parameters, with an unused classifier; multiply-adds without attention's products, and "
    'the elements of norms, activations and poolings; actual: all parameters and all multiply-adds',
}
COUNTED[6] = COUNTED[5]


def footnotes(table: Table) -> list[str]:
    """What the marks mean, and where the runs lie."""
    notes = [
        f'† {row.method}, {row.backbone}, {column}: the {source} prints {e["printed"]} for {e["correct"]} ({e["why"]})'
        for row in table.rows
        for (source, column), e in row.misprints.items()
        if source == 'paper' or column in TITLES
    ]
    for row in table.rows:
        for i, result in enumerate(row.results):
            mark = '* ' if result.remark else '‡ ' if result.tested else ''
            what = [result.remark] if result.remark else []
            what += [f'{", ".join(TITLES[m] for m in result.tested)} by tools/test.py'] if result.tested else []
            what += [*result.notes, *(['not shown: there is another'] if i else [])]
            notes.append(
                f'{mark if not i else ""}{row.method}, {row.backbone}: {result.work_dir}'
                + (f' ({"; ".join(what)})' if what else '')
            )
    return (
        notes
        + table.problems
        + [
            COUNTED[table.number] + '; ours: runs of this project; Δ: ours less the release, or the paper where the '
            'release has none; 6M: from ImageNet-1K-6M weights.'
        ]
    )


def print_table(table: Table, style: str, file: TextIO) -> None:
    """Write a table as ``'text'``, ``'markdown'`` or ``'csv'`` (every column, and no footnotes)."""
    header, cells = table_cells(table, every_column=style == 'csv')
    print_grid(header, cells, style, file, CAPTIONS[table.number], footnotes(table), text_columns=2)


def print_grid(
    header: Sequence[str],
    cells: Sequence[Sequence[str]],
    style: str,
    file: TextIO,
    caption: str,
    notes: Sequence[str],
    text_columns: int,
) -> None:
    """Write a table as ``'text'``, ``'markdown'`` or ``'csv'`` (without caption and notes).

    Headings such as ``'AP: paper', 'ours'`` are a group, named by its first.
    """
    if style == 'csv':
        # A column's name is unique there, for whoever reads it by machine.
        group = ''
        names = []
        for name in header:
            group = name.split(':')[0] if ':' in name and not name.startswith('paper') else group
            names.append(name if name in header[:text_columns] or ':' in name or not group else f'{group}: {name}')
        csv.writer(file, lineterminator='\n').writerows([names, *cells])
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    grid = RichTable(
        title=caption if style == 'text' else None,
        box=box.MARKDOWN if style == 'markdown' else box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    for i, name in enumerate(header):
        name = name.replace(': ', ':\n') if style == 'text' else name
        grid.add_column(name, justify='left' if i < text_columns else 'right', no_wrap=True)
    for line in cells:
        grid.add_row(*line)
    console = Console(file=file, width=300, color_system=None)  # a narrower terminal wraps; nothing is cut off
    with console.capture() as capture:
        console.print(grid)
    file.write('\n'.join(line.rstrip() for line in capture.get().splitlines() if line.strip()) + '\n\n')
    for note in notes:
        console.print(('- ' if style == 'markdown' else '') + note, markup=False, highlight=False, soft_wrap=True)


# --- drawing --------------------------------------------------------------------------------------------------------


def draw_table(table: Table, out_file: str) -> None:
    """Draw accuracy against the paper's latencies, as its Figure 1 does, as PNG.

    Each method has a row of two panels, TensorRT and Core ML. Next-ViT is drawn with the paper's figures, the
    release's, and those of this project's finished runs.
    """
    number, rows = table.number, table.rows
    methods = list(dict.fromkeys(row.method for row in rows if row.paper))
    if number == 4:  # one panel for all sizes of image, as in the paper
        methods = ['']
    figure = new_figure((14, 5.5 * len(methods)))
    axes = figure.subplots(len(methods), 2, squeeze=False)
    families = list(dict.fromkeys(_family(row.backbone) for row in rows))
    for panels, method in zip(axes, methods):
        chosen = [row for row in rows if method in (row.method, '') and row.weights == 'ImageNet-1K']
        metric = max(METRICS[number], key=lambda m: sum(bool(row.paper.get(m)) for row in chosen))
        for axis, latency, name in zip(panels, ('tensorrt_ms', 'coreml_ms'), ('TensorRT, T4', 'Core ML, iPhone 12')):
            axis.set_xscale('log')
            _draw_panel(axis, chosen, families, latency, metric)
            axis.set(
                xlabel=f'latency of the backbone in the paper, {name} (ms)',
                ylabel=f'{TITLES[metric]} (%)',
                title=method or 'ImageNet-1K',
            )
            axis.grid(alpha=0.3, which='both')
    figure.suptitle(CAPTIONS[number] + ': accuracy against latency')
    save_figure(figure, out_file)


def _draw_panel(axis, rows: Sequence[Row], families: Sequence[str], latency: str, metric: str) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    colours = [c for i, c in enumerate(colormaps['tab20'].colors) if i != 6]  # that red is Next-ViT's
    for i, family in enumerate(families):  # in one colour in every panel
        points = sorted(
            (float(row.paper[latency]), float(row.paper[metric]), row.backbone)
            for row in rows
            if row.paper.get(latency) and row.paper.get(metric) and _family(row.backbone) == family
        )
        if not points:
            continue
        next_vit = family == 'Next-ViT'
        style = (
            dict(color='#d62728', linewidth=2.5, zorder=5)
            if next_vit
            else dict(color=colours[i % len(colours)], linewidth=1)
        )
        axis.plot(
            [x for x, _, _ in points],
            [y for _, y, _ in points],
            marker='o',
            markersize=4,
            **style,
            label='Next-ViT, paper' if next_vit else None,
        )
        axis.annotate(
            family,
            points[-1][:2],
            xytext=(5, 3),
            textcoords='offset points',
            fontsize=8,
            color=style['color'],
            fontweight='bold' if next_vit else None,
        )
    for label, marker, value in (
        ('Next-ViT, release', 's', lambda row: row.release.get(metric)),
        ('Next-ViT, this project', '*', lambda row: _finished(row, metric)),
    ):
        points = [
            (float(row.paper[latency]), float(value(row)))
            for row in rows
            if row.ours and row.paper.get(latency) and value(row)
        ]
        if points:
            axis.scatter(
                *zip(*points),
                marker=marker,
                s=70,
                facecolors='none' if marker == 's' else '#2ca02c',
                edgecolors='#d62728' if marker == 's' else '#2ca02c',
                zorder=6,
                label=label,
            )
    axis.legend(loc='lower right')
    axis.margins(x=0.05, y=0.08)
    left, right = axis.get_xlim()
    axis.set_xlim(left, right * (right / left) ** 0.15)  # room for the names
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _finished(row: Row, metric: str) -> float | None:
    return row.result.metrics.get(metric) if row.result and not row.result.remark else None


def _family(backbone: str) -> str:
    """ConvNeXt of ConvNeXt-T, PVTv2 of PVTv2-B2, ResNet of ResNet101."""
    return re.match(r'Twins-SVT|TRT-ViT|Next-ViT|[A-Za-z]+v2|[A-Za-z]+', backbone)[0]
