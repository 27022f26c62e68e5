"""Figures of feature maps, stage by stage."""

from pathlib import Path

import numpy as np

from ..utils.figures import new_figure, save_figure


def draw_features(
    picture: np.ndarray, stages: dict[int, np.ndarray], title: str, out_file: str | Path, channels: int = 4
) -> None:
    """The picture, and a row a stage: mean absolute activation, three principal components as color, strong channels.

    Args:
        picture: What the network sees, RGB (H, W, 3), uint8.
        stages: Maps (C, h, w) by the stage's number.
        title: Of the figure.
        out_file: The PNG.
        channels: How many of the strongest channels.
    """
    rows, columns = len(stages), channels + 3
    height, width = picture.shape[:2]
    cell = 2.3
    figure = new_figure(
        (cell * columns, (cell * min(max(height / width, 0.5), 1.6) + 0.25) * rows + 0.5), 'constrained'
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for row, (stage, maps) in enumerate(stages.items()):
        count, h, w = maps.shape
        # Beside every stage, for the eye to compare; the lines are the cells of the stage's map.
        axes[row, 0].imshow(picture)
        if h * w <= 400:
            axes[row, 0].vlines(np.arange(1, w) * width / w - 0.5, -0.5, height - 0.5, color='white', linewidth=0.4)
            axes[row, 0].hlines(np.arange(1, h) * height / h - 0.5, -0.5, width - 0.5, color='white', linewidth=0.4)
        stride = round(max(height / h, width / w))  # where a side is no multiple of it, the last cell is not whole
        axes[row, 0].set_title(
            f'stage {stage}: {count} channels,\n{w}×{h} cells of {stride} pixels', fontsize=10, fontweight='bold'
        )
        mean = np.abs(maps).mean(0)
        shown = axes[row, 1].imshow(mean, cmap='magma', vmin=0)
        axes[row, 1].set_title('mean |activation|\nof all channels', fontsize=10)
        figure.colorbar(shown, ax=axes[row, 1], fraction=0.046, pad=0.03).ax.tick_params(labelsize=7)
        colors, explained = principal_colors(maps)
        axes[row, 2].imshow(colors)
        axes[row, 2].set_title(f'3 components,\n{100 * explained:.0f} % of variance', fontsize=10)
        for axis, channel in zip(axes[row, 3:], strongest_channels(maps, channels)):
            limit = np.abs(maps[channel]).max()
            shown = axis.imshow(maps[channel], cmap='RdBu_r', vmin=-limit, vmax=limit)
            axis.set_title(f'channel {channel}\n', fontsize=10)
            figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.03).ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=12)
    save_figure(figure, out_file)


def strongest_channels(maps: np.ndarray, count: int) -> list[int]:
    """The channels (C, h, w) of the greatest standard deviation over the map, the greatest first.

    Not those of the greatest values: a channel of one large value everywhere shows nothing of the picture.
    """
    return [int(i) for i in np.argsort(-maps.reshape(len(maps), -1).std(1), kind='stable')[:count]]


def principal_colors(maps: np.ndarray) -> tuple[np.ndarray, float]:
    """The first three principal components of the positions of maps (C, h, w), as red, green and blue.

    Each component runs from 0 to 1, its least to its greatest value in this map.

    Returns:
        tuple[np.ndarray, float]: (h, w, 3), and the share of the variance that they hold.
    """
    count, h, w = maps.shape
    points = maps.reshape(count, -1).T.astype(np.float64)  # (h·w, C)
    points -= points.mean(0)
    left, sizes, _ = np.linalg.svd(points, full_matrices=False)
    components = np.zeros((h * w, 3))
    kept = min(3, len(sizes))
    components[:, :kept] = left[:, :kept] * sizes[:kept]
    components -= components.min(0)
    components /= np.maximum(components.max(0), 1e-12)
    total = (sizes**2).sum()
    return components.reshape(h, w, 3), float((sizes[:3] ** 2).sum() / total) if total > 0 else 1.0
