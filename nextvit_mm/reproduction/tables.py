"""The paper's result tables with this project's columns beside the published ones."""
import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, TextIO, Tuple

from mmengine.config import Config

from ..analysis.complexity import Complexity, count_complexity
from ..analysis.drawing import pyplot, save_figure
from ..analysis.logs import read_scalars
from ..errors import UserError
from .compare import Comparison
from .published import load_errata, load_release, load_run, load_table

SIZES = {'Next-ViT-S': 'small', 'Next-ViT-B': 'base', 'Next-ViT-L': 'large'}
# Method of a row: published run and config of a size, and of 6M weights. {0} is small, {1} is s.
METHODS: Dict[str, Tuple[str, str]] = {
    'Semantic FPN 80k': ('fpn_80k_nextvit_{0}', 'segmentation/semantic_fpn_nextvit_{1}_80k'),
    'UperNet 160k': ('upernet_160k_nextvit_{0}', 'segmentation/upernet_nextvit_{1}_160k'),
    'Mask R-CNN 1x': ('mask_rcnn_1x_nextvit_{0}', 'detection/mask_rcnn_nextvit_{1}_1x'),
    'Mask R-CNN 3x': ('mask_rcnn_3x_nextvit_{0}', 'detection/mask_rcnn_nextvit_{1}_3x'),
    'ImageNet-1K 224': ('nextvit_{0}_in1k_224', ''),
    'ImageNet-1K 384': ('nextvit_{0}_in1k_384', ''),
}
METRICS = {4: ['top1'], 5: ['miou', 'miou_ms'], 6: ['box_ap', 'mask_ap']}
TITLES = dict(top1='top-1', miou='mIoU', miou_ms='mIoU MS', box_ap='box AP', mask_ap='mask AP')
CAPTIONS = {4: 'Table 4: ImageNet-1K', 5: 'Table 5: ADE20K', 6: 'Table 6: COCO'}
LOGGED = {'accuracy/top1': ('top1', 1.0), 'mIoU': ('miou', 1.0), 'ms/mIoU': ('miou_ms', 1.0),
          'coco/bbox_mAP': ('box_ap', 100.0), 'coco/segm_mAP': ('mask_ap', 100.0)}
FAMILIES = ('ResNeXt', 'ResNeSt', 'ResNet', 'RegNetY', 'EfficientNet', 'EfficientFormer', 'MobileViTv2', 'ConvNeXt',
            'DeiT', 'CSWin', 'Swin', 'PVTv2', 'Twins-SVT', 'PoolFormer', 'CMT', 'CoaT', 'CvT', 'UniFormer', 'TRT-ViT',
            'Next-ViT')
NOT_RUN = 'not run'


@dataclass(frozen=True)
class RunResult:
    """What a run of this project reached.

    Attributes:
        run: The published run that it reproduces.
        work_dir: Where it lies.
        metrics: Last values in %, by the tables' column names.
        remark: What keeps it from being the published recipe, finished; ``''`` if nothing.
    """
    run: str
    work_dir: Path
    metrics: Dict[str, float]
    remark: str = ''


@dataclass
class Row:
    """A row of a table: what is printed in the paper and in the authors' README, and what this project has."""
    method: str
    backbone: str
    weights: str
    paper: Dict[str, str] = field(default_factory=dict)
    release: Dict[str, str] = field(default_factory=dict)
    complexity: Optional[Complexity] = None
    result: Optional[RunResult] = None
    misprints: Dict[str, dict] = field(default_factory=dict)  # by source and column

    @property
    def ours(self) -> bool:
        return self.backbone in SIZES

    def reference(self, column: str) -> Optional[float]:
        """The published value to measure up to: the release's, else the paper's, a misprint put right."""
        for source, values in (('release', self.release), ('paper', self.paper)):
            if values.get(column):
                misprint = self.misprints.get((source, column))
                return float(misprint['correct'] if misprint else values[column])
        return None


