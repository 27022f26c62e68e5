"""tools/publish.py: what it writes, that every path takes it, and that it gets to a hub."""

import hashlib
import http.server
import json
import re
import threading

import pytest
import torch

from nextvit_mm import get_model
from nextvit_mm.errors import UserError
from nextvit_mm.weights.build import NextViT
from nextvit_mm.weights.checkpoint import load_checkpoint, unwrap
from nextvit_mm.weights.io import TENSORS_ONLY
from nextvit_mm.weights.publish import embedded_config, publish

from ..conftest import ROOT, TINY, call_tool, randomise
from ..inference.conftest import made  # noqa: F401

pytestmark = pytest.mark.skipif(not TENSORS_ONLY, reason='needs torch 2.6: older versions have no allow-list')
TOOL = ROOT / 'tools' / 'publish.py'


@pytest.fixture(scope='module')
def published(made, tmp_path_factory):  # noqa: F811
    model = made('detection')
    log = model.folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True, exist_ok=True)
    records = [{'step': 2, 'coco/bbox_mAP': 0.1}, {'step': 3, 'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_l': -1.0}]
    log.write_text('\n'.join(map(json.dumps, records)))
    return model, publish(str(model.checkpoint), str(tmp_path_factory.mktemp('out') / 'mine.safetensors'))


@pytest.mark.slow
def test_the_file_holds_weights_config_classes_and_its_own_digest(published):
    model, path = published
    digits = re.fullmatch(r'mine-(\d*[a-f][0-9a-f]*)\.safetensors', path.name)[1]
    assert len(digits) >= 8 and hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits)
    loaded = load_checkpoint(str(path))
    whole = torch.load(model.checkpoint, weights_only=False)
    assert set(loaded) == {'state_dict', 'meta'}
    assert loaded['state_dict'].keys() == whole['state_dict'].keys()
    assert all(torch.equal(value, whole['state_dict'][name]) for name, value in loaded['state_dict'].items())
    meta = loaded['meta']
    assert meta['dataset_meta']['classes'] == list('0123456789') and meta['metrics'] == {'coco/bbox_mAP': 0.25}
    cfg = embedded_config(str(path))
    assert cfg.model.type == 'MaskRCNN' and cfg.model.backbone.get('init_cfg') is None and cfg.load_from is None
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
def test_folders_of_this_machine_do_not_get_out(made, tmp_path):  # noqa: F811
    loaded = torch.load(made('segmentation').checkpoint, weights_only=False)
    text = loaded['meta']['cfg'].replace("'data/digits/ade/'", "'/home/somebody/secret/leaves/'")
    loaded['meta']['cfg'] = text + "\nwork_dir = '/home/somebody/runs'\nload_from = '/home/somebody/x.pth'\n"
    assert text.count('/home/somebody/') >= 2
    torch.save(loaded, tmp_path / 'epoch_3.pth')
    path = publish(str(tmp_path / 'epoch_3.pth'), str(tmp_path / 'out'))
    assert path.parent == tmp_path / 'out' and path.name.startswith('segmentation_x-')
    cfg = embedded_config(str(path))
    assert b'somebody' not in path.read_bytes()
    assert cfg.train_dataloader.dataset.data_root == 'data/leaves/'


@pytest.mark.slow
def test_every_path_that_takes_weights_takes_it(published, digits, tmp_path):
    from nextvit_mm.inference import load_predictor
    from nextvit_mm.training.config import load_config
    from nextvit_mm.training.launch import evaluate, train
    from nextvit_mm.training.loading import load_model

    model, path = published
    config, root = str(model.config), str(digits / 'coco')
    picture = next((digits / 'coco' / 'val2017').glob('*.jpg'))
    ours, theirs = load_predictor(str(path), device='cpu'), load_predictor(config, str(model.checkpoint), 'cpu')
    assert ours.about['classes'] == list('0123456789')
    assert (ours(picture)['boxes'] == theirs(picture)['boxes']).all() and len(ours(picture)['boxes'])
    network, info = load_model(load_config(config), str(path), 'model')
    assert info.classes == list('0123456789')
    want = load_checkpoint(str(path))['state_dict']
    assert all(torch.equal(value, want[name]) for name, value in network.state_dict().items())
    backbone = NextViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    backbone.init_weights()
    assert torch.equal(backbone.stem[0].conv.weight, want['backbone.stem.0.conv.weight'])
    one = {f'{split}_dataloader.dataset.indices': 2 for split in ('train', 'val', 'test')}
    one.update({f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')})
    one.update({f'{split}_dataloader.persistent_workers': False for split in ('train', 'val', 'test')})
    assert 'coco/bbox_mAP' in evaluate(config, str(path), str(tmp_path / 't'), root, one)
    frozen = {**one, 'load_from': str(path), 'optim_wrapper.optimizer.lr': 0.0, 'train_cfg.val_interval': 9}
    frozen['optim_wrapper.optimizer.weight_decay'] = 0.0
    runner = train(config, str(tmp_path / 'w'), root, frozen)
    after = runner.model.state_dict()
    assert all(torch.equal(after[name], want[name]) for name in want if 'running' not in name and 'num_b' not in name)
    with pytest.raises(UserError, match='cannot be resumed from: it holds no optimizer'):
        train(config, str(tmp_path / 'w2'), root, one, resume=str(path))


@pytest.mark.slow
def test_a_classifiers_file_gives_a_backbone(made, tmp_path):  # noqa: F811
    weights = dict(state_dict={f'backbone.{k}': v for k, v in randomise(NextViT('small')).state_dict().items()})
    torch.save(weights, tmp_path / 'x.pth')
    config = str(ROOT / 'configs' / 'classification' / 'nextvit_s_224.py')
    with pytest.raises(UserError, match='holds no config'):
        publish(str(tmp_path / 'x.pth'), str(tmp_path / 'out'))
    path = publish(str(tmp_path / 'x.pth'), str(tmp_path / 'out'), config=config)
    assert path.name.startswith('nextvit_s_224-')
    backbone = get_model('small', pretrained=str(path))
    assert torch.equal(backbone.stem[0].conv.weight, weights['state_dict']['backbone.stem.0.conv.weight'])


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['gone.pth', 'out'], 'checkpoint not found: gone.pth'),
        (['CHECKPOINT', 'out.pth'], 'must end in .safetensors'),
        (['CHECKPOINT', 'out', '--push', 'me'], 'must be owner/name'),
        (['CHECKPOINT', 'CHECKPOINT/out'], 'cannot be written to'),
    ],
)
def test_one_line_for_what_cannot_be(arguments, words, made):  # noqa: F811
    checkpoint = str(made('detection').checkpoint)
    given = [argument.replace('CHECKPOINT', checkpoint) for argument in arguments]
    result = call_tool(TOOL, *given, check=False, cwd=made('detection').folder.parent)
    assert result.returncode == 2 and words in result.stderr and 'Traceback' not in result.stderr


