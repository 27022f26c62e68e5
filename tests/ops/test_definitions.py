"""Operators that mmcv does not compile for the CPU, against loops written from their definition, and other code."""

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmcv.ops import (
    carafe,
    deform_conv2d,
    deform_roi_pool,
    masked_conv2d,
    modulated_deform_conv2d,
    nms,
    nms_match,
    roi_align,
    roi_pool,
    sigmoid_focal_loss,
    softmax_focal_loss,
)
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from nextvit_mm.ops import in_use, points

from .cases import random, random_boxes, random_rois

DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()
pytestmark = [
    pytest.mark.parametrize('device', DEVICES),
    pytest.mark.skipif(not in_use(), reason="mmcv's compiled operators are in use"),
]


def close(ours: torch.Tensor, theirs, limit: float = 1e-6) -> None:
    theirs = torch.as_tensor(theirs).to(ours)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= limit * theirs.abs().max()


def iou(a, b) -> np.float32:
    side = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return side[0] * side[1] / (areas - side[0] * side[1])


def test_nms_keeps_the_first_of_equal_scores(device):
    boxes = random_boxes(10, 120)
    scores = (random(12, 120) * 3).round()
    order = np.argsort(-scores.numpy(), kind='stable')
    kept = []
    for index in order:
        if all(iou(boxes[index].numpy(), boxes[other].numpy()) <= np.float32(0.4) for other in kept):
            kept.append(index)
    assert 20 < len(kept) < 110
    assert nms(boxes.to(device), scores.to(device), 0.4)[1].tolist() == kept


def test_nms_match_groups_the_first_of_equal_scores(device):
    boxes = random_boxes(10, 60)
    groups = nms_match(torch.cat([boxes, torch.ones(60, 1)], 1).to(device), 0.4)
    kept = nms(boxes.to(device), torch.ones(60, device=device), 0.4)[1]
    assert [int(group[0]) for group in groups] == kept.tolist() and any(len(group) > 1 for group in groups)
    assert sorted(int(index) for group in groups for index in group) == list(range(60))


