"""Files from the web and from the Hugging Face hub, with the failures that real ones have, on this machine alone."""

import hashlib
import http.server
import json
import random
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nextvit_mm.errors import WeightsError
from nextvit_mm.weights.checkpoint import load_checkpoint
from nextvit_mm.weights.fetch import parse_hub_name
from nextvit_mm.weights.io import TENSORS_ONLY, read_weights

pytestmark = pytest.mark.skipif(not TENSORS_ONLY, reason='needs torch 2.6: older versions have no allow-list')
STATE = dict(a=torch.arange(2000.0), b=torch.ones(3, 4))


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` (path: content); paths in ``cut`` end in the middle, in ``slow`` come drop by drop, in
    ``moved`` lead elsewhere, and what a hub tells of a file besides is in ``headers``."""

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.cut, self.slow, self.moved, self.headers, self.asked = {}, set(), set(), {}, {}, []

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_address[1]}'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server, path = self.server, self.path.split('?')[0]
        server.asked.append((self.command, path))
        if path in server.moved:
            self.send_response(302)
            self.send_header('Location', server.url + server.moved[path])
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        if path not in server.files:
            self.send_response(404)
            if '/resolve/' in path:
                self.send_header(
                    'X-Error-Code',
                    'EntryNotFound'
                    if any(f.startswith(path.split('/resolve/')[0] + '/') for f in server.files)
                    else 'RepoNotFound',
                )
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        content = server.files[path]
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        for name, value in server.headers.get(path, {}).items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if path in server.cut:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        step = 2000 if path in server.slow else len(content)
        for start in range(0, len(content), step):
            self.wfile.write(content[start : start + step])
            if path in server.slow:
                time.sleep(0.02)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as httpd:
        threading.Thread(target=httpd.serve_forever, args=[0.01], daemon=True).start()  # s until it sees its end
        yield httpd
        httpd.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    return tmp_path / 'checkpoints'


def as_bytes(tmp_path, name='x.pth', state=STATE):
    path = tmp_path / name
    safetensors.torch.save_file(state, path) if name.endswith('.safetensors') else torch.save(state, path)
    content = path.read_bytes()
    path.unlink()
    return content


def kept(cache):
    return sorted(p.name for p in cache.rglob('*') if p.is_file())


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors', 'x.bin'])
def test_fetched_once(server, cache, tmp_path, name):
    server.files['/' + name] = as_bytes(tmp_path, name)
    for _ in range(2):
        loaded = load_checkpoint(f'{server.url}/{name}')
        assert all(torch.equal(loaded[key], STATE[key]) for key in STATE)
    assert len(server.asked) == 1 and kept(cache) == [name]


def test_slow_and_moved(server, cache, tmp_path):
    server.files['/far/x.pth'] = as_bytes(tmp_path)
    server.moved['/x.pth'] = '/far/x.pth'
    server.slow.add('/far/x.pth')
    assert torch.equal(load_checkpoint(f'{server.url}/x.pth')['a'], STATE['a'])
    assert kept(cache) == ['x.pth']


def test_the_digest_in_a_name(server, cache, tmp_path):
    content = as_bytes(tmp_path)
    good, bad = (f'x-{hashlib.sha256(c).hexdigest()[:8]}.pth' for c in (content, b'other'))
    server.files.update({f'/{good}': content, f'/{bad}': content})
    load_checkpoint(f'{server.url}/{good}')
    with pytest.raises(WeightsError, match='SHA-256'):
        load_checkpoint(f'{server.url}/{bad}')
    assert kept(cache) == [good]


def test_a_date_is_no_digest(server, cache, tmp_path):
    server.files['/x-20240131.pth'] = as_bytes(tmp_path)
    assert torch.equal(load_checkpoint(f'{server.url}/x-20240131.pth')['a'], STATE['a'])


def test_a_cached_file_that_was_altered_is_noticed_and_fetched_again(server, cache, tmp_path):
    content = as_bytes(tmp_path, 'x.safetensors')
    name = f'x-{hashlib.sha256(content).hexdigest()[:12]}.safetensors'
    assert any(c in 'abcdef' for c in name.split('-')[1].split('.')[0])
    server.files['/' + name] = content
    load_checkpoint(f'{server.url}/{name}')
    file = next(cache.rglob(name))
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match='was altered'):
        load_checkpoint(f'{server.url}/{name}')
    assert torch.equal(load_checkpoint(f'{server.url}/{name}')['b'], STATE['b'])


def test_files_of_one_name_at_two_addresses(server, cache, tmp_path):
    for i in range(2):
        server.files[f'/{i}/model.safetensors'] = as_bytes(tmp_path, 'x.safetensors', dict(a=torch.full((2,), i)))
    for i in (0, 1, 0):
        assert load_checkpoint(f'{server.url}/{i}/model.safetensors')['a'][0] == i


@pytest.mark.parametrize(
    'name, spoil, words',
    [
        ('x.pth', lambda s: s.cut.add('/x.pth'), 'x.pth (was cut short|could not be fetched)'),
        ('x.safetensors', lambda s: s.cut.add('/x.safetensors'), 'x.safetensors (was cut short|could not be fetched)'),
        ('x.pth', lambda s: s.files.update({'/x.pth': b'<html>not here</html>'}), 'x.pth is a web page'),
        ('x.pth', lambda s: s.files.pop('/x.pth'), '404'),
    ],
)
def test_what_did_not_come_whole_is_not_kept(server, cache, tmp_path, name, spoil, words):
    server.files['/' + name] = as_bytes(tmp_path, name)
    spoil(server)
    with pytest.raises(WeightsError, match=words):
        load_checkpoint(f'{server.url}/{name}')
    assert kept(cache) == []


def test_no_server_at_all(cache):
    with pytest.raises(WeightsError, match='could not be fetched'):
        load_checkpoint('http://127.0.0.1:9/x.pth')


@pytest.mark.parametrize(
    'name, parsed',
    [
        ('hf-hub:timm/nextvit_small.bd_in1k', ('timm/nextvit_small.bd_in1k', None, None)),
        ('hf-hub:me/my-net@v1.0:sub/weights.pth', ('me/my-net', 'v1.0', 'sub/weights.pth')),
        ('hf-hub:me/net:model.bin', ('me/net', None, 'model.bin')),
    ],
)
def test_names_of_the_hub(name, parsed):
    assert parse_hub_name(name) == parsed


@pytest.mark.parametrize('name', ['hf-hub:', 'hf-hub:me', 'hf-hub:me/net@', 'hf-hub:me/net:'])
def test_malformed_names_of_the_hub(name):
    with pytest.raises(WeightsError, match='owner/name'):
        parse_hub_name(name)


COMMIT = 'a' * 40


def serve_on_hub(server, repo, file, content, revision='main', digest=None):
    """Publish a file as the hub does: its digest as ETag, and the commit."""
    for name in (revision, COMMIT):
        path = f'/{repo}/resolve/{name}/{file}'
        server.files[path] = content
        server.headers[path] = {'X-Repo-Commit': COMMIT, 'ETag': f'"{digest or hashlib.sha256(content).hexdigest()}"'}


@pytest.fixture
def ask(server, run_fresh):
    """Load names in a process of its own, because the hub's client reads its settings when it is imported.

    The client does not wait before it tries again.
    """
    code = (
        'import json, sys, time, nextvit_mm\ntime.sleep = lambda seconds: None\n'
        'from mmengine.runner.checkpoint import CheckpointLoader\nout = []\n'
        'for name in sys.argv[1:]:\n'
        '    try:\n        out.append(float(CheckpointLoader.load_checkpoint(name)["a"].sum()))\n'
        '    except Exception as e:\n        out.append(f"{type(e).__name__}: {e}")\n'
        'print("\\n" + json.dumps(out))'
    )

    def ask(home, *names, **env):
        here = {'HF_ENDPOINT': server.url, 'HF_HOME': str(home), 'HF_HUB_DISABLE_XET': '1', 'NEXTVIT_MM_WEIGHTS': ''}
        return json.loads(run_fresh(code, *names, **{**here, **env}).stdout.splitlines()[-1])

    return ask


@pytest.mark.slow
def test_the_hub(server, ask, tmp_path):
    content, total = as_bytes(tmp_path, 'x.safetensors'), float(STATE['a'].sum())
    serve_on_hub(server, 'me/safe', 'model.safetensors', content)
    serve_on_hub(server, 'me/bin', 'pytorch_model.bin', as_bytes(tmp_path, 'x.bin'))
    serve_on_hub(server, 'me/tagged', 'sub/w.pth', as_bytes(tmp_path), revision='v1')
    serve_on_hub(server, 'timm/nextvit_small.bd_in1k', 'model.safetensors', content)
    serve_on_hub(server, 'me/altered', 'model.safetensors', content, digest='0' * 64)
    home = tmp_path / 'home'
    names = ['hf-hub:me/safe', 'hf-hub:me/bin', 'hf-hub:me/tagged@v1:sub/w.pth', 'nextvit-small_in1k']
    assert ask(home, *names) == 4 * [total]
    altered, gone, no_file = ask(home, 'hf-hub:me/altered', 'hf-hub:me/gone', 'hf-hub:me/safe:other.pth')
    assert altered.startswith('WeightsError') and 'SHA-256' in altered
    assert not [p for p in Path(home).rglob('*') if p.name == '0' * 64]  # not left in the cache
    assert gone.startswith('WeightsError: me/gone could not be fetched') and 'NEXTVIT_MM_WEIGHTS' in gone
    assert no_file.startswith('WeightsError: me/safe could not be fetched')
    # From the cache, without a server.
    server.files.clear()
    found = ask(home, *names, 'hf-hub:me/other', HF_HUB_OFFLINE='1')
    assert found[:4] == 4 * [total] and 'could not be fetched' in found[4]


@pytest.mark.slow
def test_a_hub_that_breaks_off(server, ask, tmp_path):
    serve_on_hub(server, 'me/cut', 'model.safetensors', as_bytes(tmp_path, 'x.safetensors'))
    server.cut.update(path for path in server.files)
    (message,) = ask(tmp_path / 'home', 'hf-hub:me/cut', HF_HUB_DOWNLOAD_TIMEOUT='2')
    assert message.startswith('WeightsError: me/cut could not be fetched') or 'SHA-256' in message
    server.cut.clear()
    assert ask(tmp_path / 'home', 'hf-hub:me/cut') == [float(STATE['a'].sum())]


@pytest.mark.parametrize('name', ['x.pth', 'x.bin', 'x.safetensors', 'legacy.pth'])
def test_altered_bytes_anywhere_load_the_same_tensors_or_raise(name, tmp_path):
    """Formats without a checksum can only notice what hurts their structure: there the tensors' bytes are spared."""
    path = tmp_path / name
    if name == 'legacy.pth':
        torch.save(STATE, path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        spared = content.find(STATE['a'].numpy().tobytes()[:64]) - 8
    else:
        content = as_bytes(tmp_path, name)
        spared = 8 + int.from_bytes(content[:8], 'little') if name.endswith('safetensors') else len(content)
    rng = random.Random(0)
    raised = same = 0
    for _ in range(150):
        altered = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            altered[rng.randrange(spared)] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(altered))
        try:
            loaded = read_weights(path)
        except WeightsError as error:
            assert str(path) in str(error)
            raised += 1
            continue
        if name in ('x.pth', 'x.bin'):  # zips have checksums
            assert set(loaded) == set(STATE) and all(torch.equal(loaded[key], STATE[key]) for key in STATE)
            continue
        # A header without a checksum may be altered into another that is valid: other names, shapes, places. What kept
        # all of these has the same tensors.
        for key in set(loaded) & set(STATE) if isinstance(loaded, dict) and len(loaded) == len(STATE) else ():
            if (
                isinstance(loaded[key], torch.Tensor)
                and loaded[key].is_contiguous()
                and (loaded[key].shape, loaded[key].dtype) == (STATE[key].shape, STATE[key].dtype)
            ):
                same += int(torch.equal(loaded[key], STATE[key]))
    assert raised > 30 and (same or name in ('x.pth', 'x.bin'))
