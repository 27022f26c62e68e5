"""From a folder to a trained, evaluated and exported model, with the config that lies in the work dir."""

import json

import pytest
import torch

from nextvit_mm.adapt.layer_decay import LAYER_DECAY
from nextvit_mm.data.boxes import read_boxes
from nextvit_mm.data.inspect import look, read_any
from nextvit_mm.deploy.export import export
from nextvit_mm.deploy.fold import fold
from nextvit_mm.deploy.graphs import make_graph
from nextvit_mm.errors import UserError
from nextvit_mm.inference.command import predict
from nextvit_mm.training.check_data import check
from nextvit_mm.training.config import load_config
from nextvit_mm.training.launch import evaluate, train
from nextvit_mm.training.loading import load_model
from nextvit_mm.utils.logs import read_scalars

from ..conftest import DETECTOR, ROOT, load_config as read, shrink
from ..deploy.conftest import build
from . import layouts as made
from .test_broken import CLASSIFIER, FPN, detector

QUICK = {f'{loader}_dataloader.num_workers': 0 for loader in ('train', 'val', 'test')}


def tiny_config(folder, base):
    """A recipe with a twentieth of its network, written as somebody's config."""
    model = shrink(read(base)).model.to_dict()
    model['backbone']['init_cfg'] = None
    path = folder / 'tiny.py'
    path.write_text(f'_base_ = {str(base)!r}\nmodel = dict(_delete_=True, **{model!r})\n')
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    'base, make, size, metric',
    [
        (DETECTOR, made.voc, 64, 'coco/bbox_mAP'),
        (FPN, lambda root: made.masks(root, 'images/{n}.png', 'masks/{n}.png', 'P'), 64, 'mIoU'),
        (CLASSIFIER, made.folders, 64, 'accuracy/top1'),
    ],
    ids=['boxes', 'masks', 'folders'],
)
def test_the_config_in_the_work_dir_is_all_that_testing_and_exporting_need(base, make, size, metric, tmp_path):
    root, work = tmp_path / 'mine', tmp_path / 'work'
    root.mkdir()
    make(root)
    config = tiny_config(tmp_path, base)
    train(
        config, str(work), str(root), dict(QUICK), no_pretrained=True, own_classes=True, image_size=[size], epochs=1,
        batch_size=2, seed=0,
    )  # fmt: skip
    records, metrics = read_scalars(work)
    assert records and metric in metrics[-1]
    resolved, checkpoint = str(work / 'tiny.py'), str(next(work.glob('[ei]*_[0-9].pth')))
    before = (work / 'tiny.py').read_text()
    found = evaluate(resolved, checkpoint)
    assert found[metric] == pytest.approx(metrics[-1][metric], abs=1e-4)
    assert (work / 'tiny.py').read_text() == before  # it is as it was trained, for the next command
    if base == DETECTOR:  # of so short a training the exporter's comparison finds nothing, or ties
        model, info = load_model(load_config(resolved), checkpoint, 'model')
        assert make_graph(fold(model), 'model').outputs == ('boxes', 'scores', 'labels')
        assert info.classes == list(made.NAMES)
        return
    file = export(resolved, checkpoint, image_count=1, **(dict(size=[64, 96]) if base == FPN else {}))
    about = json.loads((file.parent / f'{file.name}.json').read_text())
    assert len(about['classes']) == (4 if base == FPN else 3)


