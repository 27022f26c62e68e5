"""Going on in the middle of the data: the same pictures in the same order, without reading those that were seen."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
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


class DataHook(Hook):
    """Writes into checkpoints what a run has seen of its data, and tells its loop what is left out already.

    Args:
        skipped: Iterations of the pass, or of a run that counts iterations, that were left out.
        iteration: Iterations that were done before.
    """

    priority = 'VERY_HIGH'

    def __init__(self, skipped: int = 0, iteration: int = 0) -> None:
        self.skipped, self.iteration = skipped, iteration
        self._run_iter: Any = None
        self._batches, self._is_evaluated = 0, False

    def before_train(self, runner: Runner) -> None:
        loop, moved = runner.train_loop, getattr(runner.train_dataloader, 'batch_sampler', None)
        self._batches = self.skipped
        if self.iteration and hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator._epoch = getattr(moved, 'passes', 0)
            loop.dataloader_iterator = AlreadySkipped(loop.dataloader_iterator, loop.iter)
        elif self.skipped:
            self._run_iter = loop.run_iter
            loop.run_iter = lambda idx, batch: self._run_iter(idx + self.skipped, batch)

    def after_train_epoch(self, runner: Runner) -> None:
        if self._run_iter is not None:
            runner.train_loop.run_iter, self._run_iter = self._run_iter, None
        if not hasattr(runner.train_loop, 'dataloader_iterator'):
            self._batches = 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._is_evaluated = False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        self._batches += 1

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._is_evaluated = True

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        size = _pictures_a_step(runner.train_dataloader)
        checkpoint['meta'].update(seen=size and self._batches * size, is_evaluated=self._is_evaluated)


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


def move_forward(loader: DataLoader, epoch: int, iteration: int, by_epoch: bool, seen: int | None = None) -> int:
    """Leave out what a run has seen of its data, also where it then takes more or fewer pictures at a time.

    Args:
        loader: Of the training data, from which nothing was taken yet.
        epoch: Epochs that were done.
        iteration: Iterations that were done.
        by_epoch: Whether the run counts epochs, and begins a pass in each.
        seen: Pictures of this pass, or of the run, that all processes have taken; None if only iterations are known.

    Returns:
        int: Iterations left out: of this epoch, or of the run where it counts iterations.
    """
    size = _pictures_a_step(loader)
    if seen is not None and size:
        skip = min(seen // size, len(loader)) if by_epoch else seen // size
    else:
        skip = iteration - epoch * len(loader) if by_epoch else iteration
        if by_epoch and not 0 < skip <= len(loader):
            return 0
    if skip:
        moved = MovedForward(loader.batch_sampler, skip, epoch if by_epoch else 0)
        object.__setattr__(loader, 'batch_sampler', moved)  # which a DataLoader refuses to the unwary
    return skip


def _pictures_a_step(loader: DataLoader) -> int | None:
    """Of all processes; None where a batch sampler does not tell."""
    size = getattr(loader.batch_sampler, 'batch_size', None)
    return size and size * get_world_size()


def _set_epoch(batch_sampler: Any, epoch: int) -> None:
    for sampler in (batch_sampler, getattr(batch_sampler, 'sampler', None)):
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(epoch)
