"""The predictor's preprocessing and results against those of the MM packages."""

import numpy as np
import pytest
import torch
from PIL import Image

from nextvit_mm.predict import predictor as r


def resized(**rule) -> list:
    return [dict(do='resize', to=rule, library='cv2', interpolation='bilinear')]


def fitted(size) -> list:
    return [*resized(fit=size), dict(do='canvas', size=size)]


@pytest.mark.parametrize(
    'old, new',
    [((64, 64), (97, 131)), ((480, 640), (120, 160)), ((101, 57), (57, 101)), ((30, 30), (30, 61)), ((7, 5), (1, 1))],
)
def test_resizing_is_opencvs(old, new):
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (*old, 3), dtype=np.uint8)
    theirs = cv2.resize(picture, new[::-1], interpolation=cv2.INTER_LINEAR)
    difference = abs(r.resize(picture, new, 'bilinear').astype(int) - theirs)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-4  # none with OpenCV 5; versions round differently


@pytest.mark.parametrize(
    'rule, step',
    [
        (dict(long_short=[1333, 800]), dict(type='Resize', scale=(1333, 800), keep_ratio=True)),
        (dict(long_short=[2048, 512]), dict(type='Resize', scale=(2048, 512), keep_ratio=True)),
        (dict(factor=[0.5, 0.5]), dict(type='Resize', scale_factor=0.5)),
        (dict(exact=[48, 40]), dict(type='Resize', scale=(40, 48), keep_ratio=False)),
    ],
)
@pytest.mark.parametrize('size', [(333, 500), (640, 427), (100, 100)])
def test_sizes_are_those_of_mmcv(rule, step, size):
    from mmcv.transforms import Resize

    step = {key: value for key, value in step.items() if key != 'type'}
    theirs = Resize(**step)(dict(img=np.zeros((*size, 3), np.uint8), img_shape=size))['img_shape']
    assert r.resized_size(size, rule) == tuple(theirs)


@pytest.mark.parametrize('size', [(333, 500), (640, 427), (100, 100)])
def test_center_crops_are_those_of_mmpretrain(size):
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import TRANSFORMS

    init_default_scope('mmpretrain')
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    results = dict(img=picture, img_shape=size)
    for step in (
        dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=224),
    ):
        results = TRANSFORMS.build(step)(results)
    about = dict(
        steps=[
            dict(do='resize', to=dict(edge='short', length=256), library='pillow', interpolation='bicubic'),
            dict(do='center_crop', size=[224, 224]),
        ],
        input=dict(color='RGB', mean=[0, 0, 0], std=[1, 1, 1], normalized_inside=True),
    )
    ours = r.place(picture, about).tensor[0].transpose(1, 2, 0)
    assert ours.shape == results['img'].shape and (ours == results['img']).all()


@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('color', ['RGB', 'BGR'])
def test_padding_is_the_mean_color(inside, color):
    mean, std = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
    about = dict(steps=fitted([10, 12]), input=dict(color=color, mean=mean, std=std, normalized_inside=inside))
    placed = r.place(np.full((8, 6, 3), (1, 2, 3), np.uint8), about)
    assert placed.tensor.shape == (1, 3, 10, 12) and placed.original == (8, 6) and placed.resized == (10, 8)
    pixel = np.array([1, 2, 3] if color == 'RGB' else [3, 2, 1], np.float32)
    value, fill = (pixel, np.array(mean)) if inside else ((pixel - mean) / std, np.zeros(3))
    assert np.allclose(placed.tensor[0, :, 5, 7], value) and np.allclose(placed.tensor[0, :, 5, 8], fill)


@pytest.mark.slow
def test_masks_are_pasted_as_mmdetection_does():
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    rng = np.random.default_rng(0)
    masks = rng.random((20, 28, 28), dtype=np.float32)
    corner = rng.uniform(-10, 60, (20, 2)).astype(np.float32)
    boxes = np.concatenate((corner, corner + rng.uniform(1, 40, (20, 2)).astype(np.float32)), axis=1)
    theirs = _do_paste_mask(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), 70, 90, skip_empty=False)[0]
    for mask, box, expected in zip(masks, boxes, theirs.numpy()):
        pasted = np.zeros((70, 90), np.float32)
        place, values = r.mask_in_picture(mask, box, (70, 90))
        pasted[place] = values
        assert abs(pasted - expected).max() < 1e-4 or ((pasted >= 0.5) == (expected >= 0.5)).all()