@pytest.mark.slow
def test_a_detector_without_masks_is_trained_resumed_tested_drawn_and_exported(tmp_path, capsys):
    root, work = made.coco2017(tmp_path / 'mine'), tmp_path / 'work'
    given = dict(data_root=str(root), no_pretrained=True, own_classes=True, boxes_only=True, batch_size=2, seed=0)
    theirs = {  # it knows no Next-ViT
        'optim_wrapper.constructor': 'LearningRateDecayOptimizerConstructor',
        'optim_wrapper.paramwise_cfg': dict(_delete_=True, decay_rate=0.9, decay_type='layer_wise', num_layers=6),
    }
    given.update(cfg_options=dict(QUICK, **theirs), image_size=[64])
    config = tiny_config(tmp_path, DETECTOR)
    train(config, str(work), epochs=1, **given)
    train(config, str(work), epochs=2, resume='auto', **given)
    records, metrics = read_scalars(work)
    assert [record['step'] for record in metrics] == [1, 2] and not any('mask' in key for key in records[-1])
    resolved, checkpoint = str(work / 'tiny.py'), work / 'epoch_2.pth'
    cfg = load_config(resolved)
    assert cfg.model.type == 'FasterRCNN' and cfg.model.roi_head.mask_head is None
    assert cfg.optim_wrapper.constructor == LAYER_DECAY
    # Weights that are sure of something, as those of a long training: an untrained detector's scores are ties.
    loaded = torch.load(checkpoint, weights_only=False)
    loaded['state_dict'] = build(cfg).state_dict()
    torch.save(loaded, checkpoint)
    found = evaluate(resolved, str(checkpoint), show_dir=str(tmp_path / 'shown'))
    assert 'coco/bbox_mAP' in found and not any('segm' in key for key in found)
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 2
    assert f'{tmp_path / "shown"} (2 pictures)' in capsys.readouterr().out
    picture, drawn, listed = root / 'val2017' / '04.png', tmp_path / 'drawn', tmp_path / 'found.json'
    for model in ([resolved, str(checkpoint)], [str(work), None]):
        assert predict(model[0], [*filter(None, model[1:]), str(picture)], str(drawn), str(listed), score_thr=0.0) == 1
    boxes = json.loads(listed.read_text())['annotations']
    assert (drawn / '04.png').is_file() and boxes and 'segmentation' not in boxes[0]
    file = export(resolved, str(checkpoint), image_count=1, size=[64, 96])
    about = json.loads((file.parent / f'{file.name}.json').read_text())
    assert about['outputs'] == ['boxes', 'scores', 'labels'] and about['classes'] == list(made.NAMES)
    assert evaluate(resolved, str(file))['coco/bbox_mAP'] == pytest.approx(found['coco/bbox_mAP'], abs=1e-3)


def test_a_look_into_a_folder_counts_and_draws(tmp_path, capsys):
    made.roboflow(tmp_path / 'mine')
    made.draw_picture(tmp_path / 'mine/valid/04.png', 0)  # the same as train/00.png
    report = check(str(tmp_path / 'mine'), out=str(tmp_path / 'sheet.png'))
    out = capsys.readouterr().out
    assert '3 classes: boat, lighthouse, gull' in out and (tmp_path / 'sheet.png').is_file()
    assert 'train: 4 pictures, 0 of them without an object; 8 objects: boat 3, lighthouse 3, gull 2' in report.lines[0]
    assert '8 small' not in report.lines[0] or '0 medium' in report.lines[0]
    assert any('1 pictures of val are in train, too' in warning for warning in report.warnings)


