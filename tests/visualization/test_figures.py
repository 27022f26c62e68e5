import matplotlib.image
import numpy as np
import pytest

from nextvit_mm.utils.figures import new_figure
from nextvit_mm.visualization import feature_figures, figures


def test_components_are_the_directions_of_greatest_variance():
    rng = np.random.default_rng(0)
    patterns = np.stack(
        [
            np.tile([[9.0, -9], [-9, 9]], (3, 4)),
            np.repeat([[3.0], [-3]], 8, 1).repeat(3, 0),
            np.tile([1.0, 1, 1, 1, -1, -1, -1, -1], (6, 1)),
        ]
    )  # without mean, each across the others
    mixing = np.linalg.qr(rng.standard_normal((20, 20)))[0][:, :3]
    maps = np.einsum('ck,khw->chw', mixing, patterns) + 5
    colors, explained = feature_figures.principal_colors(maps)
    assert colors.shape == (6, 8, 3) and colors.min() == 0 and colors.max() == 1 and abs(explained - 1) < 1e-9
    for i, pattern in enumerate(patterns):
        assert abs(np.corrcoef(colors[..., i].ravel(), pattern.ravel())[0, 1]) > 0.999
    _, of_noise = feature_figures.principal_colors(rng.standard_normal((20, 10, 10)))
    assert 3 / 20 < of_noise < 0.5
    few, all_of_it = feature_figures.principal_colors(np.full((5, 1, 2), 3.0))
    assert np.isfinite(few).all() and all_of_it == 1


def test_strong_channels_differ_over_the_map():
    maps = np.zeros((4, 3, 3))
    maps[0] = 100  # large, and the same everywhere
    maps[1, 0, 0], maps[2, 1, 1], maps[3, 2, 2] = 2, -5, 3
    assert feature_figures.strongest_channels(maps, 3) == [2, 3, 1] and feature_figures.strongest_channels(maps, 9) == [
        2,
        3,
        1,
        0,
    ]


def test_planes_are_symmetric_about_the_zero_frequency(tmp_path):
    for side in (4, 5):
        axis = new_figure((4, 4)).subplots()
        plane = np.arange(side * side, dtype=float).reshape(side, side)
        image = figures._draw_plane(axis, plane, -1, 0)
        shown = image.get_array()
        left, right, bottom, top = image.get_extent()
        assert shown.shape == (5, 5) and left == -right and bottom == -top
        # The middle of the drawn cells is the zero frequency, [side // 2, side // 2].
        assert shown[2, 2] == plane[side // 2, side // 2]


def test_amplitudes_above_the_zero_frequency_are_not_cut_off(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, 'save_figure', lambda figure, out_file: drawn.append(figure))
    frequency, plane = np.linspace(0, np.pi, 4), np.linspace(-2, 1.5, 16).reshape(4, 4)
    figures.draw_spectra(
        [figures.Depths('some', [(frequency, np.array([0, 2.0, 1.0, -1.0]))], [('stage 1', plane)])],
        'a picture',
        tmp_path / 'unused.png',
    )
    axes = drawn[0].axes
    assert axes[0].get_ylim()[1] > 2 and axes[0].get_ylim()[0] < -1
    low, high = next(image for axis in axes for image in axis.get_images()).get_clim()
    assert low < -1.5 and high > 1.3


@pytest.mark.slow
def test_heat_is_drawn_where_it_is(tmp_path):
    picture = np.full((40, 40, 3), 128, np.uint8)
    sheets_of = []
    for corner in (slice(0, 20), slice(20, 40)):
        heat = np.zeros((40, 40))
        heat[corner, corner] = 1
        out = tmp_path / f'{corner.start}.png'
        figures.draw_heat_maps(
            [figures.Explanation(picture, 'a title', {4: heat}, np.zeros((0, 4)), [], None)], {4: 32}, 'all of it', out
        )
        sheets_of.append(matplotlib.image.imread(out)[..., :3])
    first, second = sheets_of
    assert first.shape == second.shape
    rows, columns = np.nonzero(np.abs(first - second).sum(-1) > 0.1)
    middle = first[(rows.min() + rows.max()) // 2 - 20, (columns.min() + columns.max()) // 2 - 20]
    assert middle[0] > middle[2] + 0.2, 'hot is red'
    assert columns.min() > 0.4 * first.shape[1], 'the picture itself is as it was'
