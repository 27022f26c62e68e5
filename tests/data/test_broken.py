"""Broken data, and the one line that each leads to before anything is built."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from nextvit_mm.data.check import check_contents, use_boxes_only
from nextvit_mm.data.length import Length
from nextvit_mm.data.own import use_own_data
from nextvit_mm.errors import UserError
from nextvit_mm.training.config import set_data_root
from nextvit_mm.training.launch import train

from ..conftest import DETECTOR, ROOT, load_config
from . import layouts as made

FPN = ROOT / 'configs' / 'segmentation' / 'semantic_fpn_nextvit_s_80k.py'
UPER = ROOT / 'configs' / 'segmentation' / 'upernet_nextvit_s_160k.py'
CLASSIFIER = ROOT / 'configs' / 'classification' / 'nextvit_s_224.py'
INSTANCES = 'annotations/instances_train2017.json'


def edit(root: Path, change: Callable[[dict], None], file: str = INSTANCES) -> None:
    found = json.loads((root / file).read_text())
    change(found)
    (root / file).write_text(json.dumps(found))


def first(key: str, value) -> Callable[[dict], None]:
    """A change of the first annotation; None takes the key away."""

    def change(found: dict) -> None:
        found['annotations'][0][key] = value
        if value is None:
            del found['annotations'][0][key]

    return change


def every(function: Callable[[dict], None]) -> Callable[[dict], None]:
    return lambda found: [function(annotation) for annotation in found['annotations']] and None


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).parent.mkdir(parents=True, exist_ok=True) or (root / name).write_text(text)


def corners(annotation: dict) -> None:
    x, y, w, h = annotation['bbox']
    annotation['bbox'] = [x + 50, y + 40, x + w + 50, y + h + 40]


def half(found: dict) -> None:
    del found['annotations'][1]['segmentation']


COCO = dict(
    empty_folder=(lambda root: shutil.rmtree(root) or root.mkdir(), "holds none of COCO's annotation files"),
    not_json=(write(INSTANCES, '{"images": ['), 'instances_train2017.json is not JSON'),
    no_categories=(
        lambda root: edit(root, lambda f: f.pop('categories')),
        'needs the lists images, annotations, categ',
    ),
    unknown_category=(lambda root: edit(root, first('category_id', 99)), 'annotation 1 has the category id 99'),
    unknown_picture=(lambda root: edit(root, first('image_id', 7)), 'annotation 1 is of the picture 7'),
    picture_twice=(lambda root: edit(root, lambda f: f['images'].append(f['images'][0])), 'the id 100 stands twice'),
    text_and_number=(
        lambda root: edit(root, lambda f: f['images'][1].update(id=str(f['images'][0]['id']))),
        'the id 100 stands twice in images',
    ),
    ids_as_text=(
        lambda root: edit(root, every(lambda a: a.update(image_id=str(a['image_id'])))),
        "annotation 1 has image_id='100', and the ids are written as 10.: write all as numbers, or all as texts",
    ),
    several_categories=(lambda root: edit(root, first('category_id', [1])), r'annotation 1 has category_id=\[1\]'),
    list_as_id=(lambda root: edit(root, lambda f: f['images'][0].update(id=[1])), r'entry 0 of images has the id \[1'),
    side_as_text=(lambda root: edit(root, lambda f: f['images'][0].update(width='96')), "00.png is '96', and no"),
    crowd_as_text=(lambda root: edit(root, first('iscrowd', '0')), "annotation 1: its iscrowd is '0', and neither"),
    nameless=(lambda root: edit(root, lambda f: f['images'][0].pop('file_name')), 'entry 0 of images has no file_name'),
    three_numbers=(lambda root: edit(root, first('bbox', [1, 2, 3])), 'annotation 1: its bbox is .* not four numbers'),
    not_finite=(lambda root: edit(root, first('bbox', [1, 2, 3, float('nan')])), 'annotation 1: its bbox is .*nan'),
    neither=(
        lambda root: edit(root, lambda f: f['annotations'][0].pop('bbox') and f['annotations'][0].pop('segmentation')),
        'annotation 1 has neither a bbox nor a segmentation',
    ),
    shares=(
        lambda root: edit(root, every(lambda a: a.update(bbox=[0.1, 0.2, 0.3, 0.4]))),
        'must be in pixels, and not in shares',
    ),
    corners=(
        lambda root: edit(root, every(corners)),
        '8 of 8 boxes lie outside of their pictures or .*a bbox is x, y, width',
    ),
    flat=(lambda root: edit(root, every(lambda a: a['bbox'].__setitem__(3, 0))), '8 of 8 boxes .* or have no area'),
    odd_polygon=(lambda root: edit(root, first('segmentation', [[1, 2, 3, 4, 5, 6, 7]])), 'annotation 1 has a polygon'),
    strange_mask=(lambda root: edit(root, first('segmentation', ['x'])), 'annotation 1: its segmentation is neither'),
    other_size=(
        lambda root: edit(root, first('segmentation', dict(size=[9, 9], counts=[0, 81]))),
        r'a run-length mask of \[9, 9\], and its picture is \[64, 96\]',
    ),
    no_counts=(lambda root: edit(root, first('segmentation', dict(size=[64, 96]))), 'mask without counts'),
    picture_gone=(lambda root: (root / 'train2017/01.png').unlink(), r'the picture 01.png is not there below'),
    name_twice=(lambda root: edit(root, lambda f: f['categories'][1].update(name='boat')), "'boat' stands twice"),
    unknown_in_val=(
        lambda root: edit(root, lambda f: f['categories'][0].update(name='ship'), INSTANCES.replace('train', 'val')),
        "annotations of 'ship', which the train split does not know",
    ),
    half_of_polygons=(lambda root: edit(root, half), '1 of 12 annotations have no polygon, first 2 .*--boxes-only'),
    nothing_to_learn=(lambda root: edit(root, lambda f: f.update(annotations=[])), 'of the train split has an annot'),
    two_files=(
        lambda root: shutil.copy(root / INSTANCES, root / 'annotations/instances_train_old.json'),
        'are all for the train split: leave one',
    ),
    one_picture=(
        lambda root: (root / INSTANCES.replace('train', 'val')).unlink() or edit(root, keep_one),
        'has 1 picture: training and validation need one each',
    ),
)


def keep_one(found: dict) -> None:
    found['images'] = found['images'][:1]
    found['annotations'] = found['annotations'][:2]


YOLO = dict(
    class_too_high=(write('train/labels/00.txt', '3 .5 .5 .1 .1\n'), r'00.txt, line 1: the class 3 is none of the 3'),
    no_numbers=(write('train/labels/00.txt', '0 .5 .5 .1 .1\nboat\n'), "line 2: 'boat' is not a class and numbers"),
    five_numbers=(write('train/labels/00.txt', '0 .5 .5 .1 .1 .9\n'), 'line 1: 5 numbers are neither a box'),
    pixels=(write('train/labels/00.txt', '0 50 50 10 10\n'), 'line 1: the numbers must be shares'),
    wrong_nc=(write('data.yaml', 'train: train/images\nnc: 2\nnames: [a, b, c]\n'), 'nc is 2, and names has 3'),
    no_names=(write('data.yaml', 'train: train/images\nnames: {1: a, 2: b}\n'), 'the keys of names must be 0, 1'),
    gone=(write('data.yaml', 'train: pictures\nnames: [a]\n'), 'train is pictures, which is not there'),
    not_yaml=(write('data.yaml', 'names: [a\n'), 'data.yaml cannot be read as YAML'),
    no_labels=(lambda root: shutil.rmtree(root / 'train' / 'labels'), 'none of 4 pictures has a file of labels'),
    damaged_picture=(write('train/images/00.png', 'x'), '00.png cannot be read as a picture'),
)
VOC = dict(
    not_xml=(write('Annotations/00.xml', '<annotation>'), '00.xml is not XML'),
    no_box=(
        lambda root: write('Annotations/00.xml', made.voc_xml(0).replace('xmax', 'x'))(root),
        '00.xml: object 1 has no bndbox',
    ),
    listed_and_gone=(lambda root: (root / 'Annotations/01.xml').unlink(), 'train.txt names 01, and .*01.xml is not'),
    unknown_name=(write('labels.txt', 'boat\ngull\n'), 'the annotations have lighthouse, which labels.txt lacks'),
    picture_gone=(lambda root: (root / 'JPEGImages/01.png').unlink(), '01.xml: its picture 01.png is not there'),
)


def set_value(value: int, dtype=np.uint8) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        array = made.class_map(1).astype(dtype)
        array[0, 0] = value
        Image.fromarray(array).save(root / 'masks' / 'train' / '01.png')

    return change


def color_it(root: Path) -> None:
    made.save_map(root / 'masks/train/00.png', made.class_map(0), 'RGB')


MASKS = dict(
    unknown_value=(set_value(9), r'masks/train/01.png has the value 9, which is no class: .*classes.txt names 4'),
    sixteen_bits=(set_value(300, np.uint16), '01.png has the value 300'),
    no_list=(lambda root: (root / 'classes.txt').unlink(), 'has class maps and no list of classes: write classes.txt'),
    no_colors=(color_it, '00.png has colors, and .*classes.txt tells none'),
    class_twice=(write('classes.txt', 'sea\nboat\nboat\n'), 'classes.txt names boat twice'),
    damaged_map=(write('masks/train/01.png', 'x'), '01.png cannot be read as a class map'),
    tab=(
        lambda root: [(root / k / 'train/00.png').rename(root / k / 'train/0\t0.png') for k in ('images', 'masks')],
        r"0\\t0.png' has a tab or a line break in its name",
    ),
    no_pairs=(lambda root: shutil.rmtree(root / 'masks'), 'holds no pairs of pictures and class maps'),
    strange_list=(lambda root: (root / 'classes.txt').rename(root / 'classes.json'), 'classes.json is not JSON'),
    strange_color=(
        lambda root: (root / 'classes.txt').unlink() or write('classes.json', '{"sea": "blue"}')(root),
        "classes.json: the color 'blue' is neither",
    ),
)


def other_colors(root: Path) -> None:
    made.save_map(root / 'masks/train/00.png', made.class_map(1), 'RGB')
    (root / 'classes.txt').write_text('sea 0 0 0\nboat 255 0 0\nlighthouse 0 255 0\ngull 9 9 9\n')


MASKS['unknown_color'] = (other_colors, r'00.png has the color \[0, 0, 255\], which is no class')
FOLDERS = dict(
    one_class=(lambda root: [shutil.rmtree(root / 'train' / n) for n in made.NAMES[1:]], 'holds 1 folder of pictures'),
    empty_class=(lambda root: (root / 'train' / 'buoy').mkdir(), 'train/buoy holds no picture'),
    unknown_in_val=(lambda root: (root / 'val' / 'buoy').mkdir(), 'val has the classes buoy, which the train split'),
    no_train=(lambda root: shutil.rmtree(root / 'train'), 'has val and no train'),
    no_split=(
        lambda root: shutil.rmtree(root / 'val') or made.draw_picture(root / 'train' / 'buoy' / '0.png', 0),
        'the class buoy has 1 picture: training and validation need one each',
    ),
)


def mask_folders(root: Path) -> Path:
    return made.masks(root, 'images/{split}/{n}.png', 'masks/{split}/{n}.png')


TABLES = dict(
    coco=(DETECTOR, made.coco2017, COCO),
    yolo=(DETECTOR, made.yolo, YOLO),
    voc=(DETECTOR, made.voc, VOC),
    masks=(FPN, mask_folders, MASKS),
    folders=(CLASSIFIER, made.folders, FOLDERS),
)
ROWS = [pytest.param(layout, row, id=f'{layout}-{row}') for layout, (*_, rows) in TABLES.items() for row in rows]


@pytest.mark.parametrize('layout, row', ROWS)
def test_own_data_that_are_broken_lead_to_one_line(layout, row, tmp_path):
    config, make, rows = TABLES[layout]
    change, expected = rows[row]
    root = tmp_path / 'mine'
    root.mkdir()
    make(root)
    change(root)
    cfg = load_config(config)
    cfg.work_dir = str(tmp_path / 'work')
    with pytest.raises(UserError) as error:
        use_own_data(cfg, str(root))
    assert re.search(expected, str(error.value)) and '\n' not in str(error.value), str(error.value)


def detector(root: Path, classes=made.NAMES):
    """A config of one's own, as people write it, for :func:`layouts.coco2017`."""
    cfg = load_config(DETECTOR)
    set_data_root(cfg, str(root))
    for loader in ('train', 'val', 'test'):
        cfg[f'{loader}_dataloader'].dataset.metainfo = dict(classes=classes)
    for head in ('bbox_head', 'mask_head'):
        cfg.model.roi_head[head].num_classes = len(classes)
    cfg.work_dir = str(root / 'work')
    return cfg


