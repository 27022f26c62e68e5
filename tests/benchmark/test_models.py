"""Whole models: what is measured, in which processes, and what is said of it; never the times."""

import contextlib
import importlib
import json

import pytest
import torch

from nextvit_mm.benchmark import models, report, torch_turns, turns
from nextvit_mm.benchmark.machine import missing_units
from nextvit_mm.benchmark.model_list import NAMES, load, parse_model
from nextvit_mm.benchmark.models import ModelRow, measure_models
from nextvit_mm.benchmark.options import ModelsOptions
from nextvit_mm.errors import UserError
from nextvit_mm.utils.subprocess import Served
from tests.deploy.conftest import tiny_config

pytestmark = pytest.mark.usefixtures('small_kernels')


class Here:
    """In the place of a process: the same object, in this one."""

    def __init__(self, model):
        self.model = model

    def ask(self, method):
        return json.loads(json.dumps(getattr(self.model, method)()))


@pytest.fixture
def one_process(monkeypatch):
    """PyTorch's side in this process, because starting others takes most of the time."""
    apart = models.open_process

    def open_process(row, file, picture, threads):
        if row.runtime in ('eager', 'folded'):
            return contextlib.nullcontext(Here(torch_turns.TorchModel(file, str(picture), threads, row.precision)))
        return apart(row, file, picture, threads)

    monkeypatch.setattr(models, 'open_process', open_process)
    monkeypatch.setattr(
        models,
        'open_limit',
        lambda precisions, threads: contextlib.nullcontext(Here(torch_turns.Limit(threads, precisions))),
    )
    monkeypatch.setattr(models, 'run_apart', lambda function, failure, **arguments: function(**arguments))


def config(kind, folder):
    cfg = tiny_config(kind)
    cfg.dump(folder / f'{kind}.py')
    return str(folder / f'{kind}.py')


@pytest.mark.slow
def test_a_detector_in_every_runtime_finds_the_same(tmp_path, one_process):
    pytest.importorskip('mmdet')
    name = config('detection', tmp_path)
    result = measure_models(
        ModelsOptions(models=[name], shapes=['1x96x128'], runtimes=['eager', 'folded', 'onnxruntime'], rounds=2)
    )
    assert {row.key for row in result.rows} == {f'{name}/{run}/fp32' for run in ('eager', 'folded', 'onnxruntime')}
    for row in result.rows:
        assert row.agrees and row.error <= 0.02 and row.found >= 20 and row.memory > 0, row
        assert set(row.stages) == set(turns.STAGES) and min(row.stages.values()) > 0
        assert set(row.parts) == set(turns.PARTS) and len(row.rounds) == 2
        assert all(row.parts[part] > 0 for part in ('backbone', 'neck', 'heads', 'RoIAlign', 'NMS')), row
        assert row.share == pytest.approx(row.flops / row.median / result.limits['fp32']['best'])
        assert 1 / row.pictures_per_s >= row.median
    assert {skip['key'].split('/')[-1] for skip in result.skipped} == {'bf16', 'int8'}
    report.write_markdown([result], tmp_path / 'run.md')
    text = ' '.join((tmp_path / 'run.md').read_text().split())
    assert '1x96x128, where the time goes, ms' in text and '| RoIAlign | NMS |' in text
    assert json.loads(json.dumps(result.as_dict()))['rows'][0]['stages']['paste'] > 0


@pytest.mark.slow
def test_what_one_model_lacks_is_listed_and_the_rest_of_it_measured(tmp_path, one_process, monkeypatch):
    """The default command has a ResNet, which cannot be folded, and precisions that not every CPU has."""
    pytest.importorskip('mmdet')
    monkeypatch.setattr(models, 'missing_units', lambda precision: 'amx' if precision == 'bf16' else '')
    cfg = tiny_config('detection')
    cfg.model.backbone = dict(type='ResNet', depth=18, base_channels=8)
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    cfg.dump(name := str(tmp_path / 'resnet.py'))
    runtimes, precisions = ['folded', 'eager'], ['fp32', 'bf16']
    result = measure_models(
        ModelsOptions(models=[name], shapes=['1x64'], runtimes=runtimes, precisions=precisions, rounds=1)
    )
    assert [row.key for row in result.rows] == [f'{name}/eager/fp32'] and list(result.limits) == ['fp32']
    reasons = {skip['key'].removeprefix(name): skip['reason'] for skip in result.skipped}
    assert reasons['/folded/fp32'] == "only this project's backbone can be folded"
    assert set(reasons) == {'/folded/fp32', '/folded/bf16', '/eager/bf16'}


@pytest.mark.slow
def test_a_segmentor_and_a_process_that_fails(tmp_path, one_process, monkeypatch):
    pytest.importorskip('mmseg')
    opened = models.open_process

    def open_process(row, *args):
        if row.runtime == 'folded':
            raise UserError(f'{row.key} has failed:\nout of memory')
        return opened(row, *args)

    monkeypatch.setattr(models, 'open_process', open_process)
    options = ModelsOptions(
        models=[config('upernet', tmp_path)],
        shapes=['1x64'],
        runtimes=['eager', 'folded'],
        precisions=['fp32'],
        rounds=1,
    )
    result = measure_models(options)
    (row,) = result.rows
    assert row.runtime == 'eager' and row.parts['heads'] > 0 and row.stages['paste'] > 0 and row.found > 1
    assert [skip['reason'] for skip in result.skipped] == ['out of memory']


