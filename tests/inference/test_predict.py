"""tools/predict.py and load_predictor: what they take, what they write, and what they say of what they cannot read."""

import inspect
import json
import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from nextvit_mm.errors import UserError
from nextvit_mm.inference import load_predictor
from nextvit_mm.inference.command import predict
from nextvit_mm.inference.models import resolve
from nextvit_mm.inference.sources import count_frames, find_sources, read

from ..conftest import ROOT, call_tool

TASKS = ['detection', 'segmentation', 'classification']
TOOL = ROOT / 'tools' / 'predict.py'


@pytest.fixture(scope='module')
def pictures(digits):
    return digits / 'coco' / 'val2017'


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_a_checkpoint_predicts_what_its_own_test_does(task, made, digits, pictures, tmp_path):
    """The results of the command are those of tools/test.py on the same pictures."""
    import pickle

    from nextvit_mm.training.launch import evaluate

    model = made(task)
    root = digits / dict(detection='coco', segmentation='ade', classification='imagenet')[task]
    if task == 'classification':
        root = tmp_path / 'imagenet'
        for split in ('train', 'val'):
            for number in range(10):
                file = sorted(pictures.glob('*.jpg'))[number % 4]
                target = root / split / str(number) / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    options = {'test_dataloader.num_workers': 0, 'test_dataloader.persistent_workers': False}
    out = tmp_path / 'out.pkl'
    evaluate(str(model.config), str(model.checkpoint), str(tmp_path / 'w'), str(root), options, out=str(out))
    tested = pickle.loads(out.read_bytes())
    predictor = load_predictor(str(model.folder), device='cpu')
    assert len(tested) == (10 if task == 'classification' else 4)
    for sample in tested:
        found = predictor(sample['img_path'])
        if task == 'detection':
            theirs = sample['pred_instances']
            assert len(found['scores']) == 5
            np.testing.assert_allclose(found['boxes'], theirs['bboxes'].numpy(), rtol=1e-4, atol=1e-3)
            np.testing.assert_array_equal(found['labels'], theirs['labels'].numpy())
        elif task == 'segmentation':
            assert np.array_equal(found['class_map'], sample['pred_sem_seg']['data'][0].numpy())
        else:
            np.testing.assert_allclose(found['scores'], sample['pred_score'].numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_drawn_pictures_coco_json_and_class_maps(task, made, pictures, tmp_path):
    model, out, json_file = made(task), tmp_path / 'out', tmp_path / 'deep' / 'found.json'
    predictor = load_predictor(str(model.checkpoint), device='cpu')
    names = sorted(path.name for path in pictures.glob('*.jpg'))
    thr = []
    if task == 'detection':  # half of what is found
        scores = np.sort(np.concatenate([predictor(pictures / name)['scores'] for name in names]))
        thr = ['--score-thr', str(float(scores[len(scores) // 2]))]
    result = call_tool(
        TOOL, model.config, model.checkpoint, pictures, '--out', out, '--json', json_file, '--device', 'cpu', *thr
    )
    assert all(name in result.stdout for name in names) and '4 pictures; written:' in result.stdout
    found = json.loads(json_file.read_text())
    assert [image['file_name'] for image in found['images']] == names
    assert {(image['height'], image['width']) for image in found['images']} == {(64, 64)}
    assert [c['name'] for c in found['categories']][-10:] == list('0123456789')
    for name in names:
        assert Image.open(out / f'{name[:-4]}.png').size[1] >= 64
    from pycocotools.coco import COCO

    coco = COCO(str(json_file))
    assert len(coco.getAnnIds()) == len(found['annotations']) > 0
    row = found['annotations'][0]
    if task == 'classification':
        assert len(found['annotations']) == 20 and 0 < row['score'] < 1
        return
    assert coco.annToMask(row).sum() == row['area']
    if task == 'detection':
        assert len(found['annotations']) == np.count_nonzero(scores >= float(thr[1])) < len(scores)
        return
    mask = Image.open(out / 'masks' / f'{names[0][:-4]}.png')
    assert mask.mode == 'P'
    class_map = predictor(pictures / names[0])['class_map']
    assert np.array_equal(np.asarray(mask), class_map)
    areas = {r['category_id'] - 1: r['area'] for r in found['annotations'] if r['image_id'] == 1}
    assert areas == dict(zip(*(values.tolist() for values in np.unique(class_map, return_counts=True))))


def test_the_least_score_is_the_documented_one():
    default = inspect.signature(predict).parameters['score_thr'].default
    assert f'drawn and written, {default} by default' in (ROOT / 'docs' / 'predict.md').read_text()
    assert f'least score of a detection (default: {default})' in call_tool(TOOL, '--help').stdout


def test_a_file_that_is_no_picture_is_named_and_the_others_go_on(made, pictures, tmp_path):
    folder = tmp_path / 'in' / 'deep'
    folder.mkdir(parents=True)
    good = next(pictures.glob('*.jpg')).read_bytes()
    (folder / 'good.jpg').write_bytes(good)
    (folder / 'a_cut.jpg').write_bytes(good[:200])
    (folder / 'b_text.png').write_text('no picture')
    (folder / 'c_empty.jpg').write_bytes(b'')
    (folder / 'd.mp4').write_text('no video')
    model, out = made('classification'), tmp_path / 'out'
    result = call_tool(TOOL, model.folder, tmp_path / 'in', '--out', out, '--device', 'cpu', check=False)
    assert result.returncode == 2 and 'Traceback' not in result.stderr
    for name in ('a_cut.jpg', 'b_text.png', 'c_empty.jpg', 'd.mp4'):
        assert f'{folder / name} cannot be read' in result.stderr
    assert '4 of 5 could not be read' in result.stderr.splitlines()[-1]
    assert [path.relative_to(out).as_posix() for path in out.rglob('*.png')] == ['deep/good.png']


def test_a_picture_that_the_model_does_not_take_is_named_and_the_others_go_on(made, pictures, tmp_path):
    Image.new('RGB', (9, 9)).save(tmp_path / 'a_small.png')
    shutil.copy(next(pictures.glob('*.jpg')), tmp_path / 'b_good.jpg')
    model = made('classification')
    options = (tmp_path / 'a_small.png', tmp_path / 'b_good.jpg', '--out', tmp_path / 'out', '--device', 'cpu')
    cfg = Config.fromfile(model.config)
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    cfg.dump(tmp_path / 'own.py')
    result = call_tool(TOOL, tmp_path / 'own.py', model.checkpoint, *options, check=False)
    assert result.returncode == 2 and 'Traceback' not in result.stderr, result.stderr
    assert 'a_small.png cannot be looked at by the model: ' in result.stderr
    assert [path.name for path in (tmp_path / 'out').glob('*.png')] == ['b_good.png']


@pytest.mark.slow
def test_a_video_gives_a_drawn_video(made, pictures, tmp_path):
    cv2 = pytest.importorskip('cv2')
    clip = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*'mp4v'), 5, (64, 64))
    for path in sorted(pictures.glob('*.jpg'))[:3]:
        writer.write(cv2.imread(str(path)))
    writer.release()
    model, out = made('segmentation'), tmp_path / 'out'
    done = predict(str(model.folder), [str(clip)], str(out), str(tmp_path / 'found.json'), device='cpu')
    assert done == 3
    drawn = find_sources([str(out / 'clip.mp4')])[0]
    assert count_frames(drawn) == 3 and sum(1 for _ in read(drawn)) == 3
    assert next(read(drawn)).frames_per_second == 5
    assert sorted(path.name for path in (out / 'masks').iterdir()) == [f'clip_{i:06d}.png' for i in range(3)]
    names = [image['file_name'] for image in json.loads((tmp_path / 'found.json').read_text())['images']]
    assert names == [f'clip.mp4#{i:06d}' for i in range(3)]


def test_folders_patterns_and_files_of_one_name(pictures, tmp_path):
    one = sorted(pictures.glob('*.jpg'))[0]
    for name in ('x/a.jpg', 'y/a.jpg', 'y/a.png', 'y/b#1.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.open(one).save(tmp_path / name)
    (tmp_path / 'y' / 'notes.txt').write_text('x')
    names = [s.name for s in find_sources([str(tmp_path / 'x'), str(tmp_path / 'y'), str(tmp_path / 'y' / '*.jpg')])]
    assert names == ['a.jpg', 'a-2.jpg', 'a-3.png', 'b#1.jpg']
    assert [s.name for s in find_sources([str(tmp_path / '**' / '*.jpg')])] == ['a.jpg', 'a-2.jpg', 'b#1.jpg']
    assert next(read(find_sources([str(tmp_path / 'y' / 'b#1.jpg')])[0])).name == 'b#1.jpg'


def test_a_folder_is_searched_without_what_was_drawn_into_it(pictures, tmp_path):
    one = sorted(pictures.glob('*.jpg'))[0]
    for name in ('a.jpg', 'predictions/a.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.open(one).save(tmp_path / name)
    drawn = tmp_path / 'predictions'
    assert [s.name for s in find_sources([str(tmp_path)], without=drawn)] == ['a.jpg']
    assert len(find_sources([str(tmp_path)], without=tmp_path / 'other')) == 2
    assert [s.name for s in find_sources([str(drawn)], without=drawn)] == ['a.png']  # it was asked for
    assert [s.name for s in find_sources([str(tmp_path)], without=tmp_path)] == ['a.jpg', 'predictions/a.png']


@pytest.mark.slow
def test_of_many_pictures_the_first_are_told(made, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('nextvit_mm.inference.command.MOST_LINES', 2)
    predict(str(made('classification').folder), [str(pictures)], json=str(tmp_path / 'found.json'), device='cpu')
    told = [line.split(':')[0] for line in capsys.readouterr().out.splitlines()]
    assert told[:3] == [*sorted(path.name for path in pictures.iterdir())[:2], '…'] and told[3].startswith('4 pictures')


def test_what_was_looked_at_before_ctrl_c_is_in_the_json(made, pictures, tmp_path, monkeypatch):
    from nextvit_mm.inference.models import Trained

    shown, found = iter([True, False]), tmp_path / 'found.json'
    look = Trained.__call__

    def call(self, picture):
        if not next(shown):
            raise KeyboardInterrupt
        return look(self, picture)

    monkeypatch.setattr(Trained, '__call__', call)
    with pytest.raises(KeyboardInterrupt):
        predict(str(made('classification').folder), [str(pictures)], json=str(found), device='cpu')
    assert len(json.loads(found.read_text())['images']) == 1


@pytest.mark.parametrize(
    'flags, told',
    [
        (dict(score_thr=1.5), '--score-thr must be from 0 to 1, and is 1.5'),
        (dict(score_thr=float('nan')), '--score-thr must be from 0 to 1, and is nan'),
        (dict(json='FOLDER'), 'cannot be written: it is a folder'),
        (dict(json='/proc/x/found.json'), '/proc/x/found.json cannot be written: No such file'),
    ],
)
def test_what_would_fail_at_the_end_is_said_before_the_start(flags, told, pictures, tmp_path):
    flags = {name: str(tmp_path) if value == 'FOLDER' else value for name, value in flags.items()}
    with pytest.raises(UserError, match=told):
        predict('no model is needed for this', [str(pictures)], **flags)


@pytest.mark.slow
def test_an_exported_file(made, pictures, tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from nextvit_mm.deploy.export import export

    model = made('classification')
    file = export(str(model.config), str(model.checkpoint), out=str(tmp_path / 'x.onnx'), images=str(pictures))
    picture = sorted(pictures.glob('*.jpg'))[0]
    exported, trained = load_predictor(str(file)), load_predictor(str(model.config), str(model.checkpoint), 'cpu')
    np.testing.assert_allclose(exported(picture)['scores'], trained(picture)['scores'], atol=1e-4)
    assert exported.about['classes'] == trained.about['classes']
    assert predict(str(model.config), [str(file), str(picture)], json=str(tmp_path / 'x.json')) == 1


def test_a_model_is_found_by_folder_file_and_name(made):
    model = made('detection')
    for given in ((str(model.folder), None), (str(model.checkpoint), None), (str(model.config), str(model.checkpoint))):
        cfg, weights = resolve(*given)
        assert weights == str(model.checkpoint) and cfg.model.type == 'MaskRCNN'
    best = model.folder / 'best_coco_bbox_mAP_epoch_2.pth'
    best.write_bytes(b'')
    try:
        assert resolve(str(model.folder), None)[1] == str(best)
    finally:
        best.unlink()
    cfg, weights = resolve('nextvit_s_224', None)
    assert weights.startswith('https://huggingface.co/timm/nextvit_small') and cfg.model.type == 'ImageClassifier'


@pytest.mark.parametrize(
    'model, inputs, words',
    [
        ('mask_rcnn_nextvit_s_1x', ['PICTURE'], 'needs its weights: download https://drive.google.com'),
        ('mask_rcnn_nextvit_s_9x', ['PICTURE'], 'is no config, work dir, checkpoint, exported file or recipe'),
        ('gone.pth', ['PICTURE'], 'checkpoint not found: gone.pth'),
        ('gone.py', ['gone.pth', 'PICTURE'], 'config not found: gone.py'),
        ('CONFIG', ['PICTURE'], 'needs its weights: give a CHECKPOINT after the config'),
        ('CONFIG', ['CHECKPOINT'], 'no pictures are named'),
        ('CHECKPOINT', ['CHECKPOINT', 'PICTURE'], 'are both weights'),
        ('CONFIG', ['CHECKPOINT', 'gone.jpg'], 'gone.jpg: not found'),
        ('CONFIG', ['http://localhost/a.jpg'], 'http://localhost/a.jpg: an address, which is not fetched'),
        ('CONFIG', ['CHECKPOINT', 'EMPTY'], 'a folder without pictures or videos'),
        ('EMPTY', ['PICTURE'], 'holds no config'),
        ('gone.onnx', ['PICTURE'], 'gone.onnx is missing'),
    ],
)
def test_what_is_missing_is_named(model, inputs, words, made, pictures, tmp_path):
    here = made('classification')
    names = dict(
        PICTURE=str(sorted(pictures.glob('*.jpg'))[0]),
        CONFIG=str(here.config),
        CHECKPOINT=str(here.checkpoint),
        EMPTY=str(tmp_path),
    )
    with pytest.raises(UserError, match=words):
        predict(names.get(model, model), [names.get(name, name) for name in inputs], str(tmp_path / 'out'))


def test_weights_of_another_model_are_refused(made, pictures):
    pytest.importorskip('mmseg')
    with pytest.raises(UserError, match='does not fit the model'):
        load_predictor(str(made('detection').config), str(made('segmentation').checkpoint), 'cpu')
