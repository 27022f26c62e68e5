"""What the benchmark measured, for the terminal, as Markdown, as JSON and as a picture."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..utils.figures import list_colours, new_figure, save_figure
from ..utils.files import write_text
from ..utils.tables import format_table
from .candidates import TABLE_4, parse_candidate
from .latency import LatencyRow
from .models import ModelRow
from .rounds import Result, Row, shape_name
from .training import TrainingRow
from .turns import PARTS

Table = tuple[list[str], list[list[str]]]  # headings and lines; the first columns are text, the others figures
TEXT_COLUMNS = 3
FAMILY = re.compile(r'[a-z]+?(?=v?\d|_|y_|$)')


def run_lines(result: Result) -> list[str]:
    """Machine, settings and limits of a run, one line each."""
    machine, settings = result.machine, result.settings
    lines = [
        f'{machine["date"]}: {machine["gpu"] or machine["cpu"]}, {machine["cores"]} cores, '
        f'{machine["torch_threads"]} threads, {machine["instructions"]}, {machine["system"]}',
        ', '.join(f'{name} {version}' for name, version in machine['versions'].items()),
        f'{settings["rounds"]} interleaved rounds, seed {settings["seed"]}; ratios to {settings["reference"]}',
    ]
    if machine['load'] and machine['load'] > 0.5:
        lines.append(f'NOT ALONE: the load was {machine["load"]} before the run; run it again alone')
    for precision, limits in result.limits.items():
        kernels = ', '.join(f'{name} {value / 1e9:,.0f}' for name, value in limits.items() if name != 'best')
        lines.append(f'limit of the machine in {precision}: ' + (f'{kernels} GFLOP/s' if kernels else 'not measured'))
    return lines


def latency_table(rows: Sequence[LatencyRow]) -> Table:
    """Rows of one shape, the fastest last."""
    headings = ['candidate', 'runtime', 'precision', 'ms', 'quartiles', 'ratio', 'GFLOP/s', 'of limit', 'error']
    lines = [
        [
            row.candidate,
            row.runtime,
            row.precision,
            *_times(row, digits=1),
            f'{row.flops_per_s / 1e9:.0f}',
            '' if row.share is None else f'{row.share:.0%}',
            f'{row.error:.0e}' + ('' if row.agrees else ' WRONG'),
        ]
        for row in sorted(rows, key=lambda row: -row.median)
    ]
    return headings, lines


def training_table(rows: Sequence[TrainingRow]) -> Table:
    """The same of training steps."""
    headings = ['candidate', 'precision', 'step', 'ms', 'quartiles', 'ratio', 'GFLOP/s', 'of limit', 'memory', 'error']
    lines = [
        [
            row.candidate,
            row.precision,
            shape_name(row.shape),
            *_times(row, digits=0),
            f'{row.flops_per_s / 1e9:.0f}',
            '' if row.share is None else f'{row.share:.0%}',
            'not measured' if row.memory is None else f'{row.memory / 2**20:.0f} MiB',
            f'{row.error:.0e}' + ('' if row.agrees else ' WRONG'),
        ]
        for row in sorted(rows, key=lambda row: -row.median)
    ]
    return headings, lines


def models_table(rows: Sequence[ModelRow]) -> Table:
    """The same of whole models."""
    headings = ['model', 'runtime', 'precision', 'ms', 'quartiles', 'ratio', 'of limit']
    headings += ['pictures/s', 'memory', 'found', 'differs']
    lines = [
        [
            row.candidate,
            row.runtime,
            row.precision,
            *_times(row, digits=0),
            '' if row.share is None else f'{row.share:.0%}',
            f'{row.pictures_per_s:.2g}',
            'not measured' if row.memory is None else f'{row.memory / 2**20:.0f} MiB',
            f'{row.found}',
            f'{row.error:.1%}' + ('' if row.agrees else ' WRONG'),
        ]
        for row in sorted(rows, key=lambda row: -row.median)
    ]
    return headings, lines


def _times(row: Row, digits: int) -> list[str]:
    """The median and the quartiles in ms, and the ratio."""
    median, *quartiles = (f'{seconds * 1e3:.{digits}f}' for seconds in (row.median, *row.quartiles))
    return [median, '–'.join(quartiles), '' if row.ratio is None else f'{row.ratio:.2f}×']


def stages_table(rows: Sequence[ModelRow]) -> Table:
    """Where the time of whole models goes, ms: the stages, and the parts of the network by its profile."""
    headings = ['model', 'runtime', 'precision', 'read', *PARTS, 'paste', 'draw']
    lines = []
    for row in sorted(rows, key=lambda row: -row.median):
        times = [row.stages['read'], *(row.parts[part] for part in PARTS), row.stages['paste'], row.stages['draw']]
        lines.append([row.candidate, row.runtime, row.precision, *(f'{seconds * 1e3:.0f}' for seconds in times)])
    return headings, lines


def sections(result: Result) -> list[tuple[str, Table]]:
    """Title and table of every shape."""
    found = []
    for shape in dict.fromkeys(row.shape for row in result.rows):
        rows = [row for row in result.rows if row.shape == shape]
        steps = [row for row in rows if isinstance(row, TrainingRow)]
        calls = [row for row in rows if isinstance(row, LatencyRow)]
        models = [row for row in rows if isinstance(row, ModelRow)]
        if steps:
            found.append((f'{shape_name(shape)}, backbone, forward + backward + AdamW', training_table(steps)))
        if calls:
            found.append((f'{shape_name(shape)}, backbone, inference', latency_table(calls)))
        if models:
            found.append((f'{shape_name(shape)}, whole models, the network alone', models_table(models)))
            found.append((f'{shape_name(shape)}, where the time goes, ms', stages_table(models)))
    return found


def skipped_lines(result: Result) -> list[str]:
    """What was not measured, by reason."""
    by_reason: dict[str, list[str]] = {}
    for skip in result.skipped:
        by_reason.setdefault(skip['reason'], []).append(skip['key'])
    return [f'{", ".join(dict.fromkeys(keys))}: {reason}' for reason, keys in by_reason.items()]


def as_text(table: Table) -> str:
    """A table for the terminal."""
    return format_table(*table, left=range(TEXT_COLUMNS))


def as_markdown(table: Table) -> str:
    """A table in Markdown."""
    return format_table(*table, 'markdown', range(TEXT_COLUMNS))


def print_report(result: Result) -> None:
    """Everything, on the terminal."""
    print('\n'.join(run_lines(result)))
    for title, table in sections(result):
        print(f'\n{title}\n{as_text(table)}')
    if result.skipped:
        print('\nnot measured')
        print('\n'.join(f'  {line}' for line in skipped_lines(result)))


def write_markdown(results: Sequence[Result], out_file: str | Path, first: Table | None = None) -> None:
    """The same in Markdown; ``first`` is a table that goes before."""
    parts = [as_markdown(first)] if first else []
    for result in results:
        parts.append('\n'.join(f'- {line}' for line in run_lines(result)))
        parts += [f'**{title}**\n\n{as_markdown(table)}' for title, table in sections(result)]
        if result.skipped:
            parts.append('Not measured:\n\n' + '\n'.join(f'- {line}' for line in skipped_lines(result)))
    write_text(out_file, '\n\n'.join(parts) + '\n')


def draw_latency(result: Result[LatencyRow], out_file: str | Path) -> None:
    """Published accuracy against measured latency, as the paper's Figure 1: a panel per shape, runtime and precision.

    Ours is drawn folded or not, whichever was faster, in the panel of eager PyTorch. Rows whose maps were wrong are
    left out, and so are networks without a published accuracy.

    Raises:
        UserError: No row has a published accuracy, or matplotlib is missing.
    """
    panels: dict[tuple[str, str, str], list[LatencyRow]] = {}
    for row in result.rows:
        if row.top1 is not None and row.agrees:
            runtime = 'eager' if row.runtime == 'folded' else row.runtime
            panels.setdefault((shape_name(row.shape), runtime, row.precision), []).append(row)
    if not panels:
        raise UserError('--png draws latency against published accuracy, and no candidate measured here has one')
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    figure = new_figure((7.5 * columns, 5.2 * lines))
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis('off')
    families = sorted({_family(row) for row in result.rows if not _is_nextvit(row)})
    for axis, ((shape, runtime, precision), rows) in zip(axes.flat, panels.items()):
        _draw_panel(axis, rows, families)
        axis.set(
            xlabel=f'measured latency of a batch, {shape.replace("x", "×")} (ms)',
            ylabel='published top-1 on ImageNet-1K (%)',
            title=f'{runtime}, {precision}',
        )
    handles = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels())}
    if handles:  # beside the panels, where it hides no network
        figure.legend(handles.values(), handles.keys(), loc='upper right', fontsize=8)
    machine = result.machine
    figure.suptitle(
        f'{machine["gpu"] or machine["cpu"]}, {machine["torch_threads"]} threads, {machine["date"]}\n'
        'backbones with random weights; accuracy as printed in Table 4',
        fontsize=10,
    )
    save_figure(figure, out_file)


def _draw_panel(axis, rows: Sequence[LatencyRow], families: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    colours = [c for i, c in enumerate(list_colours('tab10', 'Dark2')) if i != 3]  # that red is Next-ViT's
    series = [
        (
            'Next-ViT, this project',
            [r for r in rows if parse_candidate(r.candidate).ours],
            dict(color='#d62728', marker='o', linewidth=2.5, markersize=8, zorder=6),
        ),
        (
            'Next-ViT, timm',
            [r for r in rows if _is_nextvit(r) and not parse_candidate(r.candidate).ours],
            dict(color='#d62728', marker='s', linestyle=':', markersize=8, markerfacecolor='white', zorder=5),
        ),
    ]
    series += [
        (
            family,
            [r for r in rows if not _is_nextvit(r) and _family(r) == family],
            dict(color=colours[i % len(colours)], marker='o', markersize=6),
        )
        for i, family in enumerate(families)
    ]
    times = [row.median * 1e3 for row in rows]
    right = min(times) + 0.8 * (max(times) - min(times))  # beyond it a name would leave the panel
    for label, members, style in series:
        fastest: dict[str, LatencyRow] = {}
        for row in members:
            name = TABLE_4[parse_candidate(row.candidate).timm_name]
            if name not in fastest or row.median < fastest[name].median:
                fastest[name] = row
        points = sorted((row.median * 1e3, row.top1, name) for name, row in fastest.items())
        if not points:
            continue
        nextvit = label.startswith('Next-ViT')
        axis.plot([x for x, _, _ in points], [y for _, y, _ in points], label=label if nextvit else None, **style)
        for x, y, name in points:
            if label != 'Next-ViT, timm':
                on_the_left = nextvit or x > right
                axis.annotate(
                    name,
                    (x, y),
                    xytext=(-7, 7) if nextvit else (-6, -13) if on_the_left else (6, 5),
                    textcoords='offset points',
                    fontsize=8,
                    ha='right' if on_the_left else 'left',
                    color=style['color'],
                    fontweight='bold' if nextvit else None,
                )
    axis.xaxis.set_major_locator(MaxNLocator(8))
    axis.margins(x=0.15, y=0.12)
    axis.set_xlim(left=max(axis.get_xlim()[0], 0))
    axis.grid(alpha=0.3)


def _family(row: Row) -> str:
    """``resnet`` of resnet101, ``convnext`` of convnext_tiny, ``pvt`` of pvt_v2_b2."""
    return FAMILY.match(parse_candidate(row.candidate).timm_name)[0]


def _is_nextvit(row: Row) -> bool:
    return parse_candidate(row.candidate).timm_name.startswith('nextvit_')
