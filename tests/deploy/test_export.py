"""Exports of every kind of model: what is written runs, computes the same, and is whole or not there at all."""

import json
import multiprocessing
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from nextvit_mm.deploy import backends, evaluate as evaluation, export as module, run as running
from nextvit_mm.deploy.export import export
from nextvit_mm.deploy.graphs import ExportableAdaptiveAvgPool2d, NonMaxSuppression, make_graph
from nextvit_mm.deploy.guards import failing_clearly
from nextvit_mm.deploy.operators import onnx_operators, unlisted_operators
from nextvit_mm.deploy.verify import LIMITS
from nextvit_mm.errors import UserError
from nextvit_mm.predict.predictor import About, Input, Predictor, about_file, read_picture
from nextvit_mm.training.launch import evaluate
from tests.conftest import ROOT, TINY, WIDTHS, call_tool, quicken, shared, tiny
from tests.deploy.conftest import build, tiny_config

TASKS = dict(
    detection='detection', semantic_fpn='segmentation', upernet='segmentation', classification='classification'
)


@pytest.fixture(scope='module')
def other_process():
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, context, initializer=quicken, initargs=(pytest.MonkeyPatch(),)) as pool:
        yield pool


@pytest.fixture
def own_processes():
    """For the test in which all that is done apart is done as for a user, each in a new process."""


@pytest.fixture(autouse=True)
def one_process(other_process, request, monkeypatch):
    """What exports do in a process of its own they do in the same one: to start it takes most of a test's time.

    Its value are the names of the functions that would have had one.
    """
    names = []

    def run_apart(function, failure, show_progress=False, bare=False, **arguments):
        names.append(function.__name__)
        try:
            result = other_process.submit(function, **json.loads(json.dumps(arguments))).result()
        except Exception as error:
            raise UserError(f'{failure}:\n{error}') from error
        return json.loads(json.dumps(result))

    if 'own_processes' not in request.fixturenames:
        for user in (backends, evaluation, running):
            monkeypatch.setattr(user, 'run_apart', run_apart)
    return names


@pytest.fixture(scope='session')
def pictures(tmp_path_factory) -> Path:
    """Smooth pictures of several sizes, whose resizing and padding matter."""
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(64, 64), (80, 101), (131, 70)]):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f'{i}.png')
    return folder


@pytest.mark.slow
def test_openvino_is_right_after_a_tiny_picture_came_first(cases, pictures, tmp_path):
    case = cases['upernet']
    flags = dict(images=str(pictures), out=str(tmp_path / 'model.xml'), dynamic=('size',), to='openvino')
    path = export(case.config, case.checkpoint, **flags)
    tiny_one, usual = (np.asarray(Image.open(next(pictures.iterdir())).resize(size)) for size in ((28, 28), (80, 101)))
    right = Predictor(path)(usual)['class_map']
    predictor = Predictor(path)
    predictor(tiny_one)
    assert (predictor(usual)['class_map'] == right).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, to, flags',
    [
        ('detection', 'onnx', dict(dynamic=('size',))),
        ('detection', 'onnx', dict(size=(64, 96), normalize_inside=True)),
        ('detection', 'openvino', dict(dynamic=('size',))),
        ('semantic_fpn', 'onnx', dict(size=(64,))),
        ('semantic_fpn', 'openvino', dict(dynamic=('batch', 'size'))),
        ('semantic_fpn', 'torch-export', dict(dynamic=('size',))),
        ('upernet', 'onnx', dict(dynamic=('batch', 'size'), normalize_inside=True)),
        ('upernet', 'openvino', dict(size=(96, 64))),
        ('upernet', 'torch-export', dict(size=(64,))),
        ('classification', 'onnx', dict(dynamic=('batch',))),
        ('classification', 'openvino', dict(normalize_inside=True)),
        ('classification', 'torch-export', dict()),
        ('detection', 'onnx', dict(what='backbone', dynamic=('batch', 'size'))),
        ('detection', 'openvino', dict(what='backbone', size=(64,))),
        ('upernet', 'torch-export', dict(what='backbone', dynamic=('batch', 'size'))),
    ],
)
def test_what_is_written_computes_the_same(kind, to, flags, cases, pictures, tmp_path):
    path = export(
        cases[kind].config,
        cases[kind].checkpoint,
        to=to,
        images=str(pictures),
        out=str(tmp_path / f'model{backends.SUFFIXES[to]}'),
        **flags,
    )
    about = json.loads(about_file(path).read_text())
    assert set(about) <= set(About.__annotations__) and set(about['input']) == set(Input.__annotations__)
    task = 'backbone' if flags.get('what') == 'backbone' else TASKS[kind]
    assert about['task'] == task and about['compared']['images'] == 3
    assert set(LIMITS[task]) <= set(about['compared'])
    if task == 'detection':
        assert about['compared']['detections'] > 10
    assert (about['input']['size'] is None) == ('size' in about['input']['dynamic'])
    if task in ('detection', 'segmentation'):
        assert about['classes'][-10:] == list('0123456789')
    if to == 'onnx':
        model = onnx.load(path)
        assert about['tensorrt']['unlisted'] == [] and {node.domain for node in model.graph.node} <= {''}
        assert about['file'] == dict(name='ONNX', opset=backends.OPSET, ir_version=model.ir_version)
    if to == 'openvino':
        assert about['file']['name'] == 'OpenVINO IR' and about['file']['ir_version'] >= 11
    expected = [path.name, path.name + '.json'] + (['model.bin'] if to == 'openvino' else [])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize('kind, what', [('upernet', 'model'), ('classification', 'model'), ('detection', 'backbone')])
