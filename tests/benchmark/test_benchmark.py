"""The benchmark's logic, formats and errors; never its times."""

import json

import matplotlib.image
import pytest
import torch

from nextvit_mm.benchmark import machine, report, runtimes
from nextvit_mm.benchmark.candidates import build, count_multiply_adds, parse_candidate, photographs, published_top1
from nextvit_mm.benchmark.latency import LatencyRow, measure_latency, parse_key
from nextvit_mm.benchmark.machine import describe_machine, kernel_flops
from nextvit_mm.benchmark.options import LatencyOptions, TrainingOptions
from nextvit_mm.benchmark.rounds import Result, Timer, parse_shape, shape_name
from nextvit_mm.benchmark.training import measure_training
from nextvit_mm.errors import UserError
from nextvit_mm.utils.files import write_json

pytestmark = pytest.mark.usefixtures('small_kernels')
ONCE = dict(rounds=1, warmup=0, min_time=0)
REFERENCE = 'timm:nextvit_small/eager/fp32'
MACHINE = dict(describe_machine())


def row(key, rounds, shape=(8, 224, 224), agrees=True, top1=82.4):
    candidate, runtime, precision = key.split('/')
    return LatencyRow(candidate, precision, shape, 2 * 10**9, 0.0, agrees, list(rounds), runtime=runtime, top1=top1)


def made_up(*rows, reference=None, limits=None, shapes=('8x224',)):
    settings = dict(rounds=3, seed=0, reference=reference, shapes=list(shapes))
    result = Result(MACHINE, settings, limits or {}, list(rows), [])
    result.finish(REFERENCE)
    return result


@pytest.fixture(scope='module')
def measured(small_kernels):
    """Ours and timm's at 32 × 32, one round."""
    return measure_latency(
        LatencyOptions(
            candidates=['nextvit_s', 'timm:nextvit_small'],
            shapes=['1x32'],
            runtimes=['eager', 'folded', 'onnxruntime'],
            precisions=['fp32', 'bf16'],
            **ONCE,
        )
    )


@pytest.mark.parametrize('text, shape', [('8x224', (8, 224, 224)), ('1x800x1280', (1, 800, 1280))])
def test_shapes_have_names(text, shape):
    assert parse_shape(text) == shape and shape_name(shape) == text


@pytest.mark.parametrize('text', ['224', '8x', '0x224', '1x2x3x4', 'axb'])
def test_a_wrong_shape_is_named(text):
    with pytest.raises(UserError, match='BATCHxSIDE'):
        parse_shape(text)


def test_candidates_by_name():
    ours, theirs = parse_candidate('nextvit_s'), parse_candidate('timm:nextvit_small')
    assert ours.channels_last and not theirs.channels_last
    assert ours.timm_name == theirs.timm_name == 'nextvit_small'
    assert parse_candidate('timm:resnet101@channels_last').channels_last
    assert not parse_candidate('nextvit_l@contiguous').channels_last
    assert parse_candidate('nextvit_b@with_cp').with_cp


@pytest.mark.parametrize(
    'name, message',
    [
        ('nextvit_x', 'timm:NAME'),
        ('timm:nextvit_smal', 'similar: nextvit_small'),
        ('nextvit_s@fast', '@fast'),
        ('timm:resnet101@with_cp', '@with_cp'),
        ('nextvit_s@contiguous@channels_last', 'exclude'),
    ],
)
def test_a_wrong_candidate_is_named(name, message):
    with pytest.raises(UserError, match=message):
        parse_candidate(name)


@pytest.mark.parametrize('key', ['nextvit_s/eager', 'nextvit_s/fast/fp32', 'nextvit_s/eager/fp8'])
def test_a_wrong_row_is_named(key):
    with pytest.raises(UserError, match=key):
        parse_key(key)


def test_accuracy_is_that_of_table_4():
    assert published_top1(parse_candidate('nextvit_s')) == 82.4
    assert published_top1(parse_candidate('timm:nextvit_small'), (384, 384)) == 83.6
    assert published_top1(parse_candidate('timm:resnet101'), (800, 1280)) == 80.8
    assert published_top1(parse_candidate('timm:efficientformer_l3')) is None


def test_images_are_seeded():
    assert torch.equal(photographs((1, 3, 40, 64), 1), photographs((1, 3, 40, 64), 1))
    assert not torch.equal(photographs((1, 3, 40, 64), 1), photographs((1, 3, 40, 64), 2))


def test_multiply_adds_count_attention():
    model = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()

    class SelfAttention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            q = x.flatten(2).transpose(1, 2)
            return torch.nn.functional.scaled_dot_product_attention(q[:, None], q[:, None], q[:, None])

    # 16 tokens of 8 channels: queries with keys, weights with values.
    assert count_multiply_adds(SelfAttention(), (1, 8, 4, 4)) == 2 * 16 * 16 * 8


