"""The page: what it shows of a picture, and its parts, on tiny models; once in a browser, where there is one."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from nextvit_mm.app import page as pages
from nextvit_mm.app.page import AppOptions, is_loopback, on_picture, on_threshold, serve
from nextvit_mm.app.view import LEAST_SIDE, View
from nextvit_mm.errors import UserError

from ..conftest import ROOT, call_tool
from ..inference.conftest import made  # noqa: F401

TASKS = ('detection', 'segmentation', 'classification')


@pytest.fixture(scope='module')
def picture(digits):
    return sorted((digits / 'coco' / 'val2017').glob('*.jpg'))[0]


@pytest.fixture(scope='module')
def trained(made, picture, tmp_path_factory):  # noqa: F811
    """A function from a task to config and checkpoint; the detector finds threes, at 0.5 and a little more."""

    def get(task: str) -> tuple[str, str]:
        model = made(task)
        if task != 'detection':
            return str(model.config), str(model.checkpoint)
        if sure.exists():
            return str(model.config), str(sure)
        here = View(str(model.config), str(model.checkpoint), 'cpu')
        bias = here.network.model.roi_head.bbox_head.fc_cls.bias.data
        while here.look(picture).result['scores'].max() < 0.5:
            bias[3] += 0.5
        loaded = torch.load(model.checkpoint, weights_only=False)
        loaded['state_dict']['roi_head.bbox_head.fc_cls.bias'] = bias
        torch.save(loaded, sure)
        return str(model.config), str(sure)

    sure = tmp_path_factory.mktemp('sure') / 'sure.pth'
    return get


@pytest.fixture(scope='module')
def view(trained):
    """A function from a task to its view."""
    pytest.importorskip('pytorch_grad_cam')
    views = {}

    def get(task: str) -> View:
        if task not in views:
            views[task] = View(*trained(task), 'cpu')
        return views[task]

    return get


@pytest.fixture
def bad(tmp_path):
    file = tmp_path / 'holiday.jpg'
    file.write_text('no picture')
    return file


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_what_is_shown_of_a_picture(task, view, picture):
    here = view(task)
    seen = here.look(picture)
    assert seen.pixels.shape == (64, 64, 3)
    rows = here.rows(seen, 0.0)
    assert rows and {row.name for row in rows} <= set(here.network.classes)
    assert here.drawn(seen, 0.0).size[1] >= 64
    heat, words = here.heat(seen, 0.3)
    assert max(heat.size) >= LEAST_SIDE and np.asarray(heat).std() > 1 and words
    stages = here.stages(seen)
    sizes = [words.split(': ')[1] for _, words in stages]
    widths = (32, 64, 128, 128)
    expected = [f'{w} channels, {64 // 2**k}×{64 // 2**k}' for k, w in enumerate(widths, 2)]
    assert [words.split(':')[0] for _, words in stages] == [f'stage {i}' for i in (1, 2, 3, 4)] and sizes == expected


@pytest.mark.slow
def test_the_threshold_hides_detections(view, picture):
    here = view('detection')
    seen = here.look(picture)
    scores = seen.result['scores']
    between = float(scores.max())
    assert 0 < len(here.rows(seen, between)) < len(here.rows(seen, 0.0)) == len(scores)
    heat, words = here.heat(seen, 1.1)
    assert heat is None and 'detects nothing with a score of at least 1.1' in words
    assert here.rows(seen, 1.1) == []


@pytest.mark.slow
def test_the_heat_of_all_stages_is_their_mean(view, picture):
    from nextvit_mm.visualization import cam, hooks

    network = view('segmentation').network
    image = network.prepare(view('segmentation').look(picture).pixels)
    what = cam.explain(network.model, image, network.classes)
    with hooks.stage_layers(network.backbone) as layers:
        single = [cam.heat_map(what, layer, image, 'layercam') for layer in layers.values()]
        together = cam.heat_map(what, list(layers.values()), image, 'layercam')
    mean = np.mean(single, 0)
    np.testing.assert_allclose(
        together, (mean - mean.min()) / (mean - mean.min()).max(), atol=0.03
    )  # resized after they are scaled


def test_the_result_comes_first_and_then_the_rest(view, picture):
    pytest.importorskip('gradio')
    here = view('classification')
    first, second, last = on_picture(here, str(picture), 0.3)
    assert [value is None for value in first] == [False, False, False, True, False, *[True] * 4]
    assert second[3] is not None and last[3] is second[3]
    assert [image.label.split(':')[0] for image in last[5:]] == ['stage 1', 'stage 2', 'stage 3', 'stage 4']
    (again,) = on_threshold(here, last[0], 0.5)
    assert again[1].size == last[2].size
    assert list(on_threshold(here, None, 0.5)) == [[None] * 4]


def test_a_bad_file_is_a_message(view, bad):
    (shown,) = on_picture(view('classification'), str(bad), 0.3)
    assert 'role="alert"' in shown[1] and 'holiday.jpg cannot be read as a picture' in shown[1]
    assert str(bad.parent) not in shown[1] and all(value is None for i, value in enumerate(shown) if i != 1)


def test_names_are_no_markup():
    rows = [pages.Row(f'<b>{i}', '1.00', (1, 2, 3)) for i in range(pages.MOST_ROWS + 3)]
    text = pages.table(rows)
    assert '&lt;b&gt;0' in text and '<b>' not in text and 'and 3 more' in text and 'rgb(1, 2, 3)' in text


def test_what_is_missing_is_one_line(made, tmp_path, monkeypatch):  # noqa: F811
    pytest.importorskip('pytorch_grad_cam')
    model = made('classification')
    with pytest.raises(UserError, match='x.onnx is an exported file, which cannot be looked into'):
        View('x.onnx')
    with pytest.raises(UserError, match='needs its weights'):
        View(str(model.config))
    monkeypatch.setitem(__import__('sys').modules, 'gradio', None)
    result = call_tool(ROOT / 'tools' / 'app.py', model.config, model.checkpoint, check=False)
    assert result.returncode == 2 and 'the page needs gradio: pip install gradio' in result.stderr


def test_loopback():
    assert all(map(is_loopback, ('127.0.0.1', '127.1.2.3', '::1', 'localhost')))
    assert not any(map(is_loopback, ('0.0.0.0', '10.0.0.3', 'example.org')))


@pytest.fixture
def address(trained, capsys):
    """A detector's page, served at a free port."""
    import socket

    pytest.importorskip('gradio')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    options = AppOptions(*trained('detection'), 'cpu', port=port)
    page = serve(options, wait=False)
    try:
        assert f'http://127.0.0.1:{port}' in capsys.readouterr().out
        with pytest.raises(UserError, match='it is in use'):
            serve(options, wait=False)
        yield f'http://127.0.0.1:{port}'
    finally:
        page.close()


