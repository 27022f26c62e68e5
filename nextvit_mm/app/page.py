"""The page itself, in Gradio, and its server. Behind ``tools/app.py``."""

import functools
import html
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..utils.command import option
from ..utils.optional import need
from .view import Row, Seen, View

LOOPBACK = '127.0.0.1'
LEAST_SCORE = 0.05  # of the recipes' detections, and so of the threshold
MOST_ROWS = 20  # of the results in words
STAGES = 4
BUTTONS = ['download', 'fullscreen']  # not Gradio's third one, which hands the picture to another server
COLORS = 'Colors of a stage: the three principal components of its channels.'
MODEL = 'model'  # what uses the model does so one after the other: heat maps hook into it
STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
#result img { max-height: 62vh; object-fit: contain; }
.rows { border-collapse: collapse; width: 100%; border: none !important; }
.rows td, .rows tr { padding: 3px 6px; border: none !important; }
.rows td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; margin-right: 0.5em; }
.problem { border-left: 4px solid #c62828; padding: 6px 10px; }
.quiet { opacity: 0.75; }
"""


@dataclass
class AppOptions:
    """What the page takes: the flags of ``tools/app.py``, by their names."""

    config: str = option(help='config or its name, work dir, or checkpoint with its config inside')
    checkpoint: str | None = option(None, help='the weights, where CONFIG does not hold them', nargs='?')
    device: str | None = option(None, help='such as cpu or cuda:1 (default: a GPU where there is one)')
    host: str = option(LOOPBACK, help='address to listen at; 0.0.0.0 is every one of this machine')
    port: int = option(7860, help='port to listen at', metavar='N')


def serve(options: AppOptions, wait: bool = True) -> Any:
    """Load the model and serve the page until Ctrl-C.

    Args:
        options: What, and where.
        wait: Whether to stay until Ctrl-C; False returns Gradio's page while a thread serves it.

    Raises:
        UserError: Gradio is not there, the model cannot be had, or the port is in use.
    """
    gradio = need('gradio', 'the page')
    view = View(options.config, options.checkpoint, options.device)
    page = make_page(view)
    # Fonts of the machine: the theme's own would be fetched from another server.
    theme = gradio.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace'])
    try:
        page.launch(
            server_name=options.host,
            server_port=options.port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            theme=theme,
            css=STYLE,
        )
    except OSError:
        raise UserError(
            f'nothing can be served at {options.host}, port {options.port}: it is in use, or not of this machine; '
            'give another --port or --host'
        ) from None
    print(f'http://{options.host}:{options.port}  (Ctrl-C ends it)', flush=True)
    if not is_loopback(options.host):
        print('everybody who reaches this address can use the page: it asks for no password', flush=True)
    if wait:
        page.block_thread()
    return page


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def make_page(view: View) -> Any:
    """The page of a model, not yet served; ``gradio.Blocks``.

    Raises:
        UserError: Gradio is not there.
    """
    gradio = need('gradio', 'the page')
    with gradio.Blocks(title=view.network.name, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        seen = gradio.State()
        file, threshold, *parts = _lay_out(gradio, view)
        words, result, heat, heat_words = parts[:4]
        shown = [seen, *parts]
        gate = dict(concurrency_id=MODEL, concurrency_limit=1, show_progress='minimal')
        file.upload(functools.partial(on_picture, view), [file, threshold], shown, **gate)
        file.clear(nothing, None, shown)
        threshold.change(
            functools.partial(on_threshold, view),
            [seen, threshold],
            [words, result, heat, heat_words],
            trigger_mode='always_last',
            **gate,
        )
    return page


def _lay_out(gradio: Any, view: View) -> list[Any]:
    """The parts of the page: file, threshold, results in words and as a picture, heat map, what it explains, stages."""
    gradio.HTML(_heading(view))
    with gradio.Row():
        with gradio.Column(scale=1, min_width=260):
            file = gradio.File(label='Drop a picture here', elem_id='file', height=140)
            threshold = gradio.Slider(
                LEAST_SCORE,
                0.95,
                0.3,
                step=0.05,
                label='Least score',
                elem_id='threshold',
                visible=view.task == 'detection',
            )
            words = gradio.HTML(elem_id='words')
        with gradio.Column(scale=3):
            result = gradio.Image(label='Result', elem_id='result', interactive=False, buttons=BUTTONS)
    with gradio.Row():
        with gradio.Column(scale=1):
            heat = gradio.Image(label='Heat map', elem_id='heat', interactive=False, buttons=BUTTONS)
            heat_words = gradio.HTML(elem_id='heat-words')
        with gradio.Column(scale=1):
            with gradio.Row():
                plain = dict(interactive=False, min_width=200, buttons=[])
                stages = [gradio.Image(label=f'Stage {i}', elem_id=f'stage-{i}', **plain) for i in range(1, STAGES + 1)]
            gradio.HTML(quiet(COLORS))
    return [file, threshold, words, result, heat, heat_words, *stages]


def on_picture(view: View, file: str, score_thr: float) -> Iterator[list[Any]]:
    """What the page shows of a file, in the order of ``make_page``: first the result, then the rest of it."""
    try:
        seen = view.look(file)
    except UserError as error:
        yield nothing(problem(str(error)))
        return
    first = [seen, table(view.rows(seen, score_thr)), view.drawn(seen, score_thr)]
    yield [*first, None, quiet('…'), *[None] * STAGES]
    heat, words = view.heat(seen, score_thr)
    yield [*first, heat, quiet(words), *[None] * STAGES]
    yield [*first, heat, quiet(words), *_stages(view, seen)]


def on_threshold(view: View, seen: Seen | None, score_thr: float) -> Iterator[list[Any]]:
    """The result and the heat map again, with another threshold; nothing is detected anew."""
    if seen is None:
        yield [None] * 4
        return
    first = [table(view.rows(seen, score_thr)), view.drawn(seen, score_thr)]
    heat, words = view.heat(seen, score_thr)
    yield [*first, heat, quiet(words)]


def nothing(words: str | None = None) -> list[Any]:
    """The page without a picture."""
    return [None, words, None, None, None, *[None] * STAGES]


def table(rows: Sequence[Row]) -> str:
    """Results in words, as HTML."""
    if not rows:
        return quiet('nothing with such a score')
    lines = []
    for row in rows[:MOST_ROWS]:
        swatch = f'<span class="swatch" style="background: rgb{row.color}"></span>' if row.color else ''
        lines.append(f'<tr><td>{swatch}{html.escape(row.name)}</td><td>{row.value}</td></tr>')
    if len(rows) > MOST_ROWS:
        lines.append(f'<tr><td class="quiet">and {len(rows) - MOST_ROWS} more</td><td></td></tr>')
    return f'<table class="rows">{"".join(lines)}</table>'


def problem(words: str) -> str:
    """An error, as HTML."""
    return f'<div class="problem" role="alert">{html.escape(words)}</div>'


def quiet(words: str) -> str:
    """A remark, as HTML."""
    return f'<div class="quiet">{html.escape(words)}</div>'


def _stages(view: View, seen: Seen) -> list[Any]:
    """A picture for each of the page's places, with its caption as its label."""
    gradio = need('gradio', 'the page')
    found = [gradio.Image(value=image, label=words) for image, words in view.stages(seen)[:STAGES]]
    return [*found, *[None] * (STAGES - len(found))]


def _heading(view: View) -> str:
    classes = view.network.classes
    count = f', {len(classes)} classes' if classes else ''
    words = html.escape(f'{view.task} with {view.network.weights}{count}')
    return f'<h2>{html.escape(view.network.name)}</h2><div class="quiet">{words}</div>'
