"""Multiply-adds of what runs, in all and by module, as PyTorch counts them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class MultiplyAdds(NamedTuple):
    """Multiply-adds: in all, and by the name of the module, which begins with its model's class."""

    total: int
    by_module: dict[str, int]


def multiply_adds(run: Callable[[], Any], model: nn.Module | None = None) -> MultiplyAdds:
    """Multiply-adds of the convolutions, linear layers and matrix products that ``run()`` calls, backward included.

    By module they are those of every module that is called. An older torch sees only ``model`` and its parts.
    """
    with FlopCounterMode(display=False) as counter, _told_modules(counter, model):
        run()
    # PyTorch counts 2 FLOPs a multiply-add.
    by_module = {name: sum(counts.values()) // 2 for name, counts in counter.get_flop_counts().items()}
    return MultiplyAdds(counter.get_total_flops() // 2, by_module)


@contextmanager
def _told_modules(counter: Any, model: nn.Module | None) -> Iterator[None]:
    """An older counter, such as torch 2.1's, is told of modules. Its own way to be told loses tuples of maps."""
    handles = []

    def leave(*_: Any) -> None:
        counter.parents.pop()

    if model is not None and find_spec('torch.utils.module_tracker') is None:
        for name, module in model.named_modules():
            path = f'{type(model).__name__}.{name}'.rstrip('.')
            handles += [
                module.register_forward_pre_hook(lambda *_, path=path: counter.parents.append(path)),
                module.register_forward_hook(leave),
            ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