def make_table(number: int, run_dirs: Sequence[str] = (), baselines: bool = True) -> List[Row]:
    """Put together a table: published rows, complexity counted now, results of the runs that are found.

    Args:
        number: 4, 5 or 6.
        run_dirs: Folders below which work dirs of runs are looked for.
        baselines: Include the paper's other backbones.

    Returns:
        list[Row]: In the paper's order; Next-ViT from ImageNet-1K-6M, which only the authors' README has, at the end.

    Raises:
        UserError: There is no such table, or a folder of runs does not exist.
    """
    published = load_table(number)
    results = {result.run: result for folder in run_dirs for result in find_runs(folder)}
    rows = [Row(r['method'], r['backbone'], 'ImageNet-1K', paper=r) for r in published
            if baselines or r['backbone'] in SIZES]
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
    counted: Dict[tuple, Complexity] = {}
    for row in rows:
        if row.ours:
            same = (row.method.replace('3x', '1x'), row.backbone)  # of another schedule: the same model
            if same not in counted:
                counted[same] = count_complexity(*_model_of(row))
            row.complexity = counted[same]
            row.result = results.get(run_name(row))
    return rows


def run_name(row: Row) -> str:
    """The published run of a Next-ViT row."""
    name = METHODS[row.method][0].format(SIZES[row.backbone])
    return name + ('_1n1k6m_pretrained' if row.weights.endswith('6M') else '')


def find_runs(folder: str) -> Iterator[RunResult]:
    """The runs below a folder whose config has a :class:`PublishedRunHook`, trained or only tested.

    Raises:
        UserError: There is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f'--runs {folder} is not a folder')
    for work_dir in sorted({path.parents[2] for path in Path(folder).rglob('vis_data/config.py')}):
        configs = sorted(work_dir.glob('*/vis_data/config.py'))
        cfg = Config.fromfile(configs[-1])
        name = next((hook.get('run') for hook in cfg.get('custom_hooks') or []
                     if hook.get('type') == 'PublishedRunHook'), None)
        if name is None:
            continue
        metrics, remark = _trained(work_dir, name)
        for file in sorted(work_dir.glob('*/*.json')):  # of tests
            metrics.update(_percent(json.loads(file.read_text())))
        if metrics:
            yield RunResult(name, work_dir, metrics, remark)


def _trained(work_dir: Path, name: str) -> Tuple[Dict[str, float], str]:
    """Metrics of the last evaluation of a training run, and a remark where it is not a finished published recipe."""
    if not any(work_dir.glob('*/vis_data/scalars.json')):
        return {}, ''
    _, val = read_scalars(work_dir)
    if not val:
        return {}, ''
    run = load_run(name)
    length = run.length
    comparison = Comparison.load(work_dir)
    if comparison is not None and comparison.scale is None:
        return _percent(val[-1]), 'another recipe: ' + '; '.join(comparison.remarks)
    if comparison is not None and run.unit == 'iters':
        length = round(run.length * comparison.scale)
    step = val[-1]['step']
    return _percent(val[-1]), '' if step >= length else f'at {run.unit[:-1]} {step:,} of {length:,}'


def _percent(record: Dict[str, float]) -> Dict[str, float]:
    return {LOGGED[key][0]: record[key] * LOGGED[key][1] for key in LOGGED if key in record}


def _model_of(row: Row) -> Tuple[Config, Optional[Tuple[int, int]]]:
    """The config that a row's model is in, and the size at which the paper counted it if not the usual one."""
    if row.method.startswith('ImageNet'):
        cfg = Config.fromfile(_config_file('_base_/models/nextvit_classifier'))
        cfg.default_scope = 'mmpretrain'
        cfg.model.backbone.arch = SIZES[row.backbone]
        side = int(row.method.split()[-1])
        return cfg, (side, side)
    return Config.fromfile(_config_file(METHODS[row.method][1].format(None, SIZES[row.backbone][0]))), None