def wrong_heads(cfg, root):
    cfg.model.roi_head.mask_head.num_classes = 80


def two_evaluators(cfg, root):
    cfg.val_evaluator = [cfg.val_evaluator, dict(cfg.val_evaluator)]


def wrong_evaluator(cfg, root):
    cfg.val_evaluator.ann_file = 'data/coco/annotations/instances_val2017.json'


def small(cfg, root):
    for file in ('train', 'val'):
        edit(root, lambda f: [i.update(width=20, height=20) for i in f['images']], INSTANCES.replace('train', file))
        edit(root, lambda f: [a.update(bbox=[1, 1, 9, 9]) for a in f['annotations']], INSTANCES.replace('train', file))


def join(cfg, root):
    one = cfg.train_dataloader.dataset
    other = dict(one, metainfo=dict(classes=made.NAMES[::-1]), ann_file='annotations/other.json')
    found = made.coco('train')
    made.save_json(root / 'annotations/other.json', dict(found, categories=found['categories'][::-1]))
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, other])


CONFIGS = dict(
    joined=(join, 'joins data sets of other classes: boat, lighthouse, gull; and gull, lighthouse, boat. Give all the'),
    text=(lambda cfg, root: cfg.train_dataloader.dataset.metainfo.update(classes='cat'), r"classes=\('cat',\)"),
    misspelt=(
        lambda cfg, root: cfg.train_dataloader.dataset.metainfo.update(classes=('Boat', 'lighthouse', 'gull')),
        'categories boat, lighthouse, gull; 2 of the 3 classes .* missing: Boat. .*--own-classes',
    ),
    forgotten=(
        lambda cfg, root: cfg.train_dataloader.dataset.pop('metainfo'),
        'categories boat, lighthouse, gull; 1 of the 80 classes',  # COCO has boats
    ),
    swapped=(
        lambda cfg, root: cfg.train_dataloader.dataset.metainfo.update(classes=('gull', 'boat', 'lighthouse')),
        r"in another order .*write classes=\('boat', 'lighthouse', 'gull'\)",
    ),
    repeated=(
        lambda cfg, root: cfg.train_dataloader.dataset.metainfo.update(classes=('boat', 'boat', 'gull')),
        'classes has boat twice',
    ),
    wrong_heads=(wrong_heads, 'the FCNMaskHead has num_classes=80, and the data set .* has 3 classes'),
    same_evaluator=(two_evaluators, 'val_evaluator of .* has CocoMetric twice, whose metrics would have'),
    other_evaluator=(wrong_evaluator, 'val_evaluator of .* reads data/coco/.*, and its data set reads'),
    all_small=(small, 'every picture is smaller than 32 pixels'),
    half=(lambda cfg, root: edit(root, half), '1 of 8 annotations have no polygon, first 2; .*--boxes-only'),
    picture_gone=(lambda cfg, root: (root / 'train2017' / '02.png').unlink(), '1 of 4 pictures are not below .*02.png'),
    crowds=(
        lambda cfg, root: edit(root, every(lambda a: a.update(iscrowd=1))),
        'no picture has an annotation of boat, lighthouse, gull',
    ),
)