def test_core_ml_programs(kind, what, cases, pictures, tmp_path):
    path = export(
        cases[kind].config,
        cases[kind].checkpoint,
        to='coreml',
        what=what,
        size=(64,),
        images=str(pictures),
        out=str(tmp_path / 'model.mlpackage'),
    )
    import coremltools

    spec = coremltools.models.utils.load_spec(str(path))
    image = spec.description.input[0]
    about = json.loads(about_file(path).read_text())
    assert image.name == 'image' and list(image.type.multiArrayType.shape) == [1, 3, 64, 64]
    assert [output.name for output in spec.description.output] == about['outputs']
    operations = backends.coreml_operations(path)
    assert operations['conv'] > 20 and operations['softmax'] >= 2
    assert ('batch_norm' in operations) == (kind == 'upernet')  # its maps leave the network normed
    if sys.platform != 'darwin':
        assert 'macOS' in about['compared']['not_compared']


@pytest.mark.slow
def test_only_core_ml_and_torch_export_cannot_hold_a_detector(cases, pictures, tmp_path):
    for to, words in (('coreml', 'Core ML has no operations'), ('torch-export', 'torch.export cannot hold')):
        with pytest.raises(UserError, match=words):
            export(
                cases['detection'].config,
                cases['detection'].checkpoint,
                to=to,
                images=str(pictures),
                out=str(tmp_path / f'model{backends.SUFFIXES[to]}'),
            )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_kept(cases, pictures, tmp_path, monkeypatch):
    def write_wrong(graph, *args):
        graph.model.head.fc.weight.data[0] += 0.5
        backends.write_onnx(graph, *args)

    monkeypatch.setitem(module.WRITERS, 'onnx', write_wrong)
    with pytest.raises(UserError, match='does not compute what the model does.*largest score difference'):
        export(
            cases['classification'].config,
            cases['classification'].checkpoint,
            images=str(pictures),
            out=str(tmp_path / 'model.onnx'),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_values_that_are_not_finite_are_never_kept(cases, pictures, tmp_path, monkeypatch):
    def write_nan(graph, *args):
        graph.model.stages[1].blocks[0].patch_embed.conv.weight.data[0] = np.nan
        backends.write_onnx(graph, *args)

    monkeypatch.setitem(module.WRITERS, 'onnx', write_nan)
    with pytest.raises(UserError, match='values that are not finite'):
        export(
            cases['detection'].config,
            what='backbone',
            random_weights=True,
            dynamic=('size',),
            images=str(pictures),
            out=str(tmp_path / 'model.onnx'),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'classification', 'semantic_fpn'])
