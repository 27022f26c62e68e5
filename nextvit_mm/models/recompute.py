"""Blocks that run again in the backward pass, to save memory."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..ops.threads import is_compiling


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """A block that runs again in the backward pass instead of keeping what it computed."""
    if is_compiling():  # torch.compile takes no contexts, and moves running statistics in the forward pass alone
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: _checkpoint_contexts(block))


def _checkpoint_contexts(block: nn.Module):
    """Contexts for the first and the second run of a checkpointed block: the second leaves running statistics be."""
    return nullcontext(), _without_tracking(block)


@contextmanager
def _without_tracking(block: nn.Module) -> Iterator[None]:
    # A training BN normalises with the batch's statistics either way; with no momentum it does not fold them into its
    # running averages a second time, and what it counts is put back. SyncBN must have something to count.
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept):
            norm.momentum, norm.num_batches_tracked = momentum, count
