"""The same pictures in every layout are the same data; a recipe is set from them as a whole."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope

from nextvit_mm.data.boxes import read_boxes
from nextvit_mm.data.check import check_contents, count_pictures
from nextvit_mm.data.length import Length
from nextvit_mm.data.own import use_own_data

from ..conftest import DETECTOR, TINY, load_config, shared
from . import layouts as made
from .test_broken import CLASSIFIER, FPN, INSTANCES, detector, edit, every

POLYGONS = dict(
    coco2017=made.coco2017,
    roboflow=made.roboflow,
    cvat=made.cvat,
    label_studio=made.label_studio,
    yolo=made.yolo,
    ultralytics=lambda root: (
        made.yolo(root, folder='images/{split}')
        and (root / 'data.yaml').write_text(
            f'path: .\ntrain: images/train\nval: images/val\nnames: {dict(enumerate(made.NAMES))}\n'
        )
    ),
)
BOXES = dict(
    coco=lambda root: made.coco2017(root, masks=False), yolo=lambda root: made.yolo(root, polygons=False), voc=made.voc
)
MASKS = dict(
    ade20k=('images/{split}/{n}.png', 'annotations/{split}/{n}.png', 'L', 'classes.txt'),
    mmseg=('img_dir/{split}/{n}.png', 'ann_dir/{split}/{n}.png', 'L', 'labels.txt'),
    palette=('{split}/images/{n}.png', '{split}/masks/{n}.png', 'P', 'classes.txt'),
    roboflow=('{split}/{n}.png', '{split}/{n}_mask.png', 'L', 'classes.txt'),
    cvat=('{split}/JPEGImages/{n}.png', '{split}/SegmentationClass/{n}.png', 'RGB', 'labelmap.txt'),
    cityscapes=(
        'leftImg8bit/{split}/bern/bern_{n}_leftImg8bit.png', 'gtFine/{split}/bern/bern_{n}_gtFine_labelIds.png', 'L',
        'classes.txt',
    ),
)  # fmt: skip


def own_config(config, root, work_dir, size=64, batch=2) -> Config:
    cfg = load_config(config)
    cfg.work_dir = str(work_dir)
    cfg.model.backbone.update(arch=TINY, init_cfg=None)
    if 'neck' in cfg.model and 'in_channels' in cfg.model.neck:
        cfg.model.neck.in_channels = [32, 64, 128, 128]
    if cfg.model.get('head'):
        cfg.model.head.in_channels = 128
    if cfg.model.get('roi_head'):
        cfg.model.roi_head.bbox_head.fc_out_channels = 32
        cfg.model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=50)
    use_own_data(cfg, str(root))
    Length(image_size=[size], batch_size=batch).apply(cfg, 4, own_data=True)
    check_contents(cfg, ('train', 'val', 'test'))
    return cfg


def first_loss(cfg: Config, model: torch.nn.Module) -> dict[str, float]:
    """Losses of two pictures, of the same random numbers whatever was drawn before."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    names = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    picked = [next(i for i, name in enumerate(names) if f'{number:02d}' in name.split('/')[-1]) for number in (0, 1)]
    np.random.seed(0)
    torch.manual_seed(0)
    data = model.data_preprocessor(pseudo_collate([dataset[i] for i in picked]), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    return {key: float(sum(value) if isinstance(value, list) else value.detach()) for key, value in losses.items()}


def all_losses(config, makers, tmp_path) -> dict[str, dict[str, float]]:
    init_default_scope(load_config(config).default_scope)
    model, losses = None, {}
    for name, make in makers.items():
        root = tmp_path / name
        root.mkdir()
        make(root)
        cfg = own_config(config, root, tmp_path / f'work_{name}')
        torch.manual_seed(0)
        model = model or MODELS.build(cfg.model)
        losses[name] = first_loss(cfg, model.train())
    return losses


@pytest.mark.slow
@pytest.mark.parametrize('makers', [POLYGONS, BOXES], ids=['polygons', 'boxes'])
def test_the_first_loss_of_a_detector_is_the_same_from_every_layout(makers, tmp_path):
    losses = all_losses(DETECTOR, makers, tmp_path)
    expected = losses.pop('coco2017' if makers is POLYGONS else 'coco')
    assert ('loss_mask' in expected) == (makers is POLYGONS) and all(np.isfinite(v) for v in expected.values())
    assert expected['loss_bbox'] > 0 or expected['loss_rpn_bbox'] > 0
    for name, found in losses.items():
        assert found == pytest.approx(expected, rel=1e-5), name


@pytest.mark.slow
def test_the_first_loss_of_a_segmentor_is_the_same_from_every_layout(tmp_path):
    def maker(row):
        return lambda root: made.masks(root, *row)

    losses = all_losses(FPN, {name: maker(row) for name, row in MASKS.items()}, tmp_path)
    losses.update(all_losses(FPN, dict(polygons=made.coco2017), tmp_path))
    expected = losses.pop('ade20k')
    for name, found in losses.items():
        assert found == pytest.approx(expected, rel=1e-5), name


@pytest.mark.slow
def test_three_classes_of_real_pictures_from_two_layouts(tmp_path):
    """COCO's own files, cut to three classes with ids of their own, and the same as YOLO's polygons."""
    from PIL import Image

    source = shared('data', 'coco_tiny')
    for split in ('train', 'val'):
        found = json.loads((source / f'annotations/instances_{split}2017.json').read_text())
        names = {c['id']: c['name'] for c in found['categories'] if c['name'] in ('person', 'chair', 'car')}
        kept = [a for a in found['annotations'] if a['category_id'] in names and not a['iscrowd']]
        used = {a['image_id'] for a in kept}
        images = [i for i in found['images'] if i['id'] in used]
        for number, image in enumerate(images):
            (tmp_path / f'yolo/{split}/images').mkdir(parents=True, exist_ok=True)
            (tmp_path / f'yolo/{split}/labels').mkdir(parents=True, exist_ok=True)
            (tmp_path / f'coco/{split}').mkdir(parents=True, exist_ok=True)
            path = tmp_path / f'coco/{split}' / f'{number:02d}.png'
            with Image.open(source / f'{split}2017' / image['file_name']) as picture:
                picture.convert('RGB').save(path, compress_level=0)
            shutil.copy(path, tmp_path / f'yolo/{split}/images')
            lines = []
            for a in [a for a in kept if a['image_id'] == image['id']]:
                a['segmentation'] = a['segmentation'][:1]  # YOLO has one polygon for each object
                a.pop('bbox'), a.pop('area')
                shares = [repr(v / image['height' if i % 2 else 'width']) for i, v in enumerate(a['segmentation'][0])]
                lines.append(' '.join([str(sorted(names).index(a['category_id'])), *shares]))
            (tmp_path / f'yolo/{split}/labels/{number:02d}.txt').write_text('\n'.join(lines))
            image['file_name'] = f'{number:02d}.png'
        categories = [dict(id=i, name=names[i]) for i in sorted(names)]
        found = dict(images=images, annotations=kept, categories=categories)
        made.save_json(tmp_path / f'coco/{split}/_annotations.coco.json', found)
    (tmp_path / 'yolo/data.yaml').write_text(
        f'train: train/images\nval: val/images\nnames: {[c["name"] for c in categories]}\n'
    )
    init_default_scope('mmdet')
    cfgs = {name: own_config(DETECTOR, tmp_path / name, tmp_path / f'w_{name}', 128) for name in ('coco', 'yolo')}
    model = MODELS.build(cfgs['coco'].model).train()
    assert model.roi_head.bbox_head.num_classes == 3
    assert first_loss(cfgs['yolo'], model) == pytest.approx(first_loss(cfgs['coco'], model), rel=1e-3)


def test_a_detector_is_set_as_a_whole(tmp_path, capfd):
    made.roboflow(tmp_path)
    cfg = own_config(DETECTOR, tmp_path, tmp_path / 'work')
    assert cfg.train_dataloader.dataset.metainfo.classes == made.NAMES
    assert {cfg.model.roi_head[head].num_classes for head in ('bbox_head', 'mask_head')} == {3}
    assert cfg.custom_hooks == []
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file == str(tmp_path / 'work/data/val.json')
    written = json.loads((tmp_path / 'work/data/train.json').read_text())
    assert [c['name'] for c in written['categories']] == list(made.NAMES)
    assert written['images'][0]['file_name'] == 'train/00.png'  # below --data-root


def test_boxes_alone_take_the_mask_branch_out(tmp_path):
    made.voc(tmp_path)
    cfg = own_config(DETECTOR, tmp_path, tmp_path / 'work')
    assert cfg.model.type == 'FasterRCNN' and cfg.model.roi_head.mask_head is None
    assert cfg.val_evaluator.metric == cfg.test_evaluator.metric == 'bbox'
    steps = [*cfg.train_dataloader.dataset.pipeline, *cfg.test_dataloader.dataset.pipeline]
    assert [s.with_mask for s in steps if s.type == 'LoadAnnotations'] == [False, False]


def test_only_a_train_split_is_split_the_same_way_each_time(tmp_path):
    made.without_val(tmp_path)
    lists = []
    for run in 'ab':
        cfg = own_config(DETECTOR, tmp_path, tmp_path / run)
        files = [json.loads((tmp_path / run / f'data/{split}.json').read_text()) for split in ('train', 'val')]
        lists.append([[i['file_name'] for i in found['images']] for found in files])
    assert lists[0] == lists[1] and [len(names) for names in lists[0]] == [3, 1]
    assert not set(lists[0][0]) & set(lists[0][1])
    assert cfg.test_dataloader.dataset.ann_file == cfg.val_dataloader.dataset.ann_file


def test_a_segmentor_whose_maps_begin_with_one(tmp_path):
    """ADE20K's: 0 is no class, and the list has as many names as the highest value."""
    made.masks(tmp_path, 'images/{split}/{n}.png', 'annotations/{split}/{n}.png')
    (tmp_path / 'classes.txt').write_text('\n'.join(made.NAMES))
    cfg = own_config(FPN, tmp_path, tmp_path / 'work')
    assert cfg.model.decode_head.num_classes == 3 and cfg.train_dataloader.dataset.reduce_zero_label
    steps = [s for s in cfg.val_dataloader.dataset.pipeline if s.type == 'LoadAnnotations']
    assert [s.reduce_zero_label for s in steps] == [True]


def test_black_and_white_maps_need_no_list(tmp_path):
    made.masks(tmp_path, 'images/{split}/{n}.png', 'masks/{split}/{n}.png', names=None)
    for path in (tmp_path / 'masks').rglob('*.png'):
        made.save_map(path, 255 * (made.class_map(int(path.stem)) > 0).astype(np.uint8))
    cfg = own_config(FPN, tmp_path, tmp_path / 'work')
    init_default_scope('mmseg')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == ('background', 'foreground')
    labels = np.unique(dataset[0]['data_samples'].gt_sem_seg.data.numpy())
    assert set(labels.tolist()) <= {0, 1, 255} and 1 in labels


def test_joined_data_sets_become_one_and_not_the_same_pictures_twice(tmp_path):
    made.folders(tmp_path)
    cfg = load_config(CLASSIFIER)
    cfg.work_dir = str(tmp_path / 'work')
    one = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, copy.deepcopy(one)])
    use_own_data(cfg, str(tmp_path))
    assert [d.ann_file for d in cfg.train_dataloader.dataset.datasets] == [str(tmp_path / 'work/data/train.txt')]


