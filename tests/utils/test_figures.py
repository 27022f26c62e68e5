"""nextvit_mm.utils.figures: figures of our own, that leave a notebook's alone."""

import builtins

import matplotlib
import matplotlib.image
import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.utils.figures import check_png, new_figure, save_figure


def test_drawing_leaves_the_backend_and_pyplots_figures_alone(tmp_path):
    import matplotlib.pyplot as plt

    backend = matplotlib.get_backend()
    matplotlib.use('svg')  # stands for a notebook's
    try:
        theirs = plt.figure()
        figure = new_figure((3, 2))
        figure.subplots().plot([0, 1], [0, 1])
        save_figure(figure, tmp_path / 'folder' / 'line.png')
        assert matplotlib.get_backend() == 'svg' and plt.get_fignums() == [theirs.number] and plt.gcf() is theirs
        plt.close(theirs)
    finally:
        matplotlib.use(backend)
    assert matplotlib.image.imread(tmp_path / 'folder' / 'line.png').shape == (220, 330, 4)


def test_without_matplotlib_one_line_says_what_to_do(monkeypatch):
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith('matplotlib'):
            raise ImportError('No module named matplotlib')
        return found(name, *args, **kwargs)

    monkeypatch.setattr('importlib.import_module', without)
    with pytest.raises(UserError, match='drawing needs matplotlib: pip install matplotlib'):
        new_figure((3, 2))


def test_a_file_that_is_no_png_or_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UserError, match='cannot be written'):
        check_png('/proc/x/line.png')
    with pytest.raises(UserError, match='name that ends in .png'):
        save_figure(new_figure((3, 2)), tmp_path / 'figure.pdf')