@pytest.mark.parametrize('mode', [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
def test_all_threads_of_a_cpu_take_regions_and_the_bits_stay(device, mode, monkeypatch):
    shares, teams = [], set()

    class Pool(ThreadPoolExecutor):
        def map(self, function, parts):
            def noted(part):
                teams.add(count_threads())
                return function(part)

            shares.append(len(parts))
            return super().map(noted, parts)

    count_threads = torch.get_num_threads

    monkeypatch.setattr('nextvit_mm.ops.threads.ThreadPoolExecutor', Pool)
    features, rois = random(1, 2, 32, 30, 40).to(device), random_rois(2, 41, 2, 150).to(device)
    gradient = random(3, 41, 32, 7, 7).to(device)
    results = []
    for count, memory_format in ((1, torch.contiguous_format), (3, torch.contiguous_format), (3, torch.channels_last)):
        monkeypatch.setattr(torch, 'get_num_threads', lambda count=count: count)
        with mode():
            maps = features.clone().contiguous(memory_format=memory_format)
            maps.requires_grad_(mode is contextlib.nullcontext)
            output = roi_align(maps, rois, 7, 0.25, 0, 'avg', True)
        assert output.requires_grad == maps.requires_grad and output.is_inference() == (mode is torch.inference_mode)
        results.append([output, *(torch.autograd.grad(output, maps, gradient) if maps.requires_grad else [])])
    torch.set_num_threads(1)
    for one, *threes in zip(*results):
        assert all(torch.equal(one, three) for three in threes) and one.abs().max() > 0.1
    assert shares == ([11] if mode is not contextlib.nullcontext else [11, 11]) * 2 * (device == 'cpu')
    assert device != 'cpu' or teams == {1}  # none of a thread starts others


def test_who_follows_an_operator_sees_it_with_any_number_of_threads(device, monkeypatch):
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    with Watch():
        maps, rois = random(1, 2, 32, 30, 40).to(device), random_rois(2, 41, 2, 150).to(device)
        roi_align(maps, rois, 7, 0.25, 0, 'avg', True)
    assert seen.count('torchvision.roi_align.default') == 1


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_narrow_inputs_are_computed_in_float32(device, dtype):
    features, rois = random(1, 2, 3, 9, 9).to(device, dtype), random_rois(2, 6, 2).to(device, dtype)
    for mode in ('avg', 'max'):
        inputs = [features.clone().requires_grad_(), features.float().requires_grad_()]
        outputs = [roi_align(x, rois.to(x), 3, 0.25, 0, mode, True) for x in inputs]
        for output in outputs:
            output.sum().backward()
        assert outputs[0].dtype == inputs[0].grad.dtype == dtype
        assert torch.equal(outputs[0], outputs[1].to(dtype))
        if mode == 'avg':  # of 'max', mmcv keeps the places of the largest values in the input's precision
            assert torch.equal(inputs[0].grad, inputs[1].grad.to(dtype))
    boxes, scores = random_boxes(3, 50).to(device, dtype), random(4, 50).to(device, dtype)
    assert torch.equal(nms(boxes, scores, 0.5)[1], nms(boxes.float(), scores.float(), 0.5)[1])


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_equals_its_formula_in_torch(device, ratio, aligned):
    features, rois = random(1, 2, 3, 9, 14).to(device), random_rois(2, 12, 2, 60, -20).to(device)
    inputs = [features.clone().requires_grad_() for _ in range(2)]
    outputs = [
        roi_align(inputs[0], rois, (3, 2), 0.25, ratio, 'avg', aligned),
        points.roi_align(inputs[1], rois, (3, 2), 0.25, ratio, aligned),
    ]
    close(outputs[0], outputs[1])
    for output in outputs:
        (output * output.detach()).sum().backward()
    close(inputs[0].grad, inputs[1].grad)


def pooled(features, roi, size, scale):
    """One region of RoIPool: the largest pixel of each bin and where it is, in mmcv's rounding."""
    height, width = features.shape[1:]
    x1, y1, x2, y2 = (np.float32(v) * np.float32(scale) for v in (roi[1], roi[2], roi[3] + 1, roi[4] + 1))
    values, places = np.zeros((len(features), *size)), np.full((len(features), *size), -1)
    for ph, pw in np.ndindex(*size):
        step = (y2 - y1) / np.float32(size[0]), (x2 - x1) / np.float32(size[1])
        rows = np.clip([np.floor(ph * step[0] + y1), np.ceil((ph + 1) * step[0] + y1)], 0, height).astype(int)
        columns = np.clip([np.floor(pw * step[1] + x1), np.ceil((pw + 1) * step[1] + x1)], 0, width).astype(int)
        for c in range(len(features)):
            window = features[c, rows[0] : rows[1], columns[0] : columns[1]]
            if window.size:
                row, column = np.unravel_index(window.argmax(), window.shape)
                values[c, ph, pw] = window.max()
                places[c, ph, pw] = (rows[0] + row) * width + columns[0] + column
    return values, places


def test_roi_pool(device):
    features = (random(1, 2, 3, 9, 12) * 8).round()  # many equal pixels
    rois = random_rois(2, 10, 2, 50, -20)
    rois[3, 3] = rois[3, 1] - 2  # no width
    x = features.clone().to(device).requires_grad_()
    output = roi_pool(x, rois.to(device), (3, 2), 0.25)
    gradient = random(3, *output.shape)
    output.backward(gradient.to(device))
    expected, expected_gradient = np.zeros(output.shape), np.zeros((2, 3, 9 * 12))
    for k, roi in enumerate(rois.numpy()):
        if roi[3] + 1 <= roi[1]:
            continue
        expected[k], places = pooled(features[int(roi[0])].numpy(), roi, (3, 2), 0.25)
        for c, ph, pw in zip(*np.nonzero(places >= 0)):
            expected_gradient[int(roi[0]), c, places[c, ph, pw]] += gradient[k, c, ph, pw]
    assert torch.equal(output.cpu(), torch.from_numpy(expected).float())
    close(x.grad.cpu().flatten(2), expected_gradient)


def test_the_maximum_of_negative_values_is_negative(device):
    x = -random(1, 1, 2, 8, 8, low=0.5).to(device)
    output = roi_align(x, torch.tensor([[0.0, 1, 1, 6, 6]], device=device), 2, 1.0, 2, 'max', True)
    assert (output <= -0.5).all()


@pytest.mark.slow
def test_deform_roi_pool(device):
    features, rois = random(1, 2, 2, 9, 10).double().to(device), random_rois(2, 5, 2, 18, 5).double().to(device)
    none = deform_roi_pool(features, rois, None, (2, 3), 0.25, 2, 0.1)
    close(none, roi_align(features, rois, (2, 3), 0.25, 2, 'avg', True), 1e-12)
    # An offset of the same size for all bins moves the region by gamma times its width and height.
    offset = torch.stack([torch.full((5, 2, 3), 0.5), torch.full((5, 2, 3), -0.25)], 1).double().to(device)
    side = rois[:, 3:] - rois[:, 1:3]
    move = side * rois.new_tensor([0.5, -0.25]) * 0.1
    moved = rois + torch.cat([move.new_zeros(5, 1), move, move], 1)
    close(
        deform_roi_pool(features, rois, offset, (2, 3), 0.25, 2, 0.1),
        roi_align(features, moved, (2, 3), 0.25, 2, 'avg', True),
        1e-12,
    )
    features, rois, offset = (
        features[..., :6, :7].contiguous(),
        rois[:3],
        random(4, 3, 2, 2, 3, low=-1).double().to(device).requires_grad_(),
    )
    assert gradcheck(
        lambda x, o: deform_roi_pool(x, rois, o, (2, 3), 0.25, 2, 0.1),
        (features.requires_grad_(), offset),
        nondet_tol=1e-12,
    )


@pytest.mark.slow
@pytest.mark.parametrize('groups', [1, 2])
def test_carafe(device, groups):
    features = random(1, 2, 4, 3, 4).double().to(device).requires_grad_()
    masks = random(2, 2, 9 * groups, 6, 8).double().to(device).requires_grad_()
    expected = np.zeros((2, 4, 6, 8))
    f, m = features.detach().cpu().numpy(), masks.detach().cpu().numpy()
    for n, c, y, x, dy, dx in np.ndindex(2, 4, 6, 8, 3, 3):
        row, column = y // 2 + dy - 1, x // 2 + dx - 1
        if 0 <= row < 3 and 0 <= column < 4:
            expected[n, c, y, x] += f[n, c, row, column] * m[n, c // (4 // groups) * 9 + dy * 3 + dx, y, x]
    close(carafe(features, masks, 3, groups, 2), expected, 1e-12)
    assert gradcheck(lambda x, w: carafe(x, w, 3, groups, 2), (features, masks))


def test_masked_conv(device):
    features, weight, bias = random(1, 1, 3, 6, 7).to(device), random(2, 4, 3, 3, 3).to(device), random(3, 4).to(device)
    mask = (random(4, 1, 6, 7) > 0.6).float().to(device)
    expected = torch.nn.functional.conv2d(features, weight, bias, padding=1) * mask
    close(masked_conv2d(features, mask, weight, bias, 1), expected)


def test_multi_scale_deformable_attention(device):
    shapes = torch.tensor([[5, 7], [3, 4]], device=device)
    start = torch.tensor([0, 35], device=device)
    inputs = [random(1, 2, 47, 3, 4), random(2, 2, 6, 3, 2, 5, 2, low=-0.2, high=1.2), random(3, 2, 6, 3, 2, 5)]
    inputs = [tensor.double().to(device).requires_grad_() for tensor in inputs]

    def ours(value, locations, weights):
        return MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)

    output = ours(*inputs)
    gradient = random(4, *output.shape).to(output)
    theirs = multi_scale_deformable_attn_pytorch(inputs[0], shapes, *inputs[1:])
    close(output, theirs, 1e-12)
    for a, b in zip(torch.autograd.grad(output, inputs, gradient), torch.autograd.grad(theirs, inputs, gradient)):
        close(a, b, 1e-12)


@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss(device, weighted):
    """Against binary cross-entropy times its modulating factor, and that one's gradient by autograd."""
    logits = random(1, 30, 5, low=-6, high=6).double().to(device).requires_grad_()
    target = torch.from_numpy(np.random.RandomState(2).randint(0, 5 if weighted else 6, 30)).to(device)
    weight = random(3, 5).double().to(device) if weighted else None
    truth = torch.nn.functional.one_hot(target, 6)[:, :5].double()
    p = logits.sigmoid()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction='none')
    miss = torch.where(truth > 0, 1 - p, p)
    expected = (0.7 - 0.4 * truth) * miss**1.7 * entropy
    expected = expected if weight is None else expected * weight[target][:, None]
    ours = sigmoid_focal_loss(logits, target, 1.7, 0.3, weight, 'none')
    close(ours, expected, 1e-12)
    close(torch.autograd.grad(ours.sum(), logits)[0], torch.autograd.grad(expected.sum(), logits)[0], 1e-12)


@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_focal_loss(device, weighted):
    logits = random(1, 30, 5, low=-4, high=4).double().to(device).requires_grad_()
    target = torch.from_numpy(np.random.RandomState(2).randint(-1, 5, 30)).to(device)
    weight = random(3, 5).double().to(device) if weighted else None
    entropy = torch.nn.functional.cross_entropy(logits, target, weight=weight, reduction='none', ignore_index=-1)
    p = logits.softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    expected = 0.3 * (1 - p) ** 1.7 * entropy
    ours = softmax_focal_loss(logits, target, 1.7, 0.3, weight, 'none')
    assert (target < 0).any()
    close(ours, expected, 1e-12)
    # mmcv multiplies (N, C) by the gradient of (N,) where nothing is reduced: 'sum' is what works there.
    ours = softmax_focal_loss(logits, target, 1.7, 0.3, weight, 'sum')
    close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(expected.sum(), logits)[0], 1e-12)