@pytest.mark.parametrize('box', [(5, 5, 5, 9), (200, 200, 220, 220), (-20, -20, -5, -5)])
def test_masks_of_empty_boxes_and_boxes_outside_are_empty(box):
    assert r.mask_in_picture(np.ones((4, 4), np.float32), np.array(box), (50, 60))[1].sum() == 0


def test_class_maps_are_enlarged_by_the_nearest_pixel():
    small = np.array([[1, 2], [3, 4]])
    assert (r.nearest(small, (4, 4)) == small.repeat(2, 0).repeat(2, 1)).all()
    assert (r.nearest(small, (1, 2)) == [[3, 4]]).all() and r.nearest(small, (2, 2)) is not None


def about(task, **more):
    return dict(
        format=r.FORMAT,
        task=task,
        outputs=more.pop('outputs', []),
        test_cfg=dict(mask_thr_binary=0.5),
        steps=resized(factor=[1.0, 1.0]),
        classes=more.pop('classes', ['cat', 'dog']),
        palette=[[0, 0, 128], [250, 200, 0]],
        input=dict(color='RGB', mean=[0, 0, 0], std=[1, 1, 1], normalized_inside=True),
        **more,
    )


def runner(task, arrays, **more) -> r.Predictor:
    made = r.Predictor.__new__(r.Predictor)
    made.about, made.session = about(task, **more), lambda tensor: arrays
    return made


def test_detections_come_back_in_pixels_of_the_picture_and_are_drawn():
    outputs = [
        np.array([[10, 20, 30, 400]], np.float32),
        np.array([0.9], np.float32),
        np.array([1]),
        np.ones((1, 4, 4), np.float32),
    ]
    model = runner('detection', outputs, outputs=['boxes', 'scores', 'labels', 'masks'])
    model.about['steps'] = resized(factor=[2.0, 2.0])
    picture = np.zeros((50, 40, 3), np.uint8)
    result = model(picture)
    assert result['boxes'].tolist() == [[5, 10, 15, 50]] and result['masks'].shape == (1, 50, 40)
    assert result['masks'][0, 30, 10] and not result['masks'][0, 30, 30]
    drawn = np.asarray(model.draw(picture, result))
    assert drawn.shape[:2] == (500, 400) and (drawn[400, 100] == (125, 100, 0)).all()
    assert r.describe(model, result, 0.3) == ['dog 0.900 at 5.0, 10.0, 15.0, 50.0']
    assert r.describe(model, result, 0.95) == ['nothing with a score of 0.95 or more']


def test_the_mask_of_a_box_that_reaches_into_the_padding_is_cut_and_not_squeezed():
    mask = np.zeros((1, 4, 4), np.float32)
    mask[:, :, :2] = 1  # the left half
    outputs = [np.array([[0, 0, 80, 40]], np.float32), np.array([0.9], np.float32), np.array([0]), mask]
    model = runner('detection', outputs, outputs=['boxes', 'scores', 'labels', 'masks'])
    model.about['steps'] = fitted([50, 80])
    result = model(np.zeros((50, 40, 3), np.uint8))
    assert result['boxes'].tolist() == [[0, 0, 40, 40]]
    assert result['masks'][0, 20, :39].all() and not result['masks'][0, 45].any()


def test_a_box_that_lies_in_the_padding_as_a_whole_is_left_out():
    boxes = np.array([[50, 0, 70, 40], [10, 10, 30, 30]], np.float32)
    outputs = [boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1]), np.ones((2, 4, 4), np.float32)]
    model = runner('detection', outputs, outputs=['boxes', 'scores', 'labels', 'masks'])
    model.about['steps'] = fitted([50, 80])
    result = model(np.zeros((50, 40, 3), np.uint8))
    assert result['boxes'].tolist() == [[10, 10, 30, 30]] and result['labels'].tolist() == [1]
    assert result['masks'].shape == (1, 50, 40) and result['masks'][0, 20, 20]


def test_no_detection_is_a_result():
    outputs = [np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), np.zeros((0, 4, 4), np.float32)]
    model = runner('detection', outputs, outputs=['boxes', 'scores', 'labels', 'masks'])
    picture = np.zeros((50, 40, 3), np.uint8)
    result = model(picture)
    assert result['masks'].shape == (0, 50, 40)
    model.draw(picture, result)