def test_a_look_names_what_is_doubtful(tmp_path):
    import numpy as np
    from PIL import Image

    made.cvat(tmp_path / 'mine')
    train_pictures = tmp_path / 'mine/images/train'
    Image.fromarray(np.full((64, 96), 4000, np.uint16)).save(train_pictures / '00.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(train_pictures / '01.png') as picture:
        picture.save(train_pictures / '01.png', exif=exif)
        picture.resize((50, 50)).save(train_pictures / '02.png')
    (train_pictures / '03.png').write_bytes((train_pictures / '03.png').read_bytes()[:2000])
    report = look(read_any(tmp_path / 'mine', tmp_path))
    text = '\n'.join(report.warnings)
    assert '1 pictures are 16 bits' in text and '00.png' in text and 'turned by EXIF' in text and '01.png' in text
    assert [error for error in report.errors if '02.png is 50×50, and its annotations are for 96×64' in error]
    assert [error for error in report.errors if '03.png cannot be read as a picture' in error]


@pytest.mark.parametrize('make', [made.yolo, made.voc, made.folders, made.coco2017])
def test_a_look_knows_every_layout(make, tmp_path):
    make_into = tmp_path / 'mine'
    make_into.mkdir()
    make(make_into)
    report = look(read_any(make_into, tmp_path))
    assert not report.errors and report.lines[0].startswith('train: ')


def test_a_look_at_a_config_and_at_class_maps(tmp_path, capsys):
    made.coco2017(tmp_path / 'mine')
    cfg = detector(tmp_path / 'mine')
    cfg.dump(tmp_path / 'mine.py')
    check(str(tmp_path / 'mine.py'), out=str(tmp_path / 'a.png'))
    assert 'boat 3' in capsys.readouterr().out
    made.masks(tmp_path / 'maps', 'images/{split}/{n}.png', 'masks/{split}/{n}.png')
    check(str(tmp_path / 'maps'), out=str(tmp_path / 'b.png'))
    assert 'pixels: sea ' in capsys.readouterr().out
    made.save_map(tmp_path / 'maps/masks/train/00.png', made.class_map(0)[:-1])
    with pytest.raises(UserError, match='00.png is 96×63, and its picture 96×64'):
        check(str(tmp_path / 'maps'), out=str(tmp_path / 'b.png'))


@pytest.mark.parametrize('name, told', [('nothing', 'is neither a config nor a folder'), ('', 'is empty')])
def test_a_look_at_nothing(name, told, tmp_path):
    with pytest.raises(UserError, match=told):
        check(str(tmp_path / name))
    with pytest.raises(UserError, match="YOLO's data.yaml .*; it has: nothing$"):
        read_boxes(tmp_path)


@pytest.mark.parametrize('value, seen', [(255, '255; 255 is ignored, and training finds 0 '), (2, '2; training')])
def test_a_look_refuses_maps_that_tell_nothing_apart(value, seen, tmp_path):
    made.masks(tmp_path / 'maps', 'images/{split}/{n}.png', 'masks/{split}/{n}.png')
    for path in (tmp_path / 'maps/masks/train').glob('*.png'):
        made.save_map(path, made.class_map(0) * 0 + value)
    with pytest.raises(UserError, match=f'masks/train: the class maps hold no other values than {seen}'):
        check(str(tmp_path / 'maps'), out=str(tmp_path / 'sheet.png'))


def test_the_guides_config_reads_its_data(tmp_path, monkeypatch):
    """The config of docs/own-data.md as it stands there."""
    text = (ROOT / 'docs' / 'own-data.md').read_text().split('```python\n')[1].split('```')[0]
    (tmp_path / 'mine.py').write_text(text.replace("'configs/", f"'{ROOT}/configs/"))
    for split in ('train', 'val'):
        found = made.coco(split)
        found['categories'] = [
            dict(category, name=n) for category, n in zip(found['categories'], ('cat', 'dog', 'owl'))
        ]
        made.save_json(tmp_path / f'data/mine/annotations/{split}.json', found)
        for number in made.numbers(split):
            made.draw_picture(tmp_path / f'data/mine/{split}/{number:02d}.png', number)
    monkeypatch.chdir(tmp_path)
    check('mine.py', out='sheet.png')
    assert (tmp_path / 'sheet.png').is_file()


def test_classes_that_only_the_folders_name_are_those_of_the_sheet(tmp_path):
    made.folders(tmp_path / 'mine')
    (tmp_path / 'mine.py').write_text(
        f"data_root = {str(tmp_path / 'mine')!r}\ndefault_scope = 'mmpretrain'\nmodel = dict()\n"
        "train_dataloader = dict(dataset=dict(type='CustomDataset', data_root=data_root, data_prefix='train'))\n"
        'val_dataloader = train_dataloader\n'
    )
    report = check(str(tmp_path / 'mine.py'), out=str(tmp_path / 'sheet.png'))
    assert (tmp_path / 'sheet.png').is_file() and 'boat 4, gull 4, lighthouse 4' in report.lines[0]