@pytest.mark.slow
def test_in_a_browser(address, picture, bad, tmp_path):
    """Upload, a result, another threshold, a bad file."""
    sync = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if browser is None:
        pytest.skip('no Chromium is installed')
    with sync.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=['--no-sandbox'])
        tab = chromium.new_page(viewport=dict(width=1400, height=1000))
        tab.set_default_timeout(60_000)
        outside = []
        tab.on('request', lambda request: outside.append(request.url))
        tab.goto(address)
        tab.set_input_files('#file input[type=file]', str(picture))
        tab.wait_for_selector('#stage-4 img')
        if shots := os.environ.get('NEXTVIT_MM_SCREENSHOTS'):
            tab.screenshot(path=f'{shots}/page.png', full_page=True)
        assert tab.locator('#result img').count() == tab.locator('#heat img').count() == 1
        before, rows = tab.locator('#result img').get_attribute('src'), tab.locator('.rows tr').count()
        number = tab.locator('#threshold input[type=number]')
        number.fill('0.95')
        number.press('Enter')
        tab.wait_for_function('src => document.querySelector("#result img").src != src', arg=before)
        tab.wait_for_selector('#words:has-text("nothing with such a score")')
        assert rows > 0 and 'detects nothing' in tab.locator('#heat-words').inner_text()
        tab.locator('#file button[aria-label="Clear"]').click()
        tab.wait_for_selector('#result img', state='detached')
        tab.set_input_files('#file input[type=file]', str(bad))
        tab.wait_for_selector('[role=alert]:has-text("holiday.jpg cannot be read as a picture")')
        assert [url for url in outside if not url.startswith((address, 'data:', 'blob:'))] == []
        chromium.close()


def test_a_small_picture_is_shown_larger(view, tmp_path):
    file = tmp_path / 'gray.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 70), np.uint8)).save(file)
    seen = view('classification').look(file)
    assert seen.pixels.shape == (40, 70, 3)
    assert max(view('classification').stages(seen)[3][0].size) >= LEAST_SIDE