def test_deformable_convolution_of_no_offset_is_a_convolution(device):
    x, weight = random(1, 2, 4, 6, 7).to(device), random(2, 6, 2, 3, 3).to(device)
    offset, mask = x.new_zeros(2, 36, 6, 7), x.new_ones(2, 18, 6, 7)
    expected = torch.nn.functional.conv2d(x, weight, padding=1, groups=2)
    close(deform_conv2d(x, offset, weight, 1, 1, 1, 2, 2), expected)
    close(modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 2, 2), expected)


@pytest.mark.parametrize('wrong', [math.nan, math.inf, -math.inf])
def test_an_offset_that_is_no_number_reads_zeros(wrong, device):
    """As with mmcv's kernels; torchvision's would read anywhere, and the process would die."""
    x, weight = random(1, 1, 2, 4, 4).to(device).requires_grad_(), random(2, 3, 2, 3, 3).to(device).requires_grad_()
    expected = torch.nn.functional.conv2d(x, weight, padding=1).detach()
    expected[..., 1, 2] = 0
    offset, mask = x.new_zeros(1, 18, 4, 4), x.new_ones(1, 9, 4, 4)
    offset[..., 1, 2] = wrong
    offset.requires_grad_()
    for output in (
        deform_conv2d(x, offset, weight, 1, 1),
        modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1),
    ):
        close(output, expected)
        assert all(one.isfinite().all() for one in torch.autograd.grad(output.square().sum(), (x, offset, weight)))


