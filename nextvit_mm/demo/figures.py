"""Pictures of a run: its losses, and its predictions beside the ground truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils.figures import new_figure, save_figure
from ..utils.logs import read_scalars


def draw_losses(work_dir: str | Path, out_file: str | Path) -> None:
    """Plot every loss and the learning rate of a run against the iteration, as PNG."""
    train, _ = read_scalars(work_dir)
    figure = new_figure((9, 7))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    iterations = [record['iter'] for record in train]
    names = sorted({key for record in train for key in record if 'loss' in key}, key=lambda n: (n != 'loss', n))
    for name in names:
        values = [record.get(name, np.nan) for record in train]
        top.plot(
            iterations,
            values,
            label=name,
            linewidth=2 if name == 'loss' else 1,
            color='black' if name == 'loss' else None,
        )
    top.set(ylabel='loss', yscale='log', title=f'Training losses of {Path(work_dir).name}')
    top.grid(alpha=0.3)
    top.legend(loc='upper right')
    bottom.plot(iterations, [record['lr'] for record in train], color='tab:gray')
    bottom.set(xlabel='iteration', ylabel='learning rate')
    bottom.grid(alpha=0.3)
    save_figure(figure, out_file)


def draw_detections(
    images: Sequence[np.ndarray],
    truths: Sequence[dict],
    predictions: Sequence[dict],
    classes: Sequence[str],
    out_file: str | Path,
    columns: int = 4,
) -> None:
    """Draw pairs, ground truth on the left and prediction on the right, as one PNG.

    Args:
        images: RGB pictures, (H, W, 3) uint8.
        truths: One dict a picture: ``boxes`` (n, 4) as x1, y1, x2, y2 in pixels, ``labels`` (n,), ``masks``
            (n, H, W) bool.
        predictions: The same and ``scores`` (n,) in [0, 1].
        classes: Names of the labels.
        out_file: The PNG.
        columns: Pairs in a row.
    """
    rows = -(-len(images) // columns)
    figure = new_figure((5 * columns, 2.75 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for axis, image, truth, prediction in zip(axes.flat, images, truths, predictions):
        width = image.shape[1]
        gap = np.full((image.shape[0], max(width // 40, 2), 3), 255, np.uint8)
        pair = [_with_masks(image, instances['masks'], instances['labels']) for instances in (truth, prediction)]
        axis.imshow(np.concatenate([pair[0], gap, pair[1]], axis=1))
        axis.set_title('ground truth                    prediction', fontsize=10)
        for instances, offset in ((truth, 0), (prediction, width + gap.shape[1])):
            _draw_boxes(axis, instances, classes, offset)
    save_figure(figure, out_file)


def draw_segmentations(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    out_file: str | Path,
    columns: int = 3,
) -> None:
    """Draw triples, picture, ground truth and predicted class map, as one PNG with a legend.

    Args:
        images: RGB pictures, (H, W, 3) uint8.
        truths, predictions: Class maps, (H, W) of class numbers; 255 is unlabelled, and white.
        classes, palette: Names of the classes, and their RGB colours.
        out_file: The PNG.
        columns: Triples in a row.
    """
    from matplotlib.patches import Rectangle

    rows = -(-len(images) // columns)
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(palette)] = palette
    figure = new_figure((6 * columns, 2.3 * rows + 0.6))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for axis, image, truth, prediction in zip(axes.flat, images, truths, predictions):
        gap = np.full((image.shape[0], max(image.shape[1] // 40, 2), 3), 255, np.uint8)
        axis.imshow(np.concatenate([image, gap, colours[truth], gap, colours[prediction]], axis=1))
        for i, title in enumerate(('picture', 'ground truth', 'prediction')):
            axis.text((i + 0.5) * (image.shape[1] + gap.shape[1]), -3, title, fontsize=9, ha='center', va='bottom')
    patches = [Rectangle((0, 0), 1, 1, color=np.divide(colour, 255)) for colour in palette]
    figure.legend(patches, classes, loc='lower center', ncols=min(len(classes), 12), frameon=False)
    save_figure(figure, out_file, bottom=0.6 / (2.3 * rows + 0.6))


def draw_classifications(
    images: Sequence[np.ndarray],
    truths: Sequence[int],
    predictions: Sequence[int],
    scores: Sequence[float],
    classes: Sequence[str],
    out_file: str | Path,
    title: str = '',
    columns: int = 10,
) -> None:
    """Draw pictures, with the true and the predicted class over each, as one PNG; wrong ones are red.

    Args:
        images: RGB pictures, (H, W, 3) uint8.
        truths, predictions: Class numbers.
        scores: Of the predicted classes, in [0, 1].
        classes: Names of the classes.
        out_file: The PNG.
        title: What these pictures are.
        columns: Pictures in a row.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure((max(1.5 * columns, 6), 1.8 * rows + 0.5))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for axis, image, truth, prediction, score in zip(axes.flat, images, truths, predictions, scores):
        axis.imshow(image)
        axis.set_title(
            f'{classes[truth]} → {classes[prediction]} ({score:.2f})',
            fontsize=10,
            color='black' if truth == prediction else '#d62728',
            fontweight=None if truth == prediction else 'bold',
        )
    figure.suptitle((f'{title}: ' if title else '') + 'true class → predicted class (score), wrong ones red')
    save_figure(figure, out_file)


def _draw_boxes(axis, instances: dict, classes: Sequence[str], offset: float) -> None:
    from matplotlib.patches import Rectangle

    scores = instances.get('scores', [None] * len(instances['labels']))
    for (x1, y1, x2, y2), label, score in zip(instances['boxes'], instances['labels'], scores):
        colour = _colour(label)
        axis.add_patch(Rectangle((x1 + offset, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.5))
        text = classes[label] + ('' if score is None else f' {score:.2f}')
        axis.text(
            x1 + offset,
            y1,
            text,
            fontsize=9,
            color='white',
            va='bottom' if y1 > 8 else 'top',
            clip_on=True,
            bbox=dict(facecolor=colour, edgecolor='none', pad=1),
        )


def _with_masks(image: np.ndarray, masks: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    image = image.astype(float)
    for mask, label in zip(masks, labels):
        image[mask] = 0.45 * image[mask] + 0.55 * 255 * np.asarray(_colour(label))
    return image.round().astype(np.uint8)


def _colour(label: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps['tab10'](int(label) % 10)[:3]
