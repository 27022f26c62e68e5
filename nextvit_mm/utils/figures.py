"""Figures, drawn without a screen and written as PNG."""

from pathlib import Path
from typing import Literal

from ..errors import UserError
from .files import check_writable
from .optional import need


def new_figure(figsize: tuple[float, float], layout: Literal['constrained'] | None = None):
    """An empty figure of matplotlib's, in inches, with a canvas of its own.

    pyplot is left alone: it would hold the figure, and a notebook's way of showing figures would change.

    Raises:
        UserError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def list_colours(*names: str) -> list[tuple[float, ...]]:
    """The colours of matplotlib's qualitative maps, one after the other."""
    from matplotlib import colormaps

    return [colormaps[name](i) for name in names for i in range(colormaps[name].N)]


def check_matplotlib() -> None:
    """See that matplotlib is installed.

    Raises:
        UserError: It is not.
    """
    need('matplotlib', 'drawing')


def save_figure(figure, out_file: str | Path, bottom: float = 0.0) -> None:
    """Write a figure as PNG, its folder with it.

    A figure without a layout of its own is laid out tightly; ``bottom`` is the share that is then kept for a legend.
    """
    out_file = Path(out_file)
    check_png(out_file)
    if figure.get_layout_engine() is None:
        figure.tight_layout(rect=(0, bottom, 1, 1))
    try:
        out_file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out_file, dpi=110)
    except OSError as error:
        raise UserError(f'{out_file} cannot be written: {error.strerror}') from None


def check_png(out_file: str | Path) -> None:
    """See that a picture's name ends in ``.png``, and that it can be written.

    Raises:
        UserError: It does not, or cannot.
    """
    if Path(out_file).suffix.lower() != '.png':
        raise UserError(f'{out_file}: pictures are PNG; give a name that ends in .png')
    check_writable(out_file)