@pytest.mark.parametrize('row', CONFIGS)
def test_configs_that_do_not_fit_their_data_lead_to_one_line(row, tmp_path):
    change, expected = CONFIGS[row]
    made.coco2017(tmp_path)
    cfg = detector(tmp_path)
    change(cfg, tmp_path)
    with pytest.raises(UserError) as error:
        check_contents(cfg, ('train', 'val'))
    assert re.search(expected, str(error.value)) and '\n' not in str(error.value), str(error.value)


def segmentor(root: Path, config=FPN, **changes):
    """A config of one's own for ADE20K's layout, of PNG pictures and labels from 0."""
    cfg = load_config(config)
    for loader in ('train', 'val', 'test'):
        dataset = cfg[f'{loader}_dataloader'].dataset
        folder = 'train' if loader == 'train' else 'val'
        prefix = dict(img_path=f'images/{folder}', seg_map_path=f'masks/{folder}')
        dataset.update(type='BaseSegDataset', data_root=str(root), data_prefix=prefix, img_suffix='.png', **changes)
        dataset.metainfo = dict(classes=('sea', *made.NAMES), palette=made.COLORS)
    for head in ('decode_head', 'auxiliary_head'):
        if head in cfg.model:
            cfg.model[head].num_classes = 4
    cfg.work_dir = str(root / 'work')
    return cfg


