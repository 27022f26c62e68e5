"""The learning rate of the published classifiers."""

import math

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from torch.optim import Optimizer


@PARAM_SCHEDULERS.register_module()
class WarmupCosineEpochLR(LRSchedulerMixin, _ParamScheduler):
    """A rate that is set once an epoch: linear warm-up, then a cosine that runs from epoch 0, under the warm-up.

    With the rate lr of the optimizer, in epoch e, counted from 0, where t = max(e - 1, 0):

    - t < warmup_epochs:  warmup_lr + t · (lr - warmup_lr) / warmup_epochs
    - otherwise:          min_lr + (lr - min_lr) · (1 + cos(π · min(t, epochs) / epochs)) / 2

    t is a step behind e because the published runs set the rate of step e after epoch e: the first two epochs have
    ``warmup_lr``. The rate depends on the epoch alone, so that a resumed run has that of an uninterrupted one. It is
    the only scheduler of a run: it takes no notice of others.

    Args:
        optimizer: The optimizer, or its wrapper.
        epochs: Length of the cosine, epochs.
        warmup_epochs: Length of the warm-up, epochs, in [0, ``epochs``). Default 0.
        warmup_lr: Rate that the warm-up begins with. Default 0.
        min_lr: Rate that the cosine ends with. Default 0.
        begin, end: Epochs from and before which the rate is set; MMEngine gives the length of the run. Default: all.
        last_step: The last epoch that was done; -1: none. Default -1.
        verbose: Print each rate. Default False.

    Raises:
        ValueError: A length that makes no sense, or a rate below 0.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        epochs: int,
        warmup_epochs: int = 0,
        warmup_lr: float = 0.0,
        min_lr: float = 0.0,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        if epochs < 1:
            raise ValueError(f'epochs={epochs} must be at least 1')
        if not 0 <= warmup_epochs < epochs:
            raise ValueError(f'warmup_epochs={warmup_epochs} must lie in [0, {epochs}), the length of the cosine')
        for name, rate in (('warmup_lr', warmup_lr), ('min_lr', min_lr)):
            if rate < 0:
                raise ValueError(f'{name}={rate} must not be negative')
        self.epochs, self.warmup_epochs = epochs, warmup_epochs
        self.warmup_lr, self.min_lr = warmup_lr, min_lr
        super().__init__(optimizer, begin=begin, end=end, last_step=last_step, by_epoch=True, verbose=verbose)

    def rate(self, lr: float, epoch: int) -> float:
        """The rate of an epoch, counted from 0, where the optimizer's is ``lr``."""
        t = max(epoch - 1, 0)
        if t < self.warmup_epochs:
            return self.warmup_lr + t * (lr - self.warmup_lr) / self.warmup_epochs
        return self.min_lr + (lr - self.min_lr) * (1 + math.cos(math.pi * min(t, self.epochs) / self.epochs)) / 2

    def _get_value(self) -> list[float]:
        return [self.rate(lr, self.last_step) for lr in self.base_values]