def test_a_file_whose_pictures_are_read_otherwise_is_not_kept(kind, cases, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(Predictor, 'read', lambda self, picture: read_picture(picture)[:, ::-1])
    with pytest.raises(UserError, match='largest color difference'):
        export(
            cases[kind].config,
            cases[kind].checkpoint,
            dynamic=('size',) if kind != 'classification' else (),
            images=str(pictures),
            out=str(tmp_path / 'model.onnx'),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_random_weights_of_a_detector_are_not_held_to_limits(cases, pictures, tmp_path):
    path = export(
        cases['detection'].config, random_weights=True, images=str(pictures), out=str(tmp_path / 'model.onnx')
    )
    assert json.loads(about_file(path).read_text())['compared']['values that are not finite'] == 0


@pytest.mark.slow
def test_an_evaluation_in_which_one_side_finds_nothing_ends_in_a_table(cases, pictures, tmp_path, monkeypatch, capsys):
    metrics = dict(trained={'coco/bbox_mAP': 0.5}, exported={})
    monkeypatch.setattr(module, 'evaluate_apart', lambda *_: metrics)
    path = export(
        cases['detection'].config,
        cases['detection'].checkpoint,
        evaluate=True,
        images=str(pictures),
        out=str(tmp_path / 'model.onnx'),
    )
    assert 'exported: nothing found' in capsys.readouterr().out and path.is_file()
    assert json.loads(about_file(path).read_text())['evaluated']['difference'] == {}


@pytest.mark.slow
def test_a_file_stays_where_its_evaluation_fails(cases, pictures, tmp_path, monkeypatch):
    def fail(*_):
        raise UserError('no memory')

    monkeypatch.setattr(module, 'evaluate_apart', fail)
    with pytest.raises(UserError, match='the file was written, and its evaluation failed: no memory'):
        export(
            cases['semantic_fpn'].config,
            cases['semantic_fpn'].checkpoint,
            evaluate=True,
            size=(64,),
            images=str(pictures),
            out=str(tmp_path / 'model.onnx'),
        )
    assert Predictor(tmp_path / 'model.onnx')(np.zeros((64, 64, 3), np.uint8))['class_map'].shape == (64, 64)


@pytest.mark.slow
@pytest.mark.parametrize('to', ['onnx', 'openvino'])
def test_one_session_takes_pictures_of_any_shape_with_and_without_results(to, cases, pictures, tmp_path):
    path = export(
        cases['detection'].config,
        cases['detection'].checkpoint,
        to=to,
        images=str(pictures),
        out=str(tmp_path / f'model{backends.SUFFIXES[to]}'),
        cfg_options={
            'model.test_cfg.rcnn.score_thr': 0.1,
            'test_dataloader.dataset.pipeline': [
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(160, 96), keep_ratio=True),
                dict(type='PackDetInputs'),
            ],
        },
    )
    predictor = Predictor(path)
    assert predictor.about['input']['dynamic'] == ['size']
    busy, found = np.asarray(Image.open(pictures / '1.png')), []
    for shape in ((1, 1), (5000, 5000), (70, 10), (10, 70)):
        for picture in (np.zeros((*shape, 3), np.uint8), busy):
            result = predictor(picture)
            assert result['masks'].shape[1:] == picture.shape[:2]
            found.append(len(result['boxes']))
    assert found[1] > 0 and len(set(found[1::2])) == 1


@pytest.mark.slow
def test_a_detector_of_one_size_shrinks_no_picture_unless_asked_to(cases, pictures, tmp_path):
    path = export(
        cases['detection'].config,
        cases['detection'].checkpoint,
        size=(64, 96),
        images=str(pictures),
        out=str(tmp_path / 'model.onnx'),
    )
    about = json.loads(about_file(path).read_text())
    assert about['input']['size'] == [64, 96] and about['input']['dynamic'] == []


@pytest.mark.slow
def test_a_detector_that_finds_nothing_was_not_compared(cases, pictures, tmp_path):
    with pytest.raises(UserError, match='finds nothing in the pictures'):
        export(
            cases['detection'].config,
            cases['detection'].checkpoint,
            images=str(pictures),
            out=str(tmp_path / 'model.onnx'),
            cfg_options={'model.test_cfg.rcnn.score_thr': 0.9999},
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_nothing_is_overwritten_and_no_class_named_unless_told(cases, pictures, tmp_path, capsys):
    target = tmp_path / 'model.onnx'
    target.write_text('mine')
    case = cases['classification']
    with pytest.raises(UserError, match='model.onnx exists.*--overwrite'):
        export(case.config, case.checkpoint, images=str(pictures), out=str(target))
    assert target.read_text() == 'mine'
    capsys.readouterr()
    export(case.config, case.checkpoint, images=str(pictures), out=str(target), overwrite=True)
    predictor = Predictor(target)
    assert predictor.about['exported']['checkpoint'] == 'classification.pth'
    assert 'the model has 10 classes and 1000 are named' in capsys.readouterr().out and predictor.name(3) == 'class 3'


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, flags, words',
    [
        ('detection', dict(checkpoint=None), 'needs its weights'),
        ('detection', dict(checkpoint=None, what='backbone'), 'names no pretrained weights'),
        ('detection', dict(image_count=0), 'at least 1'),
        ('detection', dict(evaluate=True, what='backbone'), '--evaluate is for whole models'),
        (
            'semantic_fpn',
            dict(
                cfg_options={
                    'test_dataloader.dataset.pipeline': [
                        dict(type='LoadImageFromFile'),
                        dict(type='Resize', scale=(2048, 512), keep_ratio=True),
                    ]
                }
            ),
            'pictures of many shapes',
        ),
        (
            'classification',
            dict(
                cfg_options={
                    'test_dataloader.dataset.pipeline': [
                        dict(type='LoadImageFromFile'),
                        dict(type='ResizeEdge', scale=72, backend='cv2', interpolation='lanczos'),
                        dict(type='CenterCrop', crop_size=64),
                    ]
                }
            ),
            'lanczos of cv2',
        ),
        (
            'detection',
            dict(
                cfg_options={
                    'test_dataloader.dataset.pipeline': [
                        dict(type='LoadImageFromFile'),
                        dict(type='Resize', scale=(96, 64), keep_ratio=True),
                        dict(type='PackDetInputs', meta_keys=('ori_shape', 'img_shape')),
                    ]
                }
            ),
            'leaves scale_factor out of meta_keys',
        ),
        (
            'detection',
            dict(
                cfg_options={
                    'test_dataloader.dataset.pipeline': [
                        dict(type='LoadImageFromFile'),
                        dict(type='Pad', size=(32, 32)),
                    ]
                }
            ),
            'png: a picture of .* cannot be padded to 32x32',
        ),
        ('detection', dict(random_weights=True), 'exclude each other'),
        ('detection', dict(dynamic=('batch',)), 'leave batch out'),
        ('detection', dict(to='coreml', int8=True, out='model.mlpackage'), '--int8 is for onnx and openvino'),
        ('detection', dict(out='model.xml'), 'must end in .onnx'),
        ('detection', dict(out='/proc/x/model.onnx'), '/proc/x/model.onnx.json cannot be written: No such file'),
        ('detection', dict(images='nowhere.png'), 'no pictures'),
        ('detection', dict(size=(64, 64, 3)), 'one or two whole numbers'),
        ('detection', dict(cfg_options={'model.test_cfg.rcnn.nms.type': 'soft_nms'}), 'rcnn.nms.type=soft_nms'),
        ('detection', dict(checkpoint='missing.pth'), 'checkpoint not found: missing.pth'),
        ('upernet', dict(cfg_options={'model.test_cfg.mode': 'slide'}), 'sliding windows'),
    ],
)
def test_what_cannot_be_exported_says_why(kind, flags, words, cases, pictures, tmp_path):
    flags = {'images': str(pictures), 'checkpoint': cases[kind].checkpoint, **flags}
    flags['out'] = str(tmp_path / flags.get('out', 'model.onnx'))
    with pytest.raises(UserError, match=words):
        export(cases[kind].config, **flags)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused(cases, pictures, tmp_path):
    with pytest.raises(UserError, match='does not fit the model of'):
        export(
            cases['detection'].config,
            cases['upernet'].checkpoint,
            images=str(pictures),
            out=str(tmp_path / 'model.onnx'),
        )


@pytest.mark.slow
def test_random_weights_serve_for_speed(cases, pictures, tmp_path):
    path = export(cases['upernet'].config, random_weights=True, images=str(pictures), out=str(tmp_path / 'model.onnx'))
    assert json.loads(about_file(path).read_text())['exported']['random_weights'] is True


def write_found_as_truth(case, folder, options):
    """Options with which the truth is what the model finds best in each picture, so that others score less."""
    evaluate(case.config, case.checkpoint, str(folder), out=str(folder / 'found.pkl'), cfg_options=options)
    truth = json.loads(Path(case.cfg.test_evaluator.ann_file).read_text())
    truth['annotations'] = []
    for prediction in pickle.loads((folder / 'found.pkl').read_bytes()):
        found = prediction['pred_instances']
        for i in found['scores'].argsort(descending=True)[:5].tolist():
            x1, y1, x2, y2 = found['bboxes'][i].tolist()
            mask = found['masks'][i]
            annotation = dict(
                id=len(truth['annotations']) + 1,
                image_id=prediction['img_id'],
                category_id=int(found['labels'][i]) + 1,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                area=float(rle.area(mask)),
                iscrowd=0,
                segmentation=dict(size=list(mask['size']), counts=mask['counts'].decode()),
            )
            truth['annotations'].append(annotation)
    (folder / 'truth.json').write_text(json.dumps(truth))
    return {f'{user}.ann_file': str(folder / 'truth.json') for user in ('test_dataloader.dataset', 'test_evaluator')}


@pytest.mark.slow
def test_the_exported_detector_scores_what_the_trained_one_does(cases, one_process, tmp_path):
    """Through the config's own data, metric and visualizer, on files as a user has them."""
    case, folder = cases['detection'], tmp_path / 'work'
    folder.mkdir()
    options = {'model.test_cfg.rcnn.score_thr': 0.01}
    truth = write_found_as_truth(case, folder, options)
    path = export(
        case.config,
        case.checkpoint,
        dynamic=('size',),
        out=str(tmp_path / 'model.onnx'),
        evaluate=True,
        cfg_options={**options, **truth},
    )
    assert one_process == ['_evaluate_here']  # for both
    trained = evaluate(case.config, case.checkpoint, work_dir=str(folder), cfg_options={**options, **truth})
    exported = evaluate(case.config, str(path), work_dir=str(folder), cfg_options=truth)
    assert exported == pytest.approx(trained, abs=1e-3) and len(exported) == 12
    assert min(trained['coco/bbox_mAP'], trained['coco/segm_mAP']) > 0.5
    assert json.loads(about_file(path).read_text())['evaluated']['exported'] == pytest.approx(exported)


@pytest.mark.slow
def test_the_exported_segmentor_scores_what_the_trained_one_does(cases, own_processes, tmp_path):
    case = cases['semantic_fpn']
    path = export(case.config, case.checkpoint, to='openvino', evaluate=True, out=str(tmp_path / 'model.xml'))
    found = json.loads(about_file(path).read_text())['evaluated']
    assert found['exported'] == pytest.approx(found['trained'], abs=0.05)


@pytest.mark.slow
def test_what_cannot_be_tested_says_why(cases, pictures, tmp_path):
    case = cases['detection']
    path = export(
        case.config,
        case.checkpoint,
        what='backbone',
        size=(64,),
        images=str(pictures),
        out=str(tmp_path / 'model.onnx'),
    )
    with pytest.raises(UserError, match='is a backbone'):
        evaluate(case.config, str(path), work_dir=str(tmp_path / 'work'))
    with pytest.raises(UserError, match='--tta is for checkpoints'):
        evaluate(case.config, str(path), work_dir=str(tmp_path / 'work'), tta=True)
    about_file(path).unlink()
    with pytest.raises(UserError, match='model.onnx.json is missing'):
        evaluate(case.config, str(path), work_dir=str(tmp_path / 'work'))


@pytest.mark.slow
@pytest.mark.parametrize('to', ['onnx', 'openvino'])
def test_int8_reports_what_it_costs(to, cases, tmp_path):
    case = cases['semantic_fpn']
    path = export(
        case.config,
        case.checkpoint,
        to=to,
        int8=True,
        calibration_count=4,
        out=str(tmp_path / f'model{backends.SUFFIXES[to]}'),
    )
    about = json.loads(about_file(path).read_text())
    assert set(about['evaluated']) == {'trained', 'exported', 'difference'}
    assert 0.2 < about['compared']['equal pixels'] < 1  # of random weights, whose classes are close
    assert len(os.listdir(tmp_path)) == (2 if to == 'onnx' else 3)
    if to == 'onnx':
        operators = onnx_operators(path)
        assert operators['QuantizeLinear'] > 20 and about['tensorrt']['unlisted'] == []
        float32 = export(case.config, case.checkpoint, out=str(tmp_path / 'float32.onnx'))
        assert path.stat().st_size < 0.5 * float32.stat().st_size


@pytest.mark.slow
def test_int8_leaves_the_boxes_of_a_detector_alone(cases, tmp_path):
    case = cases['detection']
    path = export(
        case.config, case.checkpoint, int8=True, calibration_count=4, evaluate=False, out=str(tmp_path / 'model.onnx')
    )
    graph = onnx.load(path).graph
    quantized = {output for node in graph.node if node.op_type == 'DequantizeLinear' for output in node.output}
    for node in graph.node:
        coordinates = dict(NonMaxSuppression=node.input[:1], RoiAlign=node.input[1:], Exp=node.input)
        assert not quantized & set(coordinates.get(node.op_type, ())), node.name
    with pytest.raises(UserError, match='--calibration-images'):
        export(
            case.config,
            case.checkpoint,
            int8=True,
            data_root=str(tmp_path / 'nowhere'),
            size=(64,),
            out=str(tmp_path / 'other.onnx'),
        )


@pytest.mark.slow
def test_int8_names_a_calibration_picture_that_is_damaged(cases, pictures, tmp_path):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.jpg').write_text('no picture')
    flags = dict(int8=True, images=str(pictures), calibration_images=str(tmp_path / 'in'))
    with pytest.raises(UserError, match="the quantization failed: cannot identify image file '.*a.jpg'$"):
        export(
            cases['classification'].config,
            cases['classification'].checkpoint,
            out=str(tmp_path / 'model.onnx'),
            **flags,
        )


def test_tensorrt_where_it_is_not(cases, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(UserError, match='trtexec.*is not on this machine.*\n  trtexec --onnx=MODEL.onnx'):
        export(
            cases['detection'].config,
            cases['detection'].checkpoint,
            to='tensorrt',
            images=str(pictures),
            out=str(tmp_path / 'model.engine'),
        )


@pytest.mark.slow
def test_tensorrt_where_a_program_of_its_name_is(cases, pictures, tmp_path, monkeypatch):
    """The command's arguments, checked by a stand-in for ``trtexec``: no engine is built here."""
    fake = tmp_path / 'bin' / 'trtexec'
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\nfor a in "$@"; do case $a in --saveEngine=*) f=${a#*=};; --onnx=*) test -s ${a#*=} || '
        'exit 1;; esac; done\necho "$@" > $f\n'
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv('PATH', f'{fake.parent}:{os.environ["PATH"]}')
    path = export(
        cases['detection'].config,
        cases['detection'].checkpoint,
        to='tensorrt',
        what='backbone',
        size=(64,),
        dynamic=('batch', 'size'),
        images=str(pictures),
        out=str(tmp_path / 'model.engine'),
    )
    arguments = path.read_text()
    assert '--fp16' in arguments and '--minShapes=image:1x3x' in arguments and '--maxShapes=image:8x3x' in arguments
    assert about_file(path).is_file() and not list(tmp_path.glob('*.onnx'))


def test_operators_that_tensorrt_does_not_list_are_found(tmp_path):
    class Unlisted(torch.nn.Module):
        def forward(self, x):
            return torch.det(x)

    torch.onnx.export(Unlisted(), (torch.rand(1, 3, 4, 4),), str(tmp_path / 'det.onnx'), dynamo=False)
    assert unlisted_operators(tmp_path / 'det.onnx') == ['Det']


def test_what_torch_cannot_write_is_one_line(tmp_path, capfd):
    class Halves(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.adaptive_max_pool2d(x, (x.shape[2] // 2, x.shape[3] // 2))

    with pytest.raises(UserError) as caught, failing_clearly('onnx', 'model'):
        backends.write_onnx(Halves(), torch.rand(1, 3, 8, 8), tmp_path / 'model.onnx', ['y'], ['size'])
    assert re.fullmatch('this network cannot be exported --to onnx: .*adaptive pooling.*', str(caught.value))
    assert capfd.readouterr() == ('', '')  # torch would print its whole graph


def test_operators_that_are_not_onnxs_are_refused(tmp_path):
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x + 1

        @staticmethod
        def symbolic(g, x):
            return g.op('mmcv::Own', x)

    class Network(torch.nn.Module):
        def forward(self, x):
            return Own.apply(x)

    with pytest.raises(UserError, match='this network has mmcv::Own, which ONNX does not have'):
        backends.write_onnx(Network(), torch.rand(1, 3, 8, 8), tmp_path / 'model.onnx', ['y'])


def test_nms_in_onnx_is_nms_per_class(tmp_path):
    class Nms(torch.nn.Module):
        def forward(self, boxes, scores):
            return NonMaxSuppression.apply(boxes, scores, 0.5, 0.1, 5)

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 40, 2, generator=generator) * 20
    boxes = torch.cat((corner, corner + 5 + torch.rand(3, 40, 2, generator=generator) * 10), dim=2)
    scores = torch.rand(3, 40, generator=generator)
    torch.onnx.export(
        Nms(),
        (boxes, scores),
        str(tmp_path / 'nms.onnx'),
        input_names=['boxes', 'scores'],
        opset_version=17,
        dynamo=False,
    )
    found = onnxruntime.InferenceSession(str(tmp_path / 'nms.onnx')).run(
        None, dict(boxes=boxes.numpy(), scores=scores.numpy())
    )[0]
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, Nms()(boxes, scores).tolist()))
    assert len(found) > 9 and np.bincount(found[:, 0]).max() <= 5


@pytest.mark.parametrize('size', [(16, 16), (7, 13), (1, 5), (6, 3)])
@pytest.mark.parametrize('out', [1, 2, 3, 6])
def test_pooling_by_products_is_adaptive_pooling(size, out):
    x = torch.rand(2, 4, *size)
    torch.testing.assert_close(ExportableAdaptiveAvgPool2d(out)(x), torch.nn.AdaptiveAvgPool2d(out)(x))


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(roi_head=dict(type='GridRoIHead', predict_bbox=None)), 'GridRoIHead finds objects in a way of its own'),
        (dict(rpn_head=dict(type='GARPNHead')), 'GARPNHead as rpn_head'),
    ],
)
def test_other_detectors_are_named(change, words):
    model = build(tiny_config('detection'))
    for name, part in change.items():
        getattr(model, name).__class__ = type(part.pop('type'), (type(getattr(model, name)),), part)
    with pytest.raises(UserError, match=words):
        make_graph(model, 'model')


