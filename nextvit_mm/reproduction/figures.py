"""Accuracy against latency, as the paper's Figure 1."""

import re
from collections.abc import Sequence

from ..utils.figures import list_colours, new_figure, save_figure
from .results import TITLES
from .tables import CAPTIONS, METRICS, Row, Table


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
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    colours = [c for i, c in enumerate(list_colours('tab20')) if i != 6]  # that red is Next-ViT's
    for i, family in enumerate(families):  # in one colour in every panel
        _draw_family(axis, rows, family, latency, metric, colours[i % len(colours)])
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


def _draw_family(axis, rows: Sequence[Row], family: str, latency: str, metric: str, colour) -> None:
    """The paper's figures of one family, from the fastest to the slowest network; Next-ViT red and bold."""
    points = sorted(
        (float(row.paper[latency]), float(row.paper[metric]))
        for row in rows
        if row.paper.get(latency) and row.paper.get(metric) and _family(row.backbone) == family
    )
    if not points:
        return
    next_vit = family == 'Next-ViT'
    style = dict(color='#d62728', linewidth=2.5, zorder=5) if next_vit else dict(color=colour, linewidth=1)
    axis.plot(*zip(*points), marker='o', markersize=4, **style, label='Next-ViT, paper' if next_vit else None)
    axis.annotate(
        family,
        points[-1],
        xytext=(5, 3),
        textcoords='offset points',
        fontsize=8,
        color=style['color'],
        fontweight='bold' if next_vit else None,
    )


def _finished(row: Row, metric: str) -> float | None:
    return row.result.metrics.get(metric) if row.result and not row.result.remark else None


def _family(backbone: str) -> str:
    """ConvNeXt of ConvNeXt-T, PVTv2 of PVTv2-B2, ResNet of ResNet101."""
    return re.findall(r'Twins-SVT|TRT-ViT|Next-ViT|[A-Za-z]+v2|[A-Za-z]+', backbone)[0]
