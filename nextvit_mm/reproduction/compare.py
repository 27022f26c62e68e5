"""When and how a run can be compared with a published one."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ..errors import UserError
from ..published import PublishedEpochs, PublishedRun
from ..utils.files import write_json

RECORD = 'published_run.json'  # in the work dir: what the hook found out about the run
# The published band. Away from the start and from drops of the rate, a mean of 500 published iterations differs from
# the mean of its six neighbours by 0.8 to 1.4 % (standard deviation over a run), by 5 % at most but for two spikes of
# nearly 10 %; two in a row never by more than 3.7 %. Evaluations differ from their neighbours' mean by up to 0.8
# points of AP and 1.0 of mIoU. How far two runs of one recipe lie apart is not known; the band is two to three times
# as wide.
LOSS_BAND = 0.10  # of the published loss
AP_BAND = 0.015  # 1.5 points, AP as MMDetection logs it
MIOU_BAND = 2.5  # points, mIoU as MMSegmentation logs it, in %
# Of classifiers an epoch's loss differs from its neighbours' mean, reckoned in the same way, by 0.5 to 0.6 % (standard
# deviation), by 1.8 % at most, two in a row never by more than 1.3 %. Top-1 differs by up to 5.9 % of the published
# error, by 3.1 % of it in the last hundred epochs, and by 0.9 % at 384×384.
EPOCH_LOSS_BAND = 0.05
TOP1_BAND = 0.10  # of the published top-1 error, in % as MMPretrain logs it
HEADLINES: dict[str, Callable[[Any], Any]] = {  # how far the band reaches from a published value, or from many
    'coco/bbox_mAP': lambda value: AP_BAND,
    'coco/segm_mAP': lambda value: AP_BAND,
    'mIoU': lambda value: MIOU_BAND,
    'accuracy/top1': lambda value: TOP1_BAND * (100 - value),
}
# A training set may lack a few images (of COCO's some are filtered), an epoch a few iterations.
SAME = 0.01


@dataclass(frozen=True)
class Comparison:
    """How a run is laid beside a published one.

    Attributes:
        run: The published run's name.
        scale: Iterations of this run that see as many images as one published iteration; None: no comparison.
        remarks: What the user should know; where ``scale`` is None, why.
        start_problem: What is not the published one about the weights that the run began with, if anything.
    """

    run: str
    scale: float | None
    remarks: list[str] = field(default_factory=list)
    start_problem: str | None = None

    def save(self, work_dir: str | Path) -> None:
        """Write it into the work dir, whole or not at all."""
        write_json(Path(work_dir, RECORD), asdict(self))

    @classmethod
    def load(cls, work_dir: str | Path) -> Optional['Comparison']:
        """Read it from a work dir; None if it is not there.

        Raises:
            UserError: The file is damaged.
        """
        path = Path(work_dir, RECORD)
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise UserError(f'{path} cannot be read ({error}): remove it, and name the run with --run') from None


def plan_comparison(
    run: PublishedRun,
    images_per_iter: int,
    max_iters: int,
    train_images: int | None = None,
    start_problem: str | None = None,
) -> Comparison:
    """Decide whether a run can be compared with a published one, and over which axis.

    Two runs of the same recipe are at the same point when they have seen the same share of the same number of images.
    So another batch size is compared along a rescaled axis where the whole run still sees as many images; a run
    that sees more or fewer is on another schedule, and nothing of it can be compared.

    Args:
        run: The published run.
        images_per_iter: Images of one iteration, over all processes.
        max_iters: Iterations of the whole run.
        train_images: Images of the training set; None: unknown, taken to be the published ones.
        start_problem: What is not the published one about the weights that the run begins with; None: nothing.

    Returns:
        Comparison: With ``scale=None`` and the reasons where there is nothing to compare.
    """
    reasons = []
    if train_images is not None and not _same(train_images, run.train_images):
        reasons.append(f'the training set has {train_images:,} images, the published one {run.train_images:,}')
    seen, published = images_per_iter * max_iters, run.batch_size * run.max_iters
    if not _same(seen, published):
        reasons.append(
            f'the run sees {max_iters:,} × {images_per_iter} = {seen:,} images, the published one '
            f'{run.max_iters:,} × {run.batch_size} = {published:,}'
        )
    if start_problem:
        reasons.append(start_problem)
    if reasons:
        return Comparison(run.name, None, reasons, start_problem)
    scale = run.scale_of(images_per_iter, max_iters)
    if scale == 1:
        return Comparison(run.name, 1.0)
    return Comparison(
        run.name,
        scale,
        [
            f'{images_per_iter} images an iteration instead of {run.batch_size}, and as many in all: iteration i is '
            f'compared with the published i / {scale:g}'
        ],
    )


def mean_curve(run: PublishedRun, key: str) -> tuple[np.ndarray, np.ndarray]:
    """A training value of a published run as a curve for ``np.interp``: its means over its windows, at their middles.

    Returns:
        tuple: Iterations, and means.
    """
    points = [(record['iter'] - run.window / 2, record[key]) for record in run.train if record.get(key) is not None]
    return tuple(np.array(points).T)


def same_schedule_iteration(iteration: int, scale: float) -> int:
    """The iteration of a rescaled run, counted from 1, that has the learning rate of a published iteration.

    Both schedules start at iteration 1; what lies before it is stretched.
    """
    return round((iteration - 1) * scale) + 1


def is_printed_rate(run: PublishedRun, rate: float, printed: float) -> bool:
    """Whether a learning rate is the one that a published run's log printed: a classifier's has six decimals."""
    if isinstance(run, PublishedEpochs):
        return abs(rate - printed) <= 0.5001e-6  # rounded
    return rate_is_published(rate, printed)


def rate_is_published(rate: float, printed: float) -> bool:
    """Whether a learning rate is the one that a log printed with four significant digits, give or take the last."""
    return math.isclose(rate, printed, rel_tol=0, abs_tol=1.5 * 10.0 ** (math.floor(math.log10(printed)) - 3))


def loss_band(run: PublishedRun) -> float:
    """How far the published band of a run's mean losses reaches, as a share of the published loss."""
    return EPOCH_LOSS_BAND if isinstance(run, PublishedEpochs) else LOSS_BAND


def loss_is_outside(loss: float, published: float, band: float = LOSS_BAND) -> bool:
    """Whether a mean loss lies outside the published band."""
    return not abs(loss - published) <= band * published


def metrics_outside(metrics: dict[str, float], published: dict[str, float]) -> list[str]:
    """The headline metrics that lie outside the published band, which reaches as far above as below."""
    return [
        key
        for key, band in HEADLINES.items()
        if key in metrics
        and published.get(key) is not None
        and not abs(metrics[key] - published[key]) <= band(published[key])
    ]


def published_evaluation(run: PublishedRun, iteration: float) -> dict | None:
    """The published evaluation after that many published iterations, give or take 1 % of the way from one to the next.

    An epoch need not have exactly as many iterations as the published one.
    """
    interval = run.val[0]['iter']
    nearest = min(run.val, key=lambda record: abs(record['iter'] - iteration))
    return nearest if abs(nearest['iter'] - iteration) <= SAME * interval else None


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * b