def test_flops_of_a_kernel_are_those_that_torch_counts():
    """Of those that the machine's limit is taken from, whatever their size."""
    from torch.utils.flop_counter import FlopCounterMode

    for name, kernel in machine.limit_kernels(['fp32'])['fp32'].items():
        with FlopCounterMode(display=False) as counter:
            kernel()
        assert counter.get_total_flops() == kernel_flops(name) > 0
    assert set(machine.limit_kernels(['fp32'])['fp32']) == {'gemm', 'conv'}


def test_a_network_built_for_one_size_is_built_for_another():
    model = build(parse_candidate('timm:deit_tiny_patch16_224'), (64, 96))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 96))[-1].shape[2:] == (4, 6)


@pytest.mark.slow
def test_rows_compute_what_timm_computes(measured):
    keys = {measured_row.key for measured_row in measured.rows}
    assert {'nextvit_s/eager/fp32', 'nextvit_s/folded/bf16', 'nextvit_s/onnxruntime/fp32', REFERENCE} <= keys
    assert all(measured_row.agrees for measured_row in measured.rows)
    assert all(measured_row.error < 1e-4 for measured_row in measured.rows if measured_row.precision == 'fp32')
    network = build(parse_candidate('timm:nextvit_small'), (32, 32), 0, 'cpu')
    flops = 2 * count_multiply_adds(network, (1, 3, 32, 32))
    assert {measured_row.flops for measured_row in measured.rows} == {flops}


@pytest.mark.slow
def test_what_cannot_run_is_listed(measured):
    reasons = {skip['key']: skip['reason'] for skip in measured.skipped}
    assert set(reasons) == {
        'timm:nextvit_small/folded/fp32',
        'timm:nextvit_small/folded/bf16',
        'nextvit_s/onnxruntime/bf16',
        'timm:nextvit_small/onnxruntime/bf16',
    }
    lines = report.skipped_lines(measured)
    assert len(lines) == 2 and any(line.endswith("only this project's backbone can be folded") for line in lines)


@pytest.mark.slow
def test_float32_is_not_rounded_to_tf32(measured):
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.slow
def test_limits_are_of_the_same_run(measured):
    for precision in ('fp32', 'bf16'):
        limits = measured.limits[precision]
        assert limits['best'] == max(limits['gemm'], limits['conv'])
    for measured_row in measured.rows:
        achieved = measured_row.flops / measured_row.median
        assert measured_row.share == pytest.approx(achieved / measured.limits[measured_row.precision]['best'])


@pytest.mark.slow
def test_a_wrong_output_is_not_fast(monkeypatch):
    def broken(*args, **kwargs):
        return lambda: [torch.zeros(1, 96, 16, 16)]

    monkeypatch.setattr('nextvit_mm.benchmark.latency.prepare', broken)
    options = LatencyOptions(candidates=['timm:nextvit_small'], shapes=['1x64'], runtimes=['eager'], **ONCE)
    result = measure_latency(options)
    assert not result.rows[0].agrees and result.rows[0].error == float('inf')
    assert 'WRONG' in report.as_text(report.latency_table(result.rows))
    with pytest.raises(UserError, match='accuracy'):
        report.draw_latency(result, 'unused.png')


def test_ratios_are_of_medians_at_the_same_shape():
    result = made_up(
        row(REFERENCE, [4, 1, 9]),
        row('nextvit_s/folded/fp32', [2, 2, 50]),
        row(REFERENCE, [1], shape=(1, 224, 224)),
        row('nextvit_s/folded/fp32', [3], shape=(1, 64, 64)),
        limits=dict(fp32=dict(gemm=2e9, best=2e9)),
    )
    assert [other.ratio for other in result.rows] == [1.0, 2.0, 1.0, None]
    assert result.rows[0].quartiles == (2.5, 6.5)
    assert result.rows[1].share == pytest.approx(0.5)  # 2e9 FLOPs in 2 s
    assert result.settings['reference'] == REFERENCE


def test_without_the_reference_the_first_row_is_it():
    result = made_up(row('nextvit_s/folded/fp32', [2.0]), row('nextvit_s/eager/fp32', [4.0]))
    assert [other.ratio for other in result.rows] == [1.0, 0.5]


def test_a_short_call_is_repeated_for_the_least_time(monkeypatch):
    """One call before, and then the median of those that it takes."""
    timer = Timer(rounds=1, warmup=0, min_time=1.0, seed=0, device='cpu')
    seconds = iter([9.0, 0.2, 0.4, 0.3, 0.2, 9.0])
    monkeypatch.setattr(timer, '_time', lambda run: next(seconds))
    assert timer.measure({'a': None}, 'a title') == {'a': [0.25]}


