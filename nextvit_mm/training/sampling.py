"""Going on in the middle of the data: the same pictures in the same order, without reading those that were seen."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .stopping import protect_workers


class MovedForward:
    """A batch sampler of which the first batches are left out once; they are drawn, and no picture is read.

    Args:
        inner: The batch sampler.
        skip: Batches to leave out. Where they are more than one pass has, passes begin anew as MMEngine's loop does.
        first_pass: Number of the pass to begin with, for samplers that shuffle by it.

    Attributes:
        passes: Number of the pass in which the next batch lies.
    """

    def __init__(self, inner: Any, skip: int, first_pass: int = 0) -> None:
        self.inner = inner
        self.passes = first_pass
        if first_pass:
            _set_epoch(inner, first_pass)
        batches = iter(inner)
        for _ in range(skip):
            try:
                next(batches)
            except StopIteration:
                self.passes += 1
                _set_epoch(inner, self.passes)
                batches = iter(inner)
                next(batches)
        self._moved: Iterator | None = batches

    def __iter__(self) -> Iterator:
        # A loader with processes asks for an iterator twice and drops the first one: who takes a batch goes on.
        moved, self._moved = self._moved, None
        yield from iter(self.inner) if moved is None else moved

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name == 'inner':  # while it is being copied
            raise AttributeError(name)
        return getattr(self.inner, name)


class AlreadySkipped:
    """Answers MMEngine's loop, which takes as many batches as were seen, without reading them."""

    def __init__(self, iterator: Any, skip: int) -> None:
        self.iterator, self.skip = iterator, skip

    def __iter__(self) -> 'AlreadySkipped':
        return self

    def __next__(self) -> Any:
        if self.skip > 0:
            self.skip -= 1
            return None
        return next(self.iterator)

    def __getattr__(self, name: str) -> Any:
        if name == 'iterator':
            raise AttributeError(name)
        return getattr(self.iterator, name)


def build_train_loader(runner: Runner) -> DataLoader:
    """Build a run's training data now, with the same batches in every process that starts or goes on with it.

    The seeds of loading processes come from a generator of the loader's own, so that the run's other random numbers do
    not depend on when a pass began.
    """
    loader = runner._train_dataloader
    if isinstance(loader, dict):
        different = runner._randomness_cfg.get('diff_rank_seed', False)
        loader = runner.build_dataloader(loader, seed=runner.seed, diff_rank_seed=different)
        runner._train_dataloader = loader
    if isinstance(getattr(loader.dataset, '_metainfo', None), list):
        # MMDetection keeps one of each joined part where palettes differ. Checkpoints and their readers take one.
        loader.dataset._metainfo = loader.dataset._metainfo[0]
    if loader.generator is None:
        loader.generator = torch.Generator().manual_seed(runner.seed)
    protect_workers(loader)
    return loader


def move_forward(loader: DataLoader, epoch: int, iteration: int, by_epoch: bool) -> int:
    """Leave out what a run has seen of its data.

    Args:
        loader: Of the training data, from which nothing was taken yet.
        epoch: Epochs that were done.
        iteration: Iterations that were done.
        by_epoch: Whether the run counts epochs, and begins a pass in each.

    Returns:
        int: Iterations left out: of this epoch, or of the run where it counts iterations.
    """
    skip = iteration
    if by_epoch:
        skip = iteration - epoch * len(loader)
        if not 0 < skip <= len(loader):
            return 0
    if skip:
        moved = MovedForward(loader.batch_sampler, skip, epoch if by_epoch else 0)
        object.__setattr__(loader, 'batch_sampler', moved)  # which a DataLoader refuses to the unwary
    return skip


def _set_epoch(batch_sampler: Any, epoch: int) -> None:
    for sampler in (batch_sampler, getattr(batch_sampler, 'sampler', None)):
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(epoch)
