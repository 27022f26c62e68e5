"""After, or during, training: a run beside the published one, as a table and a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..published import PublishedRun, load_run
from ..utils.figures import new_figure, save_figure
from ..utils.logs import read_lines, read_scalars
from ..utils.tables import format_table
from .compare import HEADLINES, Comparison, loss_band, published_evaluation

OURS, THEIRS = '#d62728', '#1f77b4'
LOSS_ROWS = 10  # of the printed table


@dataclass(frozen=True)
class Point:
    """A value of a run beside the published one.

    Attributes:
        iteration: Iteration of the run.
        name: Name of the value, as MMEngine logs it.
        own, published: The values.
        band: How far from the published value the published band reaches.
    """

    iteration: int
    name: str
    own: float
    published: float
    band: float

    @property
    def inside(self) -> bool:
        return abs(self.own - self.published) <= self.band


class RunReport:
    """A run and the published run that it is compared with.

    Args:
        work_dir: Work dir of the run, which may still be going on.
        run: Name of the published run. Default: the one that :class:`PublishedRunHook` wrote down there.
        scale: Iterations of the run for each published one. Default: as written down, or 1.

    Attributes:
        train, val: The run's own records, ``iter`` counted in its iterations.
        published: The published run.
        scale: As given or found.
        remarks: What the hook remarked.

    Raises:
        UserError: There is no log, no published run is known for it, or they cannot be compared.
    """

    def __init__(self, work_dir: str | Path, run: str | None = None, scale: float | None = None) -> None:
        self.work_dir = Path(work_dir)
        self.train, val = read_scalars(work_dir)
        found = Comparison.load(work_dir)
        if scale is not None and not scale > 0:
            raise UserError(f'--scale {scale:g} must be more than 0: iterations of the run for each published one')
        if run is None and found is None:
            raise UserError(
                f'{work_dir} does not say which published run it reproduces (PublishedRunHook would have '
                'written it down): name one with --run'
            )
        if run is None and found.scale is None and scale is None:
            raise UserError(
                '\n  '.join([f'{work_dir} cannot be compared with {found.run}:', *found.remarks])
                + '\nTo lay them side by side all the same, give --scale'
            )
        self.published: PublishedRun = load_run(run or found.run)
        same = found is not None and found.run == self.published.name
        self.scale: float = scale or (found.scale if same and found.scale else 1.0)
        self.remarks: list[str] = found.remarks if same and scale is None else []
        self._hooks_means = _hooks_means(self.work_dir)
        # MMEngine counts the evaluations of a run by epochs in epochs.
        step = self.published.epoch_length * self.scale if self.published.unit == 'epochs' else 1
        self.val = [dict(record, iter=round(record['step'] * step)) for record in val]

    def window_means(self, name: str) -> tuple[list[int], list[float], list[float]]:
        """Means over the iterations of each published mean that the run has reached, and the published means.

        The run's own are those that the hook took, over every iteration and process; where it did not, means of what
        was logged, which is part of the iterations of the first process.

        Returns:
            tuple: Iterations at the ends of the windows, own means, published means.
        """
        if not any(name in record for record in self.train):
            return [], [], []
        iterations = np.array([record['iter'] for record in self.train])
        values = np.array([record.get(name, np.nan) for record in self.train], float)
        ends, own, theirs = [], [], []
        for record in self.published.train:
            end, start = record['iter'] * self.scale, (record['iter'] - self.published.window) * self.scale
            inside = values[(iterations > start) & (iterations <= end + 0.5)]
            if record.get(name) is None or not len(inside) or iterations[-1] < round(end):
                continue
            ends.append(round(end))
            own.append(self._hooks_means.get((round(end), name), float(inside.mean())))
            theirs.append(record[name])
        return ends, own, theirs

    def points(self) -> list[Point]:
        """The loss at up to ten windows from first to last, and every headline metric of every evaluation."""
        ends, own, theirs = self.window_means('loss')
        chosen = sorted({round(i) for i in np.linspace(0, len(ends) - 1, LOSS_ROWS)}) if ends else []
        band = loss_band(self.published)
        points = [Point(ends[i], 'loss', own[i], theirs[i], band * theirs[i]) for i in chosen]
        for record in self.val:
            published = self._evaluation(record['iter'])
            points += [
                Point(record['iter'], name, record[name], published[name], HEADLINES[name](published[name]))
                for name in HEADLINES
                if name in record and published.get(name) is not None
            ]
        return points

    def draw(self, out_file: str | Path) -> None:
        """Draw losses, learning rate and metrics, published and own, as PNG."""
        losses = [name for name in self.published.train[0] if 'loss' in name and name != 'val_loss']
        losses.sort(key=lambda name: name != 'loss')
        # Where there is but one loss, it is the sum.
        losses = losses[:1] if len(losses) == 2 else losses
        metrics = [name for name in HEADLINES if name in self.published.val[0]]
        names = [*losses, 'lr', *metrics]
        from matplotlib.ticker import EngFormatter

        columns = min(3, len(names))
        rows = -(-len(names) // columns)
        figure = new_figure((5 * columns, 3.3 * rows))
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(names) :]:
            axis.axis('off')
        end = self.published.max_iters * self.scale
        for axis, name in zip(axes.flat, names):
            (self._draw_metric if name in metrics else self._draw_training)(axis, name)
            axis.set(title=name, xlabel='iteration', xlim=(-0.02 * end, 1.02 * end))
            axis.xaxis.set_major_formatter(EngFormatter(sep=''))
            axis.grid(alpha=0.3)
        last = self.train[-1]['iter'] if self.train else 0
        figure.suptitle(
            f'{self.work_dir.name} beside {self.published.name}, after {last:,} of '
            f'{round(self.published.max_iters * self.scale):,} iterations'
        )
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc='lower center', ncols=4, frameon=False)
        save_figure(figure, out_file, bottom=0.4 / (3.3 * rows))

    def _evaluation(self, iteration: int) -> dict[str, float]:
        return published_evaluation(self.published, iteration / self.scale) or {}

    def _draw_training(self, axis, name: str) -> None:
        records = [record for record in self.published.train if record.get(name) is not None]
        x = np.array([record['iter'] * self.scale for record in records])
        y = np.array([record[name] for record in records])
        axis.plot(x, y, color=THEIRS, zorder=4, label=f'published (mean of {self.published.window})')
        if name == 'loss':
            band = loss_band(self.published)
            axis.fill_between(x, (1 - band) * y, (1 + band) * y, color=THEIRS, alpha=0.15, label='published band')
        axis.plot(
            [record['iter'] for record in self.train],
            [record.get(name, np.nan) for record in self.train],
            color=OURS,
            alpha=0.3 if name != 'lr' else 1,
            linewidth=0.8 if name != 'lr' else 2,
            linestyle='-' if name != 'lr' else '--',
            label='this run, as logged',
        )
        if name != 'lr':
            ends, own, _ = self.window_means(name)
            axis.plot(ends, own, color=OURS, linewidth=2, label='this run, same means')
            finite = [value for value in own[len(own) // 4 :] if np.isfinite(value)]
            axis.set_ylim(0, 1.3 * max(y[len(y) // 50 :].max(), *finite, 0))

    def _draw_metric(self, axis, name: str) -> None:
        x = np.array([record['iter'] * self.scale for record in self.published.val])
        y = np.array([record[name] if record.get(name) is not None else np.nan for record in self.published.val])
        axis.plot(x, y, color=THEIRS, marker='.')
        band = HEADLINES[name](y)
        axis.fill_between(x, y - band, y + band, color=THEIRS, alpha=0.15)
        own = [record for record in self.val if name in record]
        axis.plot(
            [record['iter'] for record in own], [record[name] for record in own], color=OURS, marker='.', linewidth=2
        )


def _hooks_means(work_dir: Path) -> dict[tuple[int, str], float]:
    """The run's means over published windows as the hook took them, by iteration and name."""
    prefix, suffix = 'published/mean/', '_difference'
    return {
        (record['step'], key[len(prefix) : -len(suffix)]): record[key[: -len(suffix)]] + record[key]
        for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for record in read_lines(file)
        for key in record
        if key.startswith(prefix) and key.endswith(suffix)
    }


