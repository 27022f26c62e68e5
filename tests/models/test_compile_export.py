"""The backbone goes through every door that leads out of eager mode."""

import io
from functools import cache

import onnxruntime
import pytest
import torch

from nextvit_mm import NextViT

from ..conftest import TINY, randomise, relative_error, tiny

# Capturing takes a time that grows with the layers. These two stages have both blocks, every kind of layer and E-MHSA
# in both ways: with its keys and values reduced, and not.
TWO_STAGES = dict(TINY, stages=[dict(TINY['stages'][1], num_ncb=1), TINY['stages'][3]])
SHAPES = [(2, 3, 64, 64), (2, 3, 80, 56), (2, 3, 97, 65)]  # the last is a multiple of nothing


def two_stages(**kwargs) -> NextViT:
    return randomise(NextViT(TWO_STAGES, out_indices=(0, 1), **kwargs))


def assert_equal_outputs(function, model, shapes=SHAPES, tolerance=1e-5):
    for shape in shapes:
        x = torch.rand(shape)
        with torch.no_grad():
            for a, b in zip(function(x), model(x)):
                assert a.shape == b.shape
                assert relative_error(torch.as_tensor(a).float(), b) < tolerance


@pytest.mark.slow
def test_torch_compile_fullgraph_with_dynamic_sizes():
    """Captured whole; and a stage's NTB, which has all layers of an NCB, through the default code generator.

    That takes long, and longer with each symbol and each layer that divides one: the batch size is no symbol there. Nor
    are there vectors in the code, for which PyTorch simplifies every stride in the two sides: three quarters of the
    time for what is no work of ours. The square comes last: met first, its sides would be one symbol, and all would be
    generated once more.
    """
    shapes = SHAPES[::-1]
    torch._dynamo.reset()
    model = two_stages().eval()
    assert_equal_outputs(torch.compile(model, fullgraph=True, dynamic=True, backend='eager'), model, shapes)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    stage = dict(num_ncb=0, num_ntb=1, ncb_channels=16, ntb_channels=64, sr_ratio=2, head_dim=16)
    model = randomise(NextViT(dict(stem_channels=(8, 8, 16), stages=[stage]), out_indices=(0,))).eval().stages[0]
    compiled = torch.compile(model, fullgraph=True, options={'cpp.vec_isa_ok': False})

    def run(x):
        for side in (2, 3):
            torch._dynamo.mark_dynamic(x, side)
        return compiled(x)

    assert_equal_outputs(run, model, [(2, 16, -(-height // 4), -(-width // 4)) for *_, height, width in shapes])
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 1  # for all sizes


@pytest.mark.slow
def test_torch_compile_fullgraph_in_training():
    torch._dynamo.reset()
    model, reference = two_stages().train(), two_stages().train()
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend='aot_eager')
    for size in (64, 48):
        x = torch.rand(2, 3, 64, size)
        for m in (compiled, reference):
            sum(o.cos().sum() for o in m(x)).backward()
    for (name, a), b in zip(model.named_parameters(), reference.parameters()):
        assert relative_error(a.grad, b.grad) < 1e-4, name


@pytest.fixture(scope='module')
def programs():
    """A function from a way of E-MHSA to a network and its program for pictures of any size and number."""

    @cache
    def get(sr_mode: str):
        model = two_stages(sr_mode=sr_mode).eval()
        dims = {
            0: torch.export.Dim('batch', min=1),
            2: torch.export.Dim('height', min=33),
            3: torch.export.Dim('width', min=33),
        }
        return model, torch.export.export(model, (torch.rand(2, 3, 64, 96),), dynamic_shapes=(dims,))

    return get


@pytest.mark.slow
@pytest.mark.parametrize('sr_mode', ['tokens', 'windows'])
def test_torch_export_with_dynamic_height_and_width(sr_mode, programs):
    model, program = programs(sr_mode)
    assert_equal_outputs(program.module(), model, SHAPES + [(1, 3, 33, 129)])


@pytest.mark.slow
def test_torch_jit_trace():
    model = tiny().eval()
    traced = torch.jit.trace(model, torch.rand(1, 3, 64, 64))
    assert_equal_outputs(traced, model)


@pytest.mark.slow
def test_onnx_with_dynamic_sizes_in_onnxruntime(programs):
    model, program = programs('tokens')
    buffer = io.BytesIO()
    torch.onnx.export(program, dynamo=True, verbose=False).save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue())
    name = session.get_inputs()[0].name
    assert_equal_outputs(lambda x: session.run(None, {name: x.numpy()}), model)


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_autocast(dtype, tolerance):
    model = tiny().eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        reference = model(x)
        with torch.autocast('cpu', dtype):
            outs = model(x)
    for a, b in zip(outs, reference):
        assert a.isfinite().all()
        assert relative_error(a.float(), b) < tolerance
    model.train()
    with torch.autocast('cpu', dtype):
        loss = sum(o.float().square().mean() for o in model(x))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