def _config_file(name: str) -> Path:
    """A config of this project, in a source tree or in an installed package."""
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent / 'configs', package / '.mim' / 'configs'):
        if (root / f'{name}.py').is_file():
            return root / f'{name}.py'
    raise UserError(f'configs/{name}.py was not found beside or in {package}')


# --- printing -------------------------------------------------------------------------------------------------------

def table_cells(number: int, rows: Sequence[Row], every_column: bool = False) -> Tuple[List[str], List[List[str]]]:
    """Header and cells of a table, as text; a misprint is marked with †."""
    metrics = METRICS[number]
    extra = [c for c in rows[0].paper if c in ('tensorrt_ms', 'coreml_ms') or c.endswith(('50', '75'))]
    header = ['method', 'backbone']
    for name, unit in (('Params', 'M'), ('FLOPs', 'G')):
        header += [f'{name} ({unit}): paper', 'counted so', 'actual']
    for metric in metrics:
        header += [f'{TITLES[metric]}: paper', 'release', 'ours', 'Δ']
    if every_column:
        header += [f'paper: {name}' for name in extra]
    return header, [_cells(row, metrics) + ([row.paper.get(c, '') for c in extra] if every_column else [])
                    for row in rows]


def _cells(row: Row, metrics: Sequence[str]) -> List[str]:
    cells = [row.method, row.backbone + (', 6M' if row.weights.endswith('6M') else '')]
    c = row.complexity
    for column, counted, actual, unit in (('params', c and c.published_params, c and c.params, 1e6),
                                          ('flops', c and c.published_flops, c and c.flops, 1e9)):
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
            cells += [f'{value:.1f}' + ('*' if row.result.remark else ''),
                      '' if reference is None else f'{value - reference:+.1f}']
    return cells


def _printed(row: Row, source: str, column: str) -> str:
    return getattr(row, source).get(column, '') + ('†' if (source, column) in row.misprints else '')


def footnotes(rows: Sequence[Row]) -> List[str]:
    """What the marks mean."""
    notes = [f'† {row.method}, {row.backbone}, {column}: the {source} prints {e["printed"]} for {e["correct"]} '
             f'({e["why"]})' for row in rows for (source, column), e in row.misprints.items()
             if source == 'paper' or column in TITLES]
    notes += [f'* {row.result.work_dir}: {row.result.remark}' for row in rows if row.result and row.result.remark]
    notes += [f'{row.method}, {row.backbone}: {row.result.work_dir}'
              for row in rows if row.result and not row.result.remark]
    notes.append('counted so: in the paper\'s convention (trainable parameters and an unused classifier; multiply-adds '
                 'without attention\'s products); actual: all that the model has and does; ours: runs of this project; '
                 'Δ: ours less the release, or the paper where the release has none; 6M: from ImageNet-1K-6M weights.')
    return notes


def print_table(number: int, rows: Sequence[Row], style: str, file: TextIO) -> None:
    """Write a table as ``'text'``, ``'markdown'`` or ``'csv'`` (every column, and no footnotes)."""
    header, cells = table_cells(number, rows, every_column=style == 'csv')
    if style == 'csv':
        # A column's name is unique there, for whoever reads it by machine.
        group = ''
        names = []
        for name in header:
            group = name.split(':')[0] if ':' in name and not name.startswith('paper') else group
            names.append(name if name in header[:2] or ':' in name else f'{group}: {name}')
        csv.writer(file, lineterminator='\n').writerows([names, *cells])
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    table = Table(title=CAPTIONS[number] if style == 'text' else None,
                  box=box.MARKDOWN if style == 'markdown' else box.SIMPLE_HEAD, padding=(0, 1))
    for i, name in enumerate(header):
        name = name.replace(': ', ':\n') if style == 'text' else name
        table.add_column(name, justify='left' if i < 2 else 'right', no_wrap=True)
    for line in cells:
        table.add_row(*line)
    console = Console(file=file, width=300, color_system=None)  # a narrower terminal wraps; nothing is cut off
    with console.capture() as capture:
        console.print(table)
    file.write('\n'.join(line.rstrip() for line in capture.get().splitlines() if line.strip()) + '\n\n')
    for note in footnotes(rows):
        console.print(('- ' if style == 'markdown' else '') + note, markup=False, highlight=False, soft_wrap=True)


