"""Batch normalisation's running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every BN of a model."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def new_statistics(model: nn.Module) -> Iterator[None]:
    """Let every BN forget its statistics and take the plain mean over all batches that run until the context ends.

    All else of the model stays as it is, in eval mode where it was.
    """
    norms = batch_norms(model)
    kept = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    try:
        yield
    finally:
        for norm, (momentum, training) in zip(norms, kept):
            norm.momentum = momentum
            norm.train(training)