class Hub(http.server.ThreadingHTTPServer):
    """Takes a repository and a commit with a large file, as the Hugging Face hub does."""

    def __init__(self, refuse=False):
        super().__init__(('127.0.0.1', 0), HubHandler)
        self.repos, self.blobs, self.commits, self.refuse = [], {}, [], refuse

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_address[1]}'


class HubHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path, server = self.path.split('?')[0], self.server
        if server.refuse:
            return self.answer(dict(error='you may not'), 403)
        if path == '/api/repos/create':
            server.repos.append(json.loads(body))
            return self.answer(dict(url=f'{server.url}/me/net', name='me/net'))
        if path == '/api/validate-yaml':
            return self.answer(dict(errors=[], warnings=[]))
        if path.endswith('/preupload/main'):
            files = json.loads(body)['files']
            modes = [
                dict(
                    path=f['path'],
                    uploadMode='lfs' if f['path'].endswith('.safetensors') else 'regular',
                    shouldIgnore=False,
                    oid=None,
                )
                for f in files
            ]
            return self.answer(dict(files=modes))
        if path.endswith('/info/lfs/objects/batch'):
            objects = json.loads(body)['objects']
            actions = [
                dict(o, actions=dict(upload=dict(href=f'{server.url}/blob/{o["oid"]}', header={}))) for o in objects
            ]
            return self.answer(dict(transfer='basic', objects=actions))
        if path.endswith('/commit/main'):
            server.commits.append([json.loads(line) for line in body.splitlines()])
            commit = dict(commitUrl=f'{server.url}/me/net/commit/{"a" * 40}', commitOid='a' * 40, success=True)
            return self.answer(commit)
        return self.answer({}, 404)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers['Content-Length']))
        self.server.blobs[self.path.rsplit('/', 1)[-1]] = content
        self.answer({})

    def do_GET(self):
        self.answer({}, 404)

    def answer(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/vnd.git-lfs+json' if 'lfs' in self.path else 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.mark.parametrize('refuse', [False, True])
def test_a_push_brings_file_and_card_to_the_hub(refuse, published, tmp_path, monkeypatch, capsys):
    import base64

    constants = pytest.importorskip('huggingface_hub').constants
    model, _ = published
    with Hub(refuse) as hub:
        threading.Thread(target=hub.serve_forever, args=[0.01], daemon=True).start()
        monkeypatch.setattr(constants, 'ENDPOINT', hub.url)
        monkeypatch.setenv('HF_TOKEN', 'hf_x')
        monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True, raising=False)
        if refuse:
            with pytest.raises(UserError, match='could not be pushed .*is written'):
                publish(str(model.checkpoint), str(tmp_path), push='me/net')
            assert len(list(tmp_path.glob('*.safetensors'))) == 1
            hub.shutdown()
            return
        path = publish(str(model.checkpoint), str(tmp_path), push='me/net', private=True)
        hub.shutdown()
    asked = hub.repos[0]
    assert (asked['name'], asked['organization']) == ('net', 'me')
    assert asked.get('private') or asked.get('visibility') == 'private'  # by the client's version
    assert list(hub.blobs.values()) == [path.read_bytes()]
    rows = {row['value'].get('path'): row for row in hub.commits[0]}
    assert rows['model.safetensors']['key'] == 'lfsFile'
    card = base64.b64decode(rows['README.md']['value']['content']).decode()
    assert 'pipeline_tag: object-detection' in card and '| coco/bbox_mAP | 0.25 |' in card
    assert '10: 0, 1, 2' in card and "load_predictor('hf-hub:me/net')" in card and path.name in card
    assert f'pushed: {hub.url}/me/net/commit/' in capsys.readouterr().out
    assert unwrap(load_checkpoint(str(path)), 'x')
