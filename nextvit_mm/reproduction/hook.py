"""While a run trains: how far it is from the published one."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast_object_list, get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..published import PublishedEpochs, PublishedRun, load_run
from ..weights.zoo import ZOO
from .compare import (
    Comparison,
    is_printed_rate,
    loss_band,
    loss_is_outside,
    mean_curve,
    metrics_outside,
    plan_comparison,
    published_evaluation,
    same_schedule_iteration,
)

DataBatch = dict | tuple | list | None


@HOOKS.register_module()
class PublishedRunHook(Hook):
    """Lays a run beside one of the authors' while it trains.

    - In every line of the log, and in every visualization backend: ``published/loss``, the published loss at this
      point, and ``published/loss_difference``, this run's less it (as all of MMEngine's log: of the first process).
    - After every 500 published iterations, or every epoch of a classifier: the mean of every loss, over these
      iterations and all processes, beside the published one.
    - After every evaluation: every metric beside the published one.
    - One warning when the loss leaves the published band (twice in a row), one when a metric does, one when the
      learning rate is not the published one; said once, also over resumed parts.

    Where batch size, length, data or start differ, it says at the start what follows from it: the axis is rescaled
    where the run sees as many images as the published one; otherwise nothing is compared. What it found is left in
    the work dir (``published_run.json``) for ``tools/compare_run.py``. It changes nothing of the training.

    Args:
        run: Name of the published run (:func:`nextvit_mm.reproduction.list_runs`).
        note: What else tells the recipe from the published run's, for the log. Default None.

    Raises:
        UserError: There is no such run.
    """

    priority = 'NORMAL'  # after the losses have been recorded, before the logger writes them

    def __init__(self, run: str, note: str | None = None) -> None:
        self.run = load_run(run)
        self.note = note
        self.comparison: Comparison | None = None
        self._outside = 0  # windows in a row

    def before_train(self, runner: Runner) -> None:
        # The work dirs of several machines need not be shared: the first process decides, all follow.
        decided = [self._plan(runner)]
        broadcast_object_list(decided)
        self.comparison = decided[0]
        off = self.comparison.scale is None
        lines = [
            f'not compared with the published run {self.run.name}:'
            if off
            else f'compared with the published run {self.run.name}; band: docs/reproduction.md'
        ]
        lines += [f'  {remark}' for remark in self.comparison.remarks + ([self.note] if self.note else [])]
        (runner.logger.warning if off else runner.logger.info)('\n'.join(lines))
        if not off:
            scale = self.comparison.scale
            self._loss = mean_curve(self.run, 'loss')
            self._windows = {round(record['iter'] * scale): record for record in self.run.train}
            self._rates = {
                same_schedule_iteration(self.run.rate_iteration(record), scale): record['lr']
                for record in self.run.train
            }
        self._save(runner)

    @master_only
    def _plan(self, runner: Runner) -> Comparison:
        loader = runner.train_dataloader
        return plan_comparison(
            self.run,
            images_per_iter=loader.batch_sampler.batch_size * get_world_size(),
            max_iters=runner.max_iters,
            train_images=len(loader.dataset),
            start_problem=_start_problem(runner, self.run),
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DataBatch = None, outputs: dict | None = None
    ) -> None:
        if self.comparison.scale is None:
            return
        iteration = runner.iter + 1
        hub = runner.message_hub
        published = float(np.interp(iteration / self.comparison.scale, *self._loss))
        hub.update_scalar('train/published/loss', published)
        hub.update_scalar('train/published/loss_difference', hub.get_scalar('train/loss').current() - published)
        if iteration in self._rates:
            self._compare_rate(runner, iteration, self._rates[iteration])
        if iteration in self._windows:
            self._compare_window(runner, iteration, self._windows[iteration])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self.comparison is None or self.comparison.scale is None or not metrics:  # evaluation without training
            return
        published = published_evaluation(self.run, runner.iter / self.comparison.scale)
        if published is None:
            return
        names = [name for name in published if name in metrics and published[name] is not None]
        if not names:
            return
        self._report(runner, runner.iter, 'evaluation', {name: metrics[name] for name in names}, published)
        for name in metrics_outside(metrics, published):
            self._warn_once(
                runner,
                'metric',
                f'{name} is {metrics[name]:.4g} after {runner.iter:,} iterations, '
                f'{published[name]:.4g} in the published run',
            )

    def _compare_rate(self, runner: Runner, iteration: int, published: float) -> None:
        rate = runner.message_hub.get_scalar('train/lr').current()
        if not is_printed_rate(self.run, rate, published):
            self._warn_once(
                runner,
                'lr',
                f'the learning rate is {rate:.3e} in iteration {iteration:,}, {published:.3e} in the published run',
            )

    def _compare_window(self, runner: Runner, iteration: int, published: dict) -> None:
        """Compare the means over the iterations of one published mean."""
        window = round(self.run.window * self.comparison.scale)
        decided = [_whole_means(runner.message_hub, window, published)]
        broadcast_object_list(decided)
        names = decided[0]
        if 'loss' not in names:
            return
        means = dict(zip(names, _mean_over_processes(runner.message_hub, window, names)))
        self._report(runner, iteration, f'mean over {window} iterations', means, published)
        outside = loss_is_outside(means['loss'], published['loss'], loss_band(self.run))
        self._outside = self._outside + 1 if outside else 0
        if self._outside == 2:
            self._warn_once(
                runner,
                'loss',
                f'the loss is {means["loss"]:.4f} on average over the last {window} '
                f'iterations, {published["loss"]:.4f} in the published run',
            )

    @master_only
    def _report(self, runner: Runner, iteration: int, what: str, own: dict[str, float], published: dict) -> None:
        """Log values beside the published ones, and hand both to the visualization backends."""
        columns = ((name, value, published[name]) for name, value in own.items())
        runner.logger.info(
            f'iteration {iteration:,}, {what}, this run | published | difference\n'
            + '\n'.join(
                f'  {name:<16} {value:>10.4g} | {theirs:>10.4g} | {value - theirs:>+10.2g}'
                for name, value, theirs in columns
            )
        )
        scalars = {f'published/{what.split()[0]}/{name}': published[name] for name in own}
        scalars.update({f'{key}_difference': own[key.split('/', 2)[2]] - value for key, value in scalars.items()})
        runner.visualizer.add_scalars(scalars, step=iteration)

    @master_only
    def _warn_once(self, runner: Runner, what: str, message: str) -> None:
        # MMEngine keeps this in every checkpoint.
        key = f'left_published_run_{what}'
        if not runner.message_hub.runtime_info.get(key):
            runner.message_hub.update_info(key, True)
            runner.logger.warning(f'left the published run {self.run.name}: {message} (said once)')

    @master_only
    def _save(self, runner: Runner) -> None:
        self.comparison.save(runner.work_dir)


def _whole_means(hub: MessageHub, window: int, published: dict) -> list[str]:
    """The losses and accuracies whose means over a window can be compared.

    A run that was resumed from a file without its history has too few values for its first mean.
    """
    return [
        name
        for name, value in published.items()
        if value is not None
        and ('loss' in name or 'acc' in name)
        and f'train/{name}' in hub.log_scalars
        and len(hub.get_scalar(f'train/{name}').data[0]) >= window
    ]


def _mean_over_processes(hub: MessageHub, window: int, names: Sequence[str]) -> list[float]:
    """Means over a window; every process logs the losses of its own images, and one may lack a name."""
    own = [
        hub.get_scalar(f'train/{name}').mean(window) if f'train/{name}' in hub.log_scalars else None for name in names
    ]
    sums = torch.tensor([[mean or 0.0 for mean in own], [float(mean is not None) for mean in own]])
    all_reduce(sums)
    return (sums[0] / sums[1]).tolist()


def _start_problem(runner: Runner, run: PublishedRun) -> str | None:
    """What is not as published about the weights that a run began with; None if nothing is known to be."""
    if runner.iter > 0:  # resumed; how it began was written down then
        begun = Comparison.load(runner.work_dir)
        return begun.start_problem if begun else None
    names = _weights_at_the_start(runner)
    if isinstance(run, PublishedEpochs):
        return _classifiers_start_problem(run.name, names)
    if runner.cfg.get('load_from'):
        return None
    if not names:
        return 'it starts from random weights, the published one from a pretrained backbone'
    published = '6m' if '1n1k6m' in run.name else 'in1k'
    for name in names:
        if name in ZOO and name.split('_')[1] != published:
            return f'it starts from {name}, the published one from {published} weights'
    return None


def _classifiers_start_problem(run: str, names: Sequence[str]) -> str | None:
    """A classifier was trained from random weights at 224×224, and from the best of these at 384×384."""
    size, side = run.split('_')[1], int(run.split('_')[-1])
    if side == 224:
        return f'it starts from {names[0]}, the published one from random weights' if names else None
    weights = f'nextvit-{size}_in1k'
    if not names:
        return f'it starts from random weights, the published one from {weights}'
    other = [name for name in names if name in ZOO and name != weights]
    return f'it starts from {other[0]}, the published one from {weights}' if other else None


def _weights_at_the_start(runner: Runner) -> list[str]:
    """Names or files of the weights that a run, which does not go on from a checkpoint, begins with."""
    if runner.cfg.get('load_from'):
        return [runner.cfg.load_from]
    init_cfg = runner.cfg.get('model', {}).get('backbone', {}).get('init_cfg') or []
    configs: Sequence[dict] = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return [config.get('checkpoint', '') for config in configs if 'Pretrained' in config.get('type', '')]
