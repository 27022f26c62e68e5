"""Operators from torchvision and torch beside mmcv's compiled ones, or RoIAlign beside its formula in torch: a table.

``python benchmarks/operators.py [--device cuda]``. Where mmcv is compiled it is the other side of every row that it
has for the device. Times are medians of interleaved rounds, forward and backward together.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import nextvit_mm  # noqa: F401  (before mmcv: where that has no operators, it gives ours)

# isort: split
import mmcv._ext
import torch
from mmcv import ops

from nextvit_mm.ops import in_use, points, table
from tests.ops.cases import operators, random, random_boxes, random_rois

OURS = SimpleNamespace(**{name: operator.function for name, operator in table.OPERATORS.items()})
Outputs = list[torch.Tensor]


def subjects(device: str) -> dict[str, Callable[[], Outputs]]:
    """Operators at the sizes of a detector's training step."""
    features = random(1, 1, 256, 100, 168).to(device)
    rois = random_rois(2, 256, 1, 400).to(device)
    boxes, scores = random_boxes(3, 1500, 800).to(device), random(4, 1500).to(device)
    x, offset = random(5, 2, 64, 40, 40).to(device), random(6, 2, 18, 40, 40, low=-2, high=2).to(device)
    mask, weight = random(7, 2, 9, 40, 40).to(device), random(8, 64, 64, 3, 3, low=-1).to(device)

    return {
        'nms': lambda: [ops.nms(boxes, scores, 0.7)[1]],
        'soft_nms': lambda: [ops.soft_nms(boxes, scores, method='linear')[0]],
        'nms_match': lambda: [torch.cat(ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.5))],
        'bbox_overlaps': lambda: [ops.bbox_overlaps(boxes, boxes)],
        'roi_align': lambda: trained(lambda f: ops.roi_align(f, rois, 7, 0.25, 0, 'avg', True), features),
        'roi_align, max': lambda: trained(lambda f: ops.roi_align(f, rois, 7, 0.25, 0, 'max', True), features),
        'deform_conv': lambda: trained(lambda *a: ops.deform_conv2d(*a, 1, 1), x, offset, weight),
        'modulated_deform_conv': lambda: trained(
            lambda *a: ops.modulated_deform_conv2d(*a, None, 1, 1), x, offset, mask, weight
        ),
    }


def formula(device: str) -> tuple[Callable[[], Outputs], Callable[[], Outputs]]:
    """RoIAlign and its gradient by mmcv.ops, and by nextvit_mm.ops.points."""
    features, rois = random(1, 1, 64, 50, 84).to(device), random_rois(2, 64, 1, 400).to(device)
    return (
        lambda: trained(lambda f: ops.roi_align(f, rois, 7, 0.25, 0, 'avg', True), features),
        lambda: trained(lambda f: points.roi_align(f, rois, (7, 7), 0.25, 0, True), features),
    )


def trained(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Outputs:
    """What a function gives, and its gradients."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    output = function(*inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs, torch.ones_like(output))]


def on_one_thread(run: Callable[[], Outputs]) -> Callable[[], Outputs]:
    def call() -> Outputs:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return run()
        finally:
            torch.set_num_threads(threads)

    return call


def seconds(first: Callable, second: Callable, rounds: int, device: str) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, kept in zip((first, second), times):
            start = time.perf_counter()
            function()
            if device == 'cuda':
                torch.cuda.synchronize()
            kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def difference(ours: Outputs, theirs: Outputs) -> str:
    if any(a.shape != b.shape for a, b in zip(ours, theirs)):
        return 'other results'
    if all(torch.equal(a, b) for a, b in zip(ours, theirs)):
        return 'bit-equal'
    return f'{max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs)):.0e}'


def rows(device: str, rounds: int) -> Iterator[str]:
    yield '| operator | ours is from | largest relative difference | ours | the other | speed |'
    yield '|---|---|---|---|---|---|'
    pairs = {'roi_align, formula in torch': formula(device)}
    runs = subjects(device)
    if device == 'cpu' and torch.get_num_threads() > 1:
        run = under(OURS, runs['roi_align'])
        pairs['roi_align, one thread'] = (run, on_one_thread(run))
    if not in_use():
        for name, run in runs.items():
            pairs[name] = (under(OURS, run), under(mmcv._ext, run))
    for name, (ours, theirs) in pairs.items():
        equality = difference(ours(), theirs())
        mine, other = seconds(ours, theirs, rounds, device)
        operator = name.split(',')[0]
        source = next(o.source for n, o in table.OPERATORS.items() if n.startswith(operator.replace('soft_', 'soft')))
        source = 'torch' if name.endswith('max') else source
        yield (
            f'| {name} | {source} | {equality} | {mine * 1000:.1f} ms | {other * 1000:.1f} ms | {other / mine:.2f}× |'
        )


def under(module, run: Callable[[], Outputs]) -> Callable[[], Outputs]:
    def call() -> Outputs:
        with operators(module):
            return run()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    print(
        f'torch {torch.__version__}, {torch.get_num_threads()} threads, {args.device}; the other side: '
        f'{"the formula in torch" if in_use() else "mmcv " + mmcv.__version__ + ", compiled"}\n'
    )
    for row in rows(args.device, args.rounds):
        print(row, flush=True)


if __name__ == '__main__':
    main()