def test_ratios_are_to_resnet_101_with_the_same_heads_in_the_same_runtime():
    def row(name, runtime, seconds):
        return ModelRow(name, 'fp32', (1, 64, 64), 10**9, 0.0, True, [seconds], runtime=runtime)

    rows = [
        row('mask_rcnn_nextvit_s', 'eager', 2.0),
        row('mask_rcnn_nextvit_s', 'openvino', 1.0),
        row('mask_rcnn_resnet101', 'eager', 3.0),
        row('upernet_resnet101', 'openvino', 9.0),
    ]
    result = models.Result({}, {}, {}, rows, [])
    models._finish(result)
    assert [each.ratio for each in rows] == [1.5, None, 1.0, 1.0]


@pytest.mark.parametrize('name', NAMES)
def test_models_by_name_are_configs(name):
    pytest.importorskip('mmdet' if name.startswith('mask_rcnn') else 'mmseg')
    cfg = load(parse_model(name))
    kind = dict(nextvit='NextViT', timm='TIMMBackbone', resnet='ResNet', swin='SwinTransformer', convnext='ConvNeXt')
    found = next(kind[word] for word in kind if word in name.replace('timm_nextvit', 'timm'))
    assert cfg.model.backbone.type.split('.')[-1].startswith(found)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(models=['mask_rcnn_resnet18']), 'mask_rcnn_resnet18'),
        (dict(shapes=['2x64']), 'one picture'),
        (dict(rounds=0), '--rounds'),
        (dict(device='cuda'), 'measured on CPUs'),
    ],
)
def test_what_cannot_be_measured_is_an_error(options, message):
    with pytest.raises(UserError, match=message):
        measure_models(ModelsOptions(**options))


def test_sizes_and_kinds_that_do_not_fit_are_listed(tmp_path, one_process):
    pytest.importorskip('mmdet')
    name = config('detection', tmp_path)
    with pytest.raises(UserError, match='multiples of 32 pixels, not at 65'):
        measure_models(ModelsOptions(models=[name], shapes=['1x65'], runtimes=['eager'], rounds=1))


@pytest.mark.parametrize(
    'name, kind, part',
    [
        ('/model/backbone/stages.0/blocks.0/mlp/fc1/Conv', 'Conv', 'backbone'),
        ('__module.model.backbone.stem.0.conv/aten::_convolution/Convolution', 'Convolution', 'backbone'),
        ('/neck/fpn_convs.0/conv/Conv_output_0_nchwc', 'Conv', 'neck'),
        ('fused /bbox_head/shared_fcs.0/Gemm', 'FusedGemm', 'heads'),
        ('/rpn_head/Relu_output_0_nchwc', 'Conv', 'heads'),
        ('/RoiAlign_2', 'RoiAlign', 'RoIAlign'),
        ('/NonMaxSuppression', 'NonMaxSuppression', 'NMS'),
        ('/Concat_60', 'Concat', 'rest'),
        ('Bottleneck_1', 'Conv', 'rest'),
    ],
)
def test_operations_belong_to_parts(name, kind, part):
    assert turns.part_of(name, kind) == part


def test_a_part_does_not_count_what_others_inside_it_take(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(turns.time, 'perf_counter', lambda: next(now))
    watch = turns.Stopwatch()
    inner = watch.timed(lambda: None, 'NMS')
    watch.timed(lambda: (inner(), inner()), 'heads')()
    assert dict(watch.stop()) == dict(rest=2, heads=3, NMS=2)


@pytest.mark.parametrize(
    'flags, precision, lacks',
    [
        ('avx2 fma', 'bf16', True),
        ('avx2 fma', 'int8', True),
        ('avx2 fma', 'fp32', False),
        ('avx512_bf16 avx512_vnni', 'bf16', False),
        ('avx512_bf16 avx512_vnni', 'int8', False),
    ],
)
def test_a_cpu_says_what_it_lacks(flags, precision, lacks, tmp_path):
    (tmp_path / 'cpuinfo').write_text(f'flags : {flags}\n')
    assert bool(missing_units(precision, tmp_path / 'cpuinfo')) == lacks


def test_a_process_that_does_not_start_says_why(tmp_path, monkeypatch):
    (tmp_path / 'failing.py').write_text("def fails():\n    raise ValueError('no such weights')\n")
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))  # a module that imports nothing, as others take seconds to
    monkeypatch.syspath_prepend(tmp_path)
    fails = importlib.import_module('failing').fails
    with pytest.raises(UserError, match='the model has failed:(.|\n)*no such weights'):
        Served(fails, 'the model', {})


@pytest.mark.slow
def test_half_precision_of_pytorch_is_autocast(tmp_path, one_process, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.setattr(models, 'missing_units', lambda precision: '')
    seen = []
    monkeypatch.setattr(
        torch.nn.functional, 'relu', lambda x, inplace=False, relu=torch.relu: (seen.append(x.dtype), relu(x))[1]
    )
    options = ModelsOptions(
        models=[config('detection', tmp_path)], shapes=['1x64'], runtimes=['eager'], precisions=['bf16'], rounds=1
    )
    assert len(measure_models(options).rows) == 1 and torch.bfloat16 in seen