def beyond(cfg, root):
    set_value(4)(root)


def mixed(cfg, root):
    (root / 'images/train/00.png').rename(root / 'images/train/00.tif')
    cfg.train_dataloader.dataset.img_suffix = '.jpg'


def black_white(cfg, root):
    for path in root.glob('masks/train/*.png'):
        Image.fromarray(np.where(np.asarray(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)


def as_jpeg(cfg, root):
    for path in root.glob('masks/*/*.png'):
        Image.open(path).convert('L').save(path.with_suffix('.jpg'))
        path.unlink()


SEGMENTORS = dict(
    black_white=(black_white, 'no other values than 0, 255; 255 is ignored, and training finds 1 of the 4 classes'),
    jpeg=(as_jpeg, r'has the value \d+, which is no class: .* It is a JPEG, which changes the numbers of classes'),
    unknown_value=(beyond, r'01.png has the value 4, which is no class: the 4 classes are 0 to 3 \(reduce_zero_lab'),
    other_suffixes=(mixed, r'no file that ends in .jpg, the img_suffix of the data set \(there are: .png, .tif\)'),
    no_map=(lambda cfg, root: (root / 'masks/train/02.png').unlink(), '1 of 4 pictures .* first 02.png'),
    one_for_each=(lambda cfg, root: cfg.train_dataloader.update(batch_size=1), 'batch_size=1: the SyncBN after'),
    last_alone=(
        lambda cfg, root: cfg.train_dataloader.update(batch_size=3, sampler=dict(type='DefaultSampler', shuffle=True)),
        '4 pictures in batches of 3 leave one for the last batch; the SyncBN .* --batch-size 2',
    ),
    wrong_heads=(lambda cfg, root: cfg.model.decode_head.update(num_classes=150), 'num_classes=150, and the data'),
    text=(lambda cfg, root: cfg.train_dataloader.dataset.metainfo.update(classes='sea'), 'classes is the text'),
)


@pytest.mark.parametrize('row', SEGMENTORS)
def test_segmentors_that_do_not_fit_their_data_lead_to_one_line(row, tmp_path):
    change, expected = SEGMENTORS[row]
    mask_folders(tmp_path)
    cfg = segmentor(tmp_path, UPER, reduce_zero_label=False)
    change(cfg, tmp_path)
    with pytest.raises(UserError) as error:
        check_contents(cfg, ('train', 'val'))
    assert re.search(expected, str(error.value)) and '\n' not in str(error.value), str(error.value)


def test_a_file_of_pictures_alone_is_tested_to_write_predictions_with(tmp_path):
    made.coco2017(tmp_path)
    edit(tmp_path, lambda found: found.pop('annotations'), INSTANCES.replace('train', 'val'))
    cfg = detector(tmp_path)
    said: list[str] = []
    with mock.patch('nextvit_mm.data.check_coco.print_log', lambda text, *_, **__: said.append(text)):
        check_contents(cfg, ('test',))
        assert len(said) == 1 and 'has no annotations, so that each metric is -1: test_evaluator.format_only' in said[0]
        cfg.test_evaluator.update(format_only=True, outfile_prefix='found')
        check_contents(cfg, ('test',))
    assert len(said) == 1


def test_what_has_one_meaning_is_set_in_every_pipeline(tmp_path):
    mask_folders(tmp_path)
    cfg = segmentor(tmp_path, reduce_zero_label=False)
    cfg.train_dataloader.dataset.img_suffix = '.jpg'
    check_contents(cfg, ('train', 'val', 'test'))
    dataset = cfg.train_dataloader.dataset
    assert dataset.img_suffix == '.png'
    assert (
        dataset.pipeline[1].reduce_zero_label is False
        and cfg.val_dataloader.dataset.pipeline[2].reduce_zero_label is False
    )
    assert cfg.tta_pipeline[1].transforms[2][0].reduce_zero_label is False


def classifier(root: Path):
    cfg = load_config(CLASSIFIER)
    set_data_root(cfg, str(root))
    cfg.work_dir = str(root / 'work')
    return cfg


def three(cfg, root):
    for loader in ('train', 'val'):
        cfg[f'{loader}_dataloader'].dataset.metainfo = dict(classes=('boat', 'gull', 'lighthouse'))
    cfg.model.head.num_classes = 3
    cfg.train_dataloader.batch_size = 4


def and_then(*changes):
    return lambda cfg, root: [change(cfg, root) for change in changes] and None


def nameless(cfg, root):
    """The classes are those of the folders, of which validation has one less."""
    three(cfg, root)
    for loader in ('train', 'val'):
        cfg[f'{loader}_dataloader'].dataset.update(type='CustomDataset', data_prefix=loader, split='')
        cfg[f'{loader}_dataloader'].dataset.pop('metainfo')
    shutil.rmtree(root / 'val' / 'boat')


CLASSIFIERS = dict(
    folder_gone=(nameless, r'val has 2 folders \(gull, lighthouse\), and model.head of .* has num_classes=3'),
    imagenets_classes=(lambda cfg, root: None, r'has 3 folders \(boat, gull, lighthouse\), and .* has 1000 classes'),
    empty_folder=(
        and_then(three, lambda cfg, root: [p.unlink() for p in (root / 'train/gull').iterdir()]),
        'train/gull holds no picture',
    ),
    swapped=(
        and_then(three, lambda cfg, root: cfg.train_dataloader.dataset.metainfo.update(classes=made.NAMES)),
        r"write classes=\('boat', 'gull', 'lighthouse'\)",
    ),
    too_few=(and_then(three, lambda cfg, root: cfg.train_dataloader.update(batch_size=256)), 'make no batch of 256'),
    wrong_head=(and_then(three, lambda cfg, root: cfg.model.head.update(num_classes=1000)), 'num_classes=1000'),
)


@pytest.mark.parametrize('row', CLASSIFIERS)
def test_classifiers_that_do_not_fit_their_data_lead_to_one_line(row, tmp_path):
    change, expected = CLASSIFIERS[row]
    made.folders(tmp_path)
    cfg = classifier(tmp_path)
    change(cfg, tmp_path)
    with pytest.raises(UserError) as error:
        check_contents(cfg, ('train', 'val'))
    assert re.search(expected, str(error.value)) and '\n' not in str(error.value), str(error.value)


@pytest.mark.parametrize(
    'flags, expected',
    [
        (dict(epochs=0), '--epochs must be more than 0'),
        (dict(lr=-1.0), '--lr must be more than 0'),
        (dict(epochs=1, iters=1), '--epochs and --iters both'),
        (dict(image_size=[8]), '--image-size takes one or two numbers of at least 32'),
        (dict(own_classes=True), '--own-classes reads the data of a folder: give it with --data-root'),
    ],
)
def test_flags_that_make_no_sense_lead_to_one_line(flags, expected):
    with pytest.raises(UserError, match=expected):
        train(DETECTOR, **flags)


def test_flags_that_a_config_has_nothing_for():
    with pytest.raises(UserError, match='--boxes-only takes the mask branch out of a detector'):
        use_boxes_only(load_config(FPN))
    with pytest.raises(UserError, match='have no size to change'):
        Length(image_size=[64]).apply(load_config(ROOT / 'configs/demo/mask_rcnn_nextvit_s_digits.py'), None)
    with pytest.raises(UserError, match='counts epochs, and its pictures could not be counted'):
        Length(iters=9).apply(load_config(DETECTOR), None)