def test_other_tasks_are_described_and_drawn():
    picture = np.zeros((40, 60, 3), np.uint8)
    class_map = np.zeros((1, 40, 60), int)
    class_map[:, :10] = 1
    model = runner('segmentation', [class_map])
    result = model(picture)
    assert r.describe(model, result, 0.3) == ['cat 75.0%', 'dog 25.0%']
    assert (np.asarray(model.draw(picture, result))[1, 1] == (125, 100, 0)).all()
    model = runner('classification', [np.array([[0.2, 0.8]], np.float32)])
    assert r.describe(model, model(picture), 0.3) == ['dog 80.0%', 'cat 20.0%']
    assert isinstance(model.draw(picture, model(picture)), Image.Image)
    model = runner('backbone', [np.ones((1, 4, 5, 6), np.float32), np.random.rand(1, 8, 3, 3)], outputs=['a', 'b'])
    assert r.describe(model, model(picture), 0.3) == ['a: (1, 4, 5, 6)', 'b: (1, 8, 3, 3)']
    assert model.draw(picture, model(picture)).size == (80, 40)


def test_wrong_files_and_pictures_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='model.onnx is missing'):
        r.Predictor(tmp_path / 'model.onnx')
    (tmp_path / 'model.onnx').write_bytes(b'')
    r.about_file(tmp_path / 'model.onnx').write_text('{"format": 99}')
    with pytest.raises(ValueError, match='model.onnx.json was not written by'):
        r.Predictor(tmp_path / 'model.onnx')
    r.about_file(tmp_path / 'model.onnx').write_text('{')
    with pytest.raises(ValueError, match='is not JSON'):
        r.Predictor(tmp_path / 'model.onnx')
    with pytest.raises(ValueError, match='neither an .onnx nor an .xml'):
        r.open_session(tmp_path / 'model.txt')
    with pytest.raises(ValueError, match=r'\(H, W, 3\) of uint8, not \(4, 4\)'):
        r.read_picture(np.zeros((4, 4)))


def test_a_damaged_picture_is_named(tmp_path, monkeypatch):
    path = tmp_path / 'a.jpg'
    Image.fromarray(PICTURE).save(path)
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(OSError, match=f'{path}: .*truncated'):
        r.read_picture(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 200)  # what Pillow then raises is of a class of its own
    with pytest.raises(OSError, match=f'{path}: .*exceeds limit'):
        r.read_picture(path)


def test_names_of_classes_may_hold_anything():
    names = ['Übergang "A"\n路', "it's"]
    found = runner('classification', [np.array([[0.2, 0.8]], np.float32)], classes=names)
    result = found(PICTURE)
    assert found.name(0) == 'Übergang "A" 路' and r.describe(found, result, 0.5)[1] == 'Übergang "A" 路 20.0%'
    assert found.draw(PICTURE, result).size[0] > PICTURE.shape[1]


@pytest.mark.parametrize('name, runtime', [('model.onnx', 'onnxruntime'), ('model.xml', 'openvino')])
def test_a_damaged_model_is_named(name, runtime, tmp_path):
    pytest.importorskip(runtime)
    (tmp_path / name).write_bytes(b'no model' * 100)
    with pytest.raises(ValueError, match=f'{name} cannot be opened, since it is damaged or not whole: .+') as error:
        r.Predictor(tmp_path / name, about=dict(task='classification'))
    assert '\n' not in str(error.value)


PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)  # turned or mirrored, another one


@pytest.mark.parametrize(
    'mode, suffix', [('RGB', 'png'), ('RGB', 'jpg'), ('RGB', 'bmp'), ('L', 'png'), ('P', 'png'), ('RGBA', 'png')]
)
def test_pictures_are_read_pixel_by_pixel(mode, suffix, tmp_path):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(PICTURE).convert(mode).save(path)
    found = r.read_picture(path)
    assert found.dtype == np.uint8 and (found == np.asarray(Image.open(path).convert('RGB'))).all()
    if (mode, suffix) == ('RGB', 'png'):
        assert (found == PICTURE).all() and r.read_picture(PICTURE) is PICTURE


@pytest.mark.parametrize(
    'noted, turn',
    [
        (1, lambda p: p),
        (2, np.fliplr),
        (3, lambda p: p[::-1, ::-1]),
        (4, np.flipud),
        (5, lambda p: p.swapaxes(0, 1)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p[::-1, ::-1].swapaxes(0, 1)),
        (8, np.rot90),
    ],
)
def test_pictures_are_turned_as_the_camera_noted(noted, turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = noted
    Image.fromarray(PICTURE).save(tmp_path / 'a.png', exif=exif)
    assert (r.read_picture(tmp_path / 'a.png') == turn(PICTURE)).all()


@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('color', ['RGB', 'BGR'])
def test_every_pixel_is_placed_where_it_was(color, inside):
    mean, std = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 40.0])
    about = dict(
        steps=fitted([24, 30]), input=dict(color=color, mean=list(mean), std=list(std), normalized_inside=inside)
    )
    pixels = (PICTURE if color == 'RGB' else PICTURE[..., ::-1]).astype(float)
    expected = pixels if inside else (pixels - mean) / std
    placed = r.place(PICTURE, about)
    assert placed.original == placed.resized == (20, 30)
    assert np.allclose(placed.tensor[0, :, :20].transpose(1, 2, 0), expected, atol=1e-5)
    assert np.allclose(placed.tensor[0, :, 20:], (mean if inside else 0 * mean)[:, None, None])


