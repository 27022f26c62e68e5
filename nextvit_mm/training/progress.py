"""How far a run is, in a bar or a line every so often, with its evaluations and what it wrote."""

import time
from datetime import timedelta
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from . import summary
from .console import Console

LOSS_WINDOW = 20  # iterations that a printed loss is the mean of
EVERY_SHARE = 0.05  # of a run: a line, where the output is not a terminal …
FIRST_SECONDS, MOST_SECONDS = 15, 600  # … or after this time, which doubles from line to line up to the latter


class ConsoleHook(Hook):
    """Shows a run on a console: what it is, how far it is, what its evaluations say and what it wrote.

    Args:
        console: Where to.
        weights: What is tested.
        drawn: The folder of the predictions' pictures, if they are drawn.
    """

    def __init__(self, console: Console, weights: str = '', drawn: str | None = None) -> None:
        self.console = console
        self.weights = weights
        self.drawn = drawn
        self._pace = _Pace()
        self._evaluation = _Pace(share=0)

    def before_train(self, runner: Runner) -> None:
        self.console.say(summary.as_lines(summary.describe_training(runner)))
        self._pace = _Pace(done=runner.iter)

    def before_test(self, runner: Runner) -> None:
        self.console.say(summary.as_lines(summary.describe_test(runner, self.weights)))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        done, total = runner.iter + 1, runner.max_iters
        if self.console.has_bar:
            self.console.advance('training', done, total, f'{_left(runner)}  {_losses(runner)}')
        elif self._pace.is_due(done, total):
            epoch = ''
            if isinstance(runner.train_loop, EpochBasedTrainLoop):
                epoch = f' (epoch {runner.epoch + 1}/{runner.max_epochs})'
            self.console.say(f'iteration {done:,}/{total:,}{epoch}  {_left(runner)}  {_losses(runner)}')

    def before_val_epoch(self, runner: Runner) -> None:
        self._evaluation = _Pace(share=0)

    before_test_epoch = before_val_epoch

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._count(batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._count(batch_idx + 1, len(runner.test_dataloader))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.console.drop('evaluation')
        when = ''
        if isinstance(runner._train_loop, EpochBasedTrainLoop):
            when = f' after epoch {runner.epoch}, iteration {runner.iter:,}'
        elif not isinstance(runner._train_loop, (dict, type(None))):
            when = f' after iteration {runner.iter:,}'
        self.console.say(f'evaluation{when}\n{summary.as_table(metrics or {})}')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.console.drop('evaluation')
        self.console.say(f'evaluation\n{summary.as_table(metrics or {})}')

    def after_run(self, runner: Runner) -> None:
        self.console.stop()
        took = timedelta(seconds=round(time.time() - self.console.start))
        files = summary.written_since(runner.work_dir, self.console.start)
        if self.drawn:
            files.append(summary.drawn_since(self.drawn, self.console.start))
        self.console.say(f'written in {took}:\n' + '\n'.join(f'  {line}' for line in files))

    def _count(self, done: int, total: int) -> None:
        if self.console.has_bar:
            self.console.advance('evaluation', done, total, '')
        elif self._evaluation.is_due(done, total):
            self.console.say(f'evaluation {done:,}/{total:,}')


class _Pace:
    """Whether a line is due: after a share of the whole, or after a time.

    Args:
        share: Of the whole; 0: after a time alone, and not at the end.
        done: Where it begins.
    """

    def __init__(self, share: float = EVERY_SHARE, done: int = 0) -> None:
        self.share, self.done = share, done
        self.time, self.wait = time.monotonic(), FIRST_SECONDS

    def is_due(self, done: int, total: int) -> bool:
        by_time = time.monotonic() - self.time >= self.wait
        by_share = self.share > 0 and (done - self.done >= self.share * total or done >= total)
        if by_time:
            self.wait = min(2 * self.wait, MOST_SECONDS)
        if by_time or by_share:
            self.done, self.time = done, time.monotonic()
        return by_time or by_share


def _left(runner: Runner) -> str:
    seconds = runner.message_hub.get_info('eta')
    return f'{timedelta(seconds=round(seconds))} left' if seconds is not None else ''


def _losses(runner: Runner) -> str:
    """The mean losses of the last iterations, their sum first, and the rate."""
    scalars = runner.message_hub.log_scalars
    names = [name for name in scalars if name.startswith('train/') and 'published' not in name and 'loss' in name]
    means = {name[len('train/') :]: f'{scalars[name].mean(LOSS_WINDOW):.3f}' for name in names}
    texts = [f'loss {means.pop("loss")}'] if 'loss' in means else []
    if len(means) > 1:  # else it is the same one
        texts.append(', '.join(f'{name.removeprefix("loss_")} {mean}' for name, mean in means.items()))
    if 'train/lr' in scalars:
        texts.append(f'lr {scalars["train/lr"].current():.2e}')
    return '  '.join(texts)