def test_a_classifier_starts_from_the_published_weights(tmp_path):
    made.folders(tmp_path, split=False)
    cfg = load_config(CLASSIFIER)
    cfg.work_dir = str(tmp_path / 'work')
    use_own_data(cfg, str(tmp_path))
    assert cfg.load_from == 'nextvit-small_in1k' and cfg.model.train_cfg is None
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    assert cfg.val_evaluator.topk == (1,)
    init_default_scope('mmpretrain')
    counts = {}
    for split in ('train', 'val'):
        dataset = DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, pipeline=[]))
        assert dataset.CLASSES == ('boat', 'gull', 'lighthouse')
        counts[split] = np.bincount(dataset.get_gt_labels()).tolist()
    assert counts == dict(train=[5, 5, 5], val=[1, 1, 1])


def test_what_is_plain_is_filled_in(tmp_path):
    """No area, no iscrowd, run-length masks in a list, ids from 0, no box: one copy for data set and evaluator."""
    from pycocotools import mask as coder

    def spoil(annotation):
        merged = coder.merge(coder.frPyObjects(annotation['segmentation'], made.SIZE[1], made.SIZE[0]))
        annotation['segmentation'] = [dict(size=merged['size'], counts=merged['counts'].decode())]
        for key in ('area', 'iscrowd', 'bbox'):
            del annotation[key]
        annotation['id'] -= 1

    made.coco2017(tmp_path)
    before = json.loads((tmp_path / 'annotations/instances_val2017.json').read_text())
    for split in ('train', 'val'):
        edit(tmp_path, every(spoil), f'annotations/instances_{split}2017.json')
    cfg = detector(tmp_path)
    check_contents(cfg, ('train', 'val'))
    copy = cfg.val_dataloader.dataset.ann_file
    assert copy == cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file
    after = json.loads(Path(copy).read_text())
    for old, new in zip(before['annotations'], after['annotations']):
        assert (new['id'], new['bbox'], new['iscrowd']) == (old['id'], pytest.approx(old['bbox'], abs=1), 0)
        assert new['area'] == pytest.approx(old['area'], rel=0.1) and isinstance(new['segmentation'], dict)