def _difference(point: Point) -> float:
    """The difference, without what is only the noise of floating-point arithmetic."""
    return round(point.own - point.published, 9)


def compare_run(work_dir: str, run: str | None = None, scale: float | None = None, out: str | None = None) -> RunReport:
    """Print a run beside the published one, and draw both; the arguments are the flags of ``tools/compare_run.py``.

    Args:
        work_dir, run, scale: As :class:`RunReport` takes them.
        out: The PNG. Default: ``published_run.png`` in the work dir.

    Raises:
        UserError: As :class:`RunReport`.
    """
    report = RunReport(work_dir, run, scale)
    out = out or str(Path(work_dir, 'published_run.png'))
    points = report.points()
    if points:
        lines = [
            [
                f'{point.iteration:,}',
                point.name,
                f'{point.own:.4g}',
                f'{point.published:.4g}',
                f'{_difference(point):+.2g}',
                'inside' if point.inside else 'OUTSIDE',
            ]
            for point in points
        ]
        header = ['iteration', 'value', 'this run', 'published', 'difference', 'published band']
        print(format_table(header, lines, left=(1, 5), caption=f'{work_dir} beside {report.published.name}'))
    broken = next((record['iter'] for record in report.train if not np.isfinite(record['loss'])), None)
    if broken is not None:
        print(f'The loss is not finite from iteration {broken:,} on.')
    for remark in report.remarks:
        print(remark)
    if not points:
        print(
            f'Nothing to compare yet: the first mean takes {round(report.published.window * report.scale)} iterations.'
        )
    report.draw(out)
    print(f'picture: {out}')
    return report