def test_a_stream_keeps_the_order_and_goes_on_after_a_picture_that_cannot_be_read(tmp_path):
    for i in range(9):
        Image.new('RGB', (8 + i, 6), (i, 0, 0)).save(tmp_path / f'{i}.png')
    (tmp_path / '4.png').write_bytes(b'no picture')
    model, failed = runner('segmentation', []), []
    model.session = lambda tensor: [tensor[:, 0].astype(int)]
    found = list(model.stream(r.find_files([tmp_path]), on_error=lambda path, error: failed.append(path.name)))
    assert [(path.name, result['class_map'].shape[1]) for path, result in found] == [
        (f'{i}.png', 8 + i) for i in range(9) if i != 4
    ]
    assert all((result['class_map'] == int(path.stem)).all() for path, result in found) and failed == ['4.png']
    with pytest.raises(OSError, match='4.png'):
        list(model.stream(r.find_files([tmp_path])))


def test_a_picture_that_the_runtime_refuses_is_an_error_of_that_picture():
    def session(array):
        if array.shape[2] < 9:
            raise RuntimeError('node 1:\na kernel of 2 is larger than its input')
        return [np.zeros((1, *array.shape[2:]), np.int64)]

    about = dict(task='segmentation', steps=[], outputs=['class_map'])
    about['input'] = dict(size=None, normalized_inside=True, color='RGB', mean=[0.0] * 3, std=[1.0] * 3)
    predictor, failed = r.Predictor('a.onnx', session=session, about=about), []
    pictures = [np.zeros((side, 9, 3), np.uint8) for side in (9, 8, 10)]
    found = predictor.stream(pictures, on_error=lambda _, error: failed.append(str(error)))
    assert [result['class_map'].shape for _, result in found] == [(9, 9), (10, 9)]
    assert failed == ['the model does not run on an input of 8x9 (a kernel of 2 is larger than its input)']
    with pytest.raises(ValueError, match='does not run on an input of 8x9'):
        predictor(pictures[1])


def test_many_labels_are_those_above_the_threshold_or_the_first():
    scores = np.array([0.2, 0.9, 0.6])
    assert r.best_labels(scores).tolist() == [1, 2, 0]
    assert r.best_labels(scores, dict(threshold=0.5, top=None)).tolist() == [1, 2]
    assert r.best_labels(scores, dict(threshold=None, top=1)).tolist() == [1]


def test_a_folder_on_the_command_line(tmp_path, monkeypatch, capsys):
    for name in ('a.png', 'b.jpg', 'sub/a.png'):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURE).save(tmp_path / 'in' / name)
    (tmp_path / 'in' / 'c.png').write_bytes(b'no picture')
    (tmp_path / 'in' / '._a.png').write_bytes(b'of a Mac')
    (tmp_path / 'in' / 'folder.png').mkdir()
    (tmp_path / 'in' / 'notes.txt').write_text('no picture')
    made = runner('classification', [np.array([[0.2, 0.8]], np.float32)])
    monkeypatch.setattr(r, 'Predictor', lambda *_: made)
    monkeypatch.setattr('sys.argv', ['predictor', 'model.onnx', str(tmp_path / 'in'), '--out', str(tmp_path / 'out')])
    with pytest.raises(SystemExit) as end:
        r.main()
    out, err = capsys.readouterr()
    assert (
        end.value.code == 2
        and 'c.png' in err
        and err.count('\n') == 1
        and '3 pictures, ' in out
        and 'pictures per second' in out
    )
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.png.png', 'b.jpg.png', 'sub_a.png.png']


def test_no_picture_is_drawn_over(tmp_path, monkeypatch, capsys):
    Image.fromarray(PICTURE).save(tmp_path / 'a.png')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['predictor', 'model.onnx', 'a.png', '--out', str(tmp_path / 'a.png')])
    with pytest.raises(SystemExit) as end:
        r.main()
    assert end.value.code == 2 and 'a.png is one of the pictures' in capsys.readouterr().err