def test_a_bare_backbone_and_strangers():
    assert make_graph(tiny(), 'backbone').outputs == ('stage1', 'stage2', 'stage3', 'stage4')
    with pytest.raises(UserError, match='--what backbone'):
        make_graph(tiny(), 'model')


@pytest.mark.slow
@pytest.mark.parametrize('kind, folder', [('detection', 'coco_tiny/val2017'), ('upernet', 'ade_tiny/images')])
def test_parity_on_real_photographs(kind, folder, cases, tmp_path):
    path = export(
        cases[kind].config,
        cases[kind].checkpoint,
        dynamic=('size',),
        images=str(shared('data', folder)),
        image_count=2,
        size=(256, 256),
        out=str(tmp_path / 'model.onnx'),
    )
    assert json.loads(about_file(path).read_text())['compared']['images'] == 2


@pytest.mark.slow
def test_the_command_and_the_runner_without_any_mm_package(cases, pictures, tmp_path):
    case = cases['detection']
    result = call_tool(
        ROOT / 'tools' / 'export.py',
        case.config,
        case.checkpoint,
        '--images',
        pictures,
        '--dynamic',
        'size',
        '--out',
        tmp_path / 'model.onnx',
    )
    assert '[5/5] moving it' in result.stdout and 'unmatched detections 0' in result.stdout
    shutil.copy(ROOT / 'nextvit_mm' / 'predict' / 'predictor.py', tmp_path)
    for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'cv2', 'nextvit_mm'):  # importing one fails
        (tmp_path / f'{name}.py').write_text('raise ImportError("not for the runner")')
    drawn = subprocess.run(
        [
            sys.executable,
            'predictor.py',
            'model.onnx',
            str(pictures / '1.png'),
            '--out',
            'drawn.png',
            '--score-thr',
            '0.1',
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert drawn.returncode == 0, drawn.stderr
    assert ' at ' in drawn.stdout and Image.open(tmp_path / 'drawn.png').size == (505, 400)
    failed = subprocess.run(
        [sys.executable, 'predictor.py', 'model.onnx', 'missing.png'], cwd=tmp_path, capture_output=True, text=True
    )
    assert failed.returncode == 2 and 'missing.png' in failed.stderr and 'Traceback' not in failed.stderr


@pytest.mark.slow
def test_the_package_comes_without_what_it_may_not_need(run_fresh):
    code = (
        'import sys, nextvit_mm.deploy; '
        'print([m for m in ("onnx", "openvino", "nncf", "coremltools", "onnxruntime") if m in sys.modules])'
    )
    assert run_fresh(code, PYTHONPATH=str(ROOT)).stdout.strip() == '[]'


@pytest.mark.slow
@pytest.mark.parametrize('size', 'sbl')
def test_published_classifiers_test_and_export(size, tmp_path):
    """On a folder of ImageNet's layout, and through the authors' evaluation transform in the runner."""
    config = str(ROOT / 'configs' / 'classification' / f'nextvit_{size}_224.py')
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for folder in ('val', 'meta'):
        (tmp_path / 'imagenet' / folder).mkdir(parents=True)
    (tmp_path / 'imagenet' / 'meta' / 'val.txt').write_text('a.jpg 0\nb.jpg 1\n')
    for name in 'ab':
        Image.fromarray(photo).save(tmp_path / 'imagenet' / 'val' / f'{name}.jpg')
    path = export(
        config,
        random_weights=True,
        data_root=str(tmp_path / 'imagenet'),
        out=str(tmp_path / 'model.onnx'),
        cfg_options={
            'model.backbone.arch': dict(TINY, _delete_=True),
            'model.head.in_channels': WIDTHS[3],
        },  # all else is the recipe's
    )
    about = json.loads(about_file(path).read_text())
    assert about['steps'] == [
        dict(do='resize', to=dict(edge='short', length=256), library='pillow', interpolation='bicubic'),
        dict(do='center_crop', size=[224, 224]),
    ]
    assert about['input']['color'] == 'RGB' and len(about['classes']) == 1000 and about['pictures']['test'] == 'config'
    if size == 's':
        found = evaluate(config, str(path), work_dir=str(tmp_path / 'work'), data_root=str(tmp_path / 'imagenet'))
        # The same picture in two classes: of both, one at most is the first of all.
        assert found['accuracy/top1'] in (0.0, 50.0)