def test_frozen_input_still_trains_the_weight(device):
    """The weight's gradient comes by another way where nothing else wants one."""
    x, offset = random(1, 2, 3, 5, 5).to(device), random(2, 2, 18, 5, 5, low=-2, high=2).to(device)
    weight = random(3, 4, 3, 3, 3).to(device).requires_grad_()
    alone = torch.autograd.grad(deform_conv2d(x, offset, weight, 1, 1).square().sum(), weight)[0]
    x.requires_grad_()
    output = deform_conv2d(x, offset, weight, 1, 1).square().sum()
    first = torch.autograd.grad(output, (x, weight), retain_graph=True)[1]
    assert torch.equal(alone, first) and torch.equal(first, torch.autograd.grad(output, weight)[0])


def test_modulated_offsets_of_a_larger_map_are_read_from_their_beginning(device):
    """As mmcv's kernel reads them, which DyHead relies on."""
    x, weight = random(1, 2, 3, 4, 4).to(device), random(2, 5, 3, 3, 3).to(device)
    offset, mask = random(3, 2, 18, 8, 8).to(device).requires_grad_(), random(4, 2, 9, 8, 8).to(device)
    ours = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
    flat = offset.detach().flatten(1)
    first = flat[:, : 18 * 16].reshape(2, 18, 4, 4).requires_grad_()
    theirs = modulated_deform_conv2d(x, first, mask.flatten(1)[:, : 9 * 16].reshape(2, 9, 4, 4), weight, None, 1, 1)
    assert torch.equal(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    gradient = offset.grad.flatten(1)
    assert torch.equal(gradient[:, : 18 * 16], first.grad.flatten(1)) and not gradient[:, 18 * 16 :].any()
    with pytest.raises(ValueError, match='too few'):
        modulated_deform_conv2d(x, offset[..., :2, :2], mask[..., :2, :2], weight, None, 1, 1)
