"""Figures of spectra and heat maps, each as one PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..utils.figures import new_figure, save_figure
from .spectrum import Shares

PathLike = str | Path
Curve = tuple[np.ndarray, np.ndarray]  # frequencies in radians a pixel, and Δ
LOW, HIGH = '#1f5fbf', '#d1495b'
RELATIVE = 'Δ ln amplitude'


class Depths(NamedTuple):
    """Spectra of one network.

    Attributes:
        title: The network and its weights.
        blocks: A curve for each block, from the first to the last.
        stages: Of each stage: a title, and Δ over the plane (H, W).
    """

    title: str
    blocks: list[Curve]
    stages: list[tuple[str, np.ndarray]]


class Split(NamedTuple):
    """Spectra of the two branches of one NTB; what the block does not have is None.

    Attributes:
        title: Which block, and the size of its maps.
        low, high: Curves of what comes from the E-MHSA and the MHCA branch.
        mhsa, mhca: Curves of what E-MHSA and MHCA themselves add.
        shares: Shares of energy, by the names above.
        noise: Share above π/2 of white noise.
    """

    title: str
    low: Curve | None
    high: Curve | None
    mhsa: Curve | None
    mhca: Curve | None
    shares: dict[str, Shares]
    noise: float


class Explanation(NamedTuple):
    """Heat maps of one picture.

    Attributes:
        picture: RGB (H, W, 3), uint8.
        title: What is explained.
        heats: (H, W), 0 to 1, by stage.
        boxes: (n, 4) in pixels, drawn on the picture.
        names: (n,), what stands beside them.
        mask: (H, W), bool, outlined on the picture, or None.
    """

    picture: np.ndarray
    title: str
    heats: dict[int, np.ndarray]
    boxes: np.ndarray
    names: Sequence[str]
    mask: np.ndarray | None


def draw_spectra(networks: Sequence[Depths], pictures: str, out_file: PathLike) -> None:
    """A row a network: the curves of its blocks, colored by depth, and a map of the plane for each stage."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    stages = max(len(network.stages) for network in networks)
    rows = len(networks)
    figure = new_figure((5.0 + 2.45 * stages, 3.0 * rows + 0.5), 'constrained')
    axes = figure.subplots(rows, stages + 1, squeeze=False, width_ratios=[1.9] + [1] * stages)
    lowest = min(np.nanmin(curve) for network in networks for _, curve in network.blocks)
    highest = max(0.3, *(np.nanmax(curve) for network in networks for _, curve in network.blocks))
    darkest = min(np.nanpercentile(plane, 1) for network in networks for _, plane in network.stages)
    brightest = max(0.0, *(np.nanpercentile(plane, 99) for network in networks for _, plane in network.stages))
    colors = colormaps['viridis']
    for row, network in enumerate(networks):
        axis = axes[row, 0]
        count = len(network.blocks)
        for i, (frequency, curve) in enumerate(network.blocks):
            axis.plot(
                frequency / np.pi, curve, color=colors(i / max(count - 1, 1)), linewidth=1.4, marker='.', markersize=4
            )
        axis.set(xlim=(0, 1), ylim=(1.06 * lowest, max(1.06 * highest, -0.05 * lowest)), ylabel=RELATIVE)
        axis.set_xlabel('frequency ρ, 1 = π = a period of two pixels' if row == rows - 1 else '')
        axis.axhline(0, color='black', linewidth=0.6)
        axis.grid(alpha=0.3)
        axis.set_title(_lines(network.title), fontsize=10.5, loc='left', fontweight='bold')
        bar = figure.colorbar(
            ScalarMappable(Normalize(1, max(count, 2)), colors), ax=axis, pad=0.02, aspect=25, ticks=[1, max(count, 2)]
        )
        bar.set_label('block', labelpad=-6)
        for axis in axes[row, 1 + len(network.stages) :]:
            axis.axis('off')
        for column, (title, plane) in enumerate(network.stages, start=1):
            axis = axes[row, column]
            shown = _draw_plane(axis, plane, darkest, brightest)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel('horizontal frequency' if row == rows - 1 else '', fontsize=9)
            axis.set_ylabel('vertical frequency' if column == 1 else '', fontsize=9, labelpad=-2)
            axis.tick_params(labelsize=8)
    figure.colorbar(shown, ax=axes[:, -1], extend='both', extendfrac=0.02, pad=0.03, aspect=15 * rows, label=RELATIVE)
    figure.suptitle(f'Fourier spectra of feature maps, relative to the zero frequency; {pictures}', fontsize=12)
    save_figure(figure, out_file)


