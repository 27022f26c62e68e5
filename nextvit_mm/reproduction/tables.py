"""The paper's result tables with this project's columns beside the published ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmengine.config import Config

from ..benchmark.complexity import Complexity, count_complexity
from ..published import load_errata, load_release, load_table
from ..training.config import config_file
from .results import RunResult, find_runs

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
CAPTIONS = {4: 'Table 4: ImageNet-1K', 5: 'Table 5: ADE20K', 6: 'Table 6: COCO'}


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
    misprints: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)  # by source and column

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
    results: dict[str, list[RunResult]] = {}
    problems: list[str] = []
    for folder in run_dirs:
        found, unreadable = find_runs(folder)
        problems += unreadable
        for result in found:
            results.setdefault(result.run, []).append(result)
    rows = [
        Row(r['method'], r['backbone'], 'ImageNet-1K', paper=r)
        for r in load_table(number)
        if baselines or r['backbone'] in SIZES
    ]
    _add_release(rows)
    _add_misprints(rows, f'table{number}')
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


def _add_release(rows: list[Row]) -> None:
    """Give the rows what the authors' README prints, and add its rows that the paper does not have."""
    by_key = {(row.method, row.backbone, row.weights): row for row in rows}
    methods = {row.method for row in rows}
    for r in load_release():
        if r['method'] in methods:
            key = (r['method'], r['backbone'], r['weights'])
            if key not in by_key:
                by_key[key] = Row(*key)
                rows.append(by_key[key])
            by_key[key].release = r


def _add_misprints(rows: Sequence[Row], table: str) -> None:
    sources = {table: 'paper', 'release': 'release'}
    for erratum in load_errata():
        for row in rows:
            if erratum['source'] in sources and (row.method, row.backbone) == (erratum['method'], erratum['backbone']):
                source = sources[erratum['source']]
                if getattr(row, source).get(erratum['column']) == erratum['printed']:
                    row.misprints[source, erratum['column']] = erratum


def run_name(row: Row) -> str:
    """The published run of a Next-ViT row; of a classifier from ImageNet-1K-6M, whose training is not: its weights."""
    if row.method.startswith('ImageNet') and row.weights.endswith('6M'):
        return f'nextvit-{SIZES[row.backbone]}_6m' + ('-384' if row.method.endswith('384') else '')
    name = METHODS[row.method][0].format(SIZES[row.backbone])
    return name + ('_1n1k6m_pretrained' if row.weights.endswith('6M') else '')


def _model_of(row: Row) -> tuple[Config, tuple[int, int] | None]:
    """The config that a row's model is in, and the size at which the paper counted it if not the usual one."""
    cfg = Config.fromfile(config_file(METHODS[row.method][1].format(None, SIZES[row.backbone][0])))
    side = int(row.method.split()[-1]) if row.method.startswith('ImageNet') else None
    return cfg, (side, side) if side else None