def test_rounds_are_interleaved():
    calls = []
    timer = Timer(rounds=3, warmup=0, min_time=0, seed=0, device='cpu')
    times = timer.measure({name: lambda name=name: calls.append(name) for name in 'abc'}, 'test')
    assert {name: len(values) for name, values in times.items()} == dict(a=3, b=3, c=3)
    rounds = [calls[i : i + 6] for i in range(0, 18, 6)]  # an untimed and a timed call each
    assert all(sorted(one) == list('aabbcc') and one[::2] == one[1::2] for one in rounds)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(runtimes=['tensorrt']), 'tensorrt'),
        (dict(precisions=['int8']), 'int8 is made with NNCF'),
        (dict(precisions=['fp16']), 'fp16 is for GPUs'),
        (dict(reference='nextvit_s/eager/bf16'), 'not among'),
        (dict(rounds=0), '--rounds'),
    ],
)
def test_what_can_not_be_measured_is_an_error(kwargs, message):
    if torch.cuda.is_available() and 'runtimes' in kwargs:
        pytest.skip('TensorRT may be here')
    with pytest.raises(UserError, match=message):
        given = {**dict(candidates=['nextvit_s'], shapes=['1x64'], runtimes=['eager'], rounds=1), **kwargs}
        measure_latency(LatencyOptions(**given))


@pytest.mark.parametrize(
    'module, runtimes_, precisions',
    [
        ('openvino', ['openvino'], ['fp32']),
        ('onnxruntime', ['onnxruntime'], ['fp32']),
        ('nncf', ['openvino'], ['int8']),
    ],
)
def test_a_missing_runtime_is_named_before_anything_is_built(monkeypatch, module, runtimes_, precisions):
    monkeypatch.setitem(__import__('sys').modules, module, None)
    with pytest.raises(UserError, match=f'needs {module}: pip install {module}'):
        runtimes.require(runtimes_, precisions, 'cpu')


@pytest.mark.slow
def test_json_and_markdown_hold_the_run(measured, tmp_path):
    write_json(tmp_path / 'out' / 'run.json', measured.as_dict())
    report.write_markdown([measured], tmp_path / 'run.md')
    content = json.loads((tmp_path / 'out' / 'run.json').read_text())
    assert set(content) == {'machine', 'settings', 'limits', 'rows', 'skipped'}
    assert (
        content['machine']['versions']['torch'] == torch.__version__.split('+')[0]
        or content['machine']['versions']['torch'] == torch.__version__
    )
    by_key = {one['key']: one for one in content['rows']}
    ours, base = by_key['nextvit_s/folded/fp32'], by_key[REFERENCE]
    assert ours['ratio'] == pytest.approx(base['median'] / ours['median'])
    assert ours['shape'] == [1, 32, 32] and len(ours['rounds']) == 1
    text = (tmp_path / 'run.md').read_text()
    assert '| nextvit_s | folded | fp32 |' in ' '.join(text.split()) and content['machine']['cpu'] in text
    assert text.count('\n|') == len(measured.rows) + 2


def test_the_picture_is_drawn(tmp_path):
    result = made_up(
        row(REFERENCE, [4.0]),
        row('nextvit_s/folded/fp32', [2.0]),
        row('nextvit_s/eager/fp32', [3.0]),
        row('timm:resnet101/eager/fp32', [5.0], top1=80.8),
        row('timm:pvt_v2_b2/eager/fp32', [6.0]),
        row('timm:efficientformer_l3/eager/fp32', [6.0], top1=None),
    )
    report.draw_latency(result, tmp_path / 'figure.png')
    assert matplotlib.image.imread(tmp_path / 'figure.png').std() > 0.02


@pytest.mark.slow
def test_training_steps_agree():
    result = measure_training(
        TrainingOptions(
            candidates=['timm:nextvit_small', 'nextvit_s@with_cp'],
            precisions=['fp32'],
            shape='2x64',
            rounds=1,
            warmup=0,
            memory=False,
        )
    )
    assert [one.key for one in result.rows] == ['timm:nextvit_small/fp32', 'nextvit_s@with_cp/fp32']
    assert all(one.agrees and one.memory is None for one in result.rows)
    assert result.rows[1].ratio == pytest.approx(result.rows[0].median / result.rows[1].median)
    assert json.loads(json.dumps(result.as_dict()))['rows'][1]['flops'] > 0
    assert 'not measured' in report.as_text(report.training_table(result.rows))


@pytest.mark.slow
def test_memory_that_cannot_be_measured_is_told_with_its_reason(monkeypatch):
    def killed(*args, **kwargs):
        raise UserError('memory was not measured:\nout of memory')

    monkeypatch.setattr('nextvit_mm.benchmark.training.run_apart', killed)
    result = measure_training(TrainingOptions(only=['nextvit_s/fp32'], shape='2x64', rounds=1, warmup=0))
    assert result.rows[0].memory is None and result.rows[0].median > 0
    assert report.skipped_lines(result) == ['nextvit_s/fp32: its memory: out of memory']


def test_a_wrong_training_row_is_named():
    with pytest.raises(UserError, match='fp8'):
        measure_training(TrainingOptions(only=['nextvit_s/fp8']))
    with pytest.raises(UserError, match='fp16 is for GPUs'):
        measure_training(TrainingOptions(only=['nextvit_s/fp16'], shape='1x64'))