def draw_branches(
    networks: Sequence[tuple[str, Sequence[Split]]], pictures: str, out_file: PathLike, columns: int = 4
) -> None:
    """Panels of the NTBs of each network: the curves of both branches, with their shares of high frequencies."""
    rows = sum(-(-len(splits) // columns) for _, splits in networks)
    columns = min(columns, max(len(splits) for _, splits in networks))
    figure = new_figure((3.6 * columns + 0.4, 4.3 * rows + 1.2), 'constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    curves = [curve[1] for _, splits in networks for split in splits for curve in split[1:5] if curve is not None]
    lowest, highest = min(map(np.nanmin, curves)), max(map(np.nanmax, curves))
    styles = dict(
        low=('E-MHSA branch', LOW, '-'),
        high=('MHCA branch', HIGH, '-'),
        mhsa=('E-MHSA alone', LOW, ':'),
        mhca=('MHCA alone', HIGH, ':'),
    )
    row = 0
    for title, splits in networks:
        for i, split in enumerate(splits):
            axis = axes[row + i // columns, i % columns]
            lines = [f'{"":<14}{"> π/2":>8}{"constant":>10}']
            for name, (label, color, style) in styles.items():
                curve = getattr(split, name)
                if curve is not None:
                    axis.plot(
                        curve[0] / np.pi, curve[1], color=color, linestyle=style, linewidth=2, marker='.', label=label
                    )
                    one = split.shares[name]
                    lines.append(f'{label:<14}{100 * one.high:>6.1f} %{100 * one.zero:>8.1f} %')
            axis.axvline(0.5, color='gray', linewidth=0.8)
            margin = 0.06 * (highest - lowest)
            axis.set(xlim=(0, 1), ylim=(lowest - margin, highest + margin))
            axis.set_ylabel(RELATIVE if i % columns == 0 else '')
            axis.grid(alpha=0.3)
            # The network's line is there in every panel, empty or not, so that the panels of a row are of one height.
            axis.set_title(
                (title if i == 0 else '') + '\n' + split.title,
                fontsize=10.5,
                loc='left',
                fontweight='bold' if i == 0 else None,
            )
            lines.append(f'{"white noise":<14}{100 * split.noise:>6.1f} %{"":>10}')
            axis.set_xlabel('\n'.join(lines), family='monospace', fontsize=9, linespacing=1.25)
        for i in range(len(splits), -(-len(splits) // columns) * columns):
            axes[row + i // columns, i % columns].axis('off')
        row += -(-len(splits) // columns)
    shown = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(shown.values(), shown.keys(), loc='outside lower center', ncols=4, frameon=False)
    figure.suptitle(
        f'The two branches of each Next Transformer Block; {pictures}\n'
        f'curves: {RELATIVE} relative to the zero frequency, against the frequency ρ (1 = π = a period of '
        'two pixels);\nsolid: what is concatenated, dotted: what attention and convolution add to it; '
        'tables: energy above π/2, of what varies, and constant, of all',
        fontsize=11,
    )
    save_figure(figure, out_file)


def draw_heat_maps(
    explanations: Sequence[Explanation], strides: dict[int, int], title: str, out_file: PathLike
) -> None:
    """A row a picture: the picture, and over it the heat map of each stage."""
    from matplotlib.cm import ScalarMappable

    stages = list(explanations[0].heats)
    rows, columns = len(explanations), len(stages) + 1
    height, width = explanations[0].picture.shape[:2]
    side = 2.9
    figure = new_figure(
        (side * columns + 0.9, (side * min(max(height / width, 0.5), 1.6) + 0.45) * rows + 0.6), 'constrained'
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (picture, what, heats, boxes, names, mask) in enumerate(explanations):
        for axis in axes[row]:
            axis.axis('off')
        axes[row, 0].imshow(picture)
        axes[row, 0].set_title(what, fontsize=9.5)
        _draw_boxes(axes[row, 0], boxes, names)
        if mask is not None and not mask.all():
            axes[row, 0].contour(mask, levels=[0.5], colors='#ffdd00', linewidths=1.5)
        # Gray beneath, so that every color that is seen is heat.
        gray = picture @ np.array([0.299, 0.587, 0.114]) / 255
        for axis, stage in zip(axes[row, 1:], stages):
            axis.imshow(gray, cmap='gray', vmin=0, vmax=1)
            shown = axis.imshow(heats[stage], cmap='turbo', vmin=0, vmax=1, alpha=0.55)
            axis.set_title(f'stage {stage}, stride {strides[stage]}' if row == 0 else '', fontsize=10)
    figure.colorbar(
        ScalarMappable(shown.norm, shown.cmap),
        ax=axes,
        fraction=0.02,
        pad=0.01,
        aspect=15 * rows,
        label='heat, 0 to 1: least to greatest of each map',
    )
    figure.suptitle(title, fontsize=12)
    save_figure(figure, out_file)


def _draw_plane(axis, plane: np.ndarray, darkest: float, brightest: float):
    """Δ over the plane of frequencies, both from −π to π."""
    # At an even side, −π stands for π too: it is drawn at both ends.
    for axis_number, side in enumerate(plane.shape):
        if side % 2 == 0:
            plane = np.concatenate([plane, plane.take([0], axis=axis_number)], axis=axis_number)
    # From the outer edges of the outermost cells, of which there are as many on either side of 0.
    ends = [side / (side - 1) if side > 1 else 1 for side in plane.shape]
    image = axis.imshow(
        plane,
        cmap='magma',
        vmin=darkest,
        vmax=brightest,
        aspect='equal',
        interpolation='nearest',
        extent=(-ends[1], ends[1], ends[0], -ends[0]),
    )
    axis.set_xticks([-1, 0, 1], ['−π', '0', 'π'])
    axis.set_yticks([-1, 0, 1], ['−π', '0', 'π'])
    return image


def _draw_boxes(axis, boxes: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    for (x1, y1, x2, y2), name in zip(boxes, names):
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor='#ffdd00', linewidth=1.8))
        axis.text(
            x1,
            y1,
            name,
            fontsize=8,
            color='black',
            va='bottom' if y1 > 8 else 'top',
            clip_on=True,
            bbox=dict(facecolor='#ffdd00', edgecolor='none', pad=0.8),
        )


def _lines(title: str) -> str:
    """The network in one line, and its weights in the next."""
    return title.replace(', ', ',\n', 1)