# --- drawing --------------------------------------------------------------------------------------------------------

def draw_table(number: int, rows: Sequence[Row], out_file: str) -> None:
    """Draw accuracy against the paper's latencies, as its Figure 1 does, as PNG.

    Each method has a row of two panels, TensorRT and Core ML. Next-ViT is drawn with the paper's figures, the
    release's, and those of this project's finished runs.
    """
    plt = pyplot()
    methods = list(dict.fromkeys(row.method for row in rows if row.paper))
    if number == 4:  # one panel for all sizes of image, as in the paper
        methods = ['']
    figure, axes = plt.subplots(len(methods), 2, figsize=(14, 5.5 * len(methods)), squeeze=False)
    for panels, method in zip(axes, methods):
        chosen = [row for row in rows if method in (row.method, '') and row.weights == 'ImageNet-1K']
        metric = max(METRICS[number], key=lambda m: sum(bool(row.paper.get(m)) for row in chosen))
        for axis, latency, name in zip(panels, ('tensorrt_ms', 'coreml_ms'), ('TensorRT, T4', 'Core ML, iPhone 12')):
            axis.set_xscale('log')
            _draw_panel(axis, chosen, latency, metric)
            axis.set(xlabel=f'latency of the backbone in the paper, {name} (ms)',
                     ylabel=f'{TITLES[metric]} (%)', title=method or 'ImageNet-1K')
            axis.grid(alpha=0.3, which='both')
    figure.suptitle(CAPTIONS[number] + ': accuracy against latency')
    save_figure(figure, out_file)


def _draw_panel(axis, rows: Sequence[Row], latency: str, metric: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
    colours = [c for i, c in enumerate(pyplot().get_cmap('tab20').colors) if i != 6]  # that red is Next-ViT's
    for i, family in enumerate(FAMILIES):
        points = sorted((float(row.paper[latency]), float(row.paper[metric]), row.backbone) for row in rows
                        if row.paper.get(latency) and row.paper.get(metric) and _family(row.backbone) == family)
        if not points:
            continue
        next_vit = family == 'Next-ViT'
        style = dict(color='#d62728', linewidth=2.5, zorder=5) if next_vit else dict(color=colours[i % len(colours)], linewidth=1)
        axis.plot([x for x, _, _ in points], [y for _, y, _ in points], marker='o', markersize=4, **style,
                  label='Next-ViT, paper' if next_vit else None)
        axis.annotate(family, points[-1][:2], xytext=(5, 3), textcoords='offset points', fontsize=8,
                      color=style['color'], fontweight='bold' if next_vit else None)
    for label, marker, value in (('Next-ViT, release', 's', lambda row: row.release.get(metric)),
                                 ('Next-ViT, this project', '*', lambda row: _finished(row, metric))):
        points = [(float(row.paper[latency]), float(value(row))) for row in rows
                  if row.ours and row.paper.get(latency) and value(row)]
        if points:
            axis.scatter(*zip(*points), marker=marker, s=70, facecolors='none' if marker == 's' else '#2ca02c',
                         edgecolors='#d62728' if marker == 's' else '#2ca02c', zorder=6, label=label)
    axis.legend(loc='lower right')
    axis.margins(x=0.1, y=0.08)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _finished(row: Row, metric: str) -> Optional[float]:
    return row.result.metrics.get(metric) if row.result and not row.result.remark else None


def _family(backbone: str) -> str:
    return next((family for family in FAMILIES if backbone.startswith(family)), re.split(r'[-\d]', backbone)[0])