def test_boxes_without_polygons_in_a_config_of_ones_own(tmp_path):
    made.coco2017(tmp_path, masks=False)
    cfg = detector(tmp_path)
    check_contents(cfg, ('train', 'val'))
    assert cfg.model.type == 'FasterRCNN' and cfg.val_evaluator.metric == 'bbox'


@pytest.mark.parametrize('make', [made.label_studio, made.without_val, made.cvat])
def test_names_of_folders_above_the_data_tell_no_split(make, tmp_path):
    root = tmp_path / 'test' / 'val'
    make(root)
    assert {'train', 'val'} == set(read_boxes(root).splits)


def test_xml_files_beside_their_pictures(tmp_path):
    root = tmp_path / 'test'
    for split, folder in dict(train='train', val='valid').items():
        for number in made.numbers(split):
            made.draw_picture(root / folder / f'{number:02d}.png', number)
            (root / folder / f'{number:02d}.xml').write_text(made.voc_xml(number))
    found = read_boxes(root)
    assert {split: len(data['images']) for split, data in found.splits.items()} == made.PICTURES
    assert found.classes == tuple(sorted(made.NAMES))


def test_pictures_that_training_leaves_out_do_not_count(tmp_path):
    """One without an object, one that is too small, one whose only object is a crowd, which MMDetection keeps."""
    root = made.coco2017(tmp_path / 'mine')

    def change(found):
        first, second, third = (image['id'] for image in found['images'][:3])
        found['annotations'] = [a for a in found['annotations'] if a['image_id'] != first]
        found['images'][1].update(width=31)
        [a.update(iscrowd=1) for a in found['annotations'] if a['image_id'] == third]

    edit(root, change, INSTANCES)
    cfg = detector(root)
    init_default_scope('mmdet')
    kept = len(DATASETS.build(cfg.train_dataloader.dataset))
    assert count_pictures(cfg) == kept == made.PICTURES['train'] - 2
    cfg.train_dataloader.dataset.pop('filter_cfg')
    assert count_pictures(cfg) == made.PICTURES['train']
    cfg.train_dataloader.dataset.indices = [0, 2]
    assert count_pictures(cfg) == 2
