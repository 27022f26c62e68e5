"""One run of training, guarded: of kills, full disks, signals, bad pictures, losses, and of another run beside it."""

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from ..errors import UserError
from ..models import NextViT
from ..weights.models import load_to_start_from, unwrap_model
from . import distributed
from .building import clear_config_errors
from .changes import Change
from .console import Console
from .files import is_full
from .pictures import STOP, PicturesHook
from .progress import ConsoleHook
from .resuming import EvaluationHook, Point, check_data_is_same, go_on_exactly
from .sampling import DataHook, build_train_loader, move_forward
from .saving import use_whole_checkpoints
from .stopping import FiniteLossHook, StopHook, catch_signals, end_workers, lock_if_main


@dataclass
class Start:
    """How a run begins.

    Attributes:
        point: The checkpoint to go on from, if any.
        changes: What its config and this one differ in.
        allow_changes: Go on with any change.
        bad_pictures: ``'stop'`` or ``'skip'``.
    """

    point: Point | None = None
    changes: list[Change] = field(default_factory=list)
    allow_changes: bool = False
    bad_pictures: str = STOP


def build_runner(cfg: Config, weights: str = '', drawn: str | None = None) -> Runner:
    """The config's runner, on the console that :func:`.console.on_console` has made."""
    # MM configs call every visualizer 'visualizer', and MMEngine would hand a second run of this process the first
    # one's, with its folder; without a name it takes the experiment's.
    cfg.get('visualizer', {}).pop('name', None)
    wait_for_a_new_second()
    distributed.set_wrapper(cfg)
    runner = Console.current.build_runner(cfg)
    distributed.join(runner)
    if is_main_process():
        # The others log before it.
        runner.register_hook(ConsoleHook(Console.current, weights, drawn), priority='VERY_LOW')
    return runner


def wait_for_a_new_second() -> None:
    """Wait until no run of this process has begun in this second.

    MMEngine names a run's logger, message hub and visualizer by it, and would hand the first run's to the second one.
    """
    now = time.time()
    stamp = time.strftime('%Y%m%d_%H%M%S', time.localtime(now))
    if any(name.endswith(stamp) for name in MMLogger._instance_dict):
        time.sleep(int(now) + 1 - now)


def run_training(cfg: Config, start: Start) -> Runner:
    """Train from a complete config.

    Raises:
        UserError: Another run is in the work dir, or something stopped this one, which a user can mend.
        StoppedError: A signal asked it to stop.
    """
    with clear_config_errors(cfg), lock_if_main(cfg.work_dir), catch_signals() as asked:
        runner = build_runner(cfg)
        if isinstance(runner, Runner):
            _guard(runner, cfg, start, asked)
        with clear_errors(runner.model, cfg.work_dir), end_workers(runner):
            runner.train()
    return runner


def _guard(runner: Runner, cfg: Config, start: Start, asked: dict[str, str]) -> None:
    use_whole_checkpoints(runner)
    loader = build_train_loader(runner)
    pictures = PicturesHook(start.bad_pictures)
    pictures.guard_training(runner, loader.dataset)
    for hook in (FiniteLossHook(), pictures, StopHook(asked)):
        runner.register_hook(hook)
    if start.point:
        check_data_is_same(start.point, loader.dataset, runner.world_size, start.allow_changes)
        by_epoch = 'max_iters' not in cfg.train_cfg  # asked of the config: to build the loop begins to read
        skipped = move_forward(loader, start.point.epoch, start.point.iteration, by_epoch, start.point.seen)
        runner.register_hook(DataHook(skipped, start.point.iteration))
        runner.register_hook(EvaluationHook(start.point, skipped))
        go_on_exactly(runner, start.point, start.changes)
        return
    runner.register_hook(DataHook())
    if isinstance(getattr(unwrap_model(runner.model), 'backbone', None), NextViT):
        # MMEngine calls this for `load_from`; its own would take what happens to match, and go on without the rest.
        notify = functools.partial(runner.call_hook, 'after_load_checkpoint')
        runner.load_checkpoint = functools.partial(load_to_start_from, runner.model, notify=notify)


@contextlib.contextmanager
def clear_errors(model: nn.Module, work_dir: str) -> Iterator[None]:
    """What the libraries raise in the middle of training and a user can mend, as one line."""
    try:
        yield
    except ValueError as error:
        if 'more than 1 value per channel' not in str(error):
            raise
        raise UserError(_too_small_a_batch(error, model)) from None
    except IndexError as error:
        if not _weighs_what_is_ignored(error):
            raise
        raise UserError(
            "class_weight of MMSegmentation's CrossEntropyLoss cannot go with pixels that are ignored (255), which "
            'class maps hold and RandomCrop adds around small pictures: give loss_decode type=ClassWeightedCrossEntropy'
        ) from None
    except OSError as error:
        if not is_full(error):
            raise
        raise UserError(
            f'no room for what the run writes: {error.filename or work_dir}: {error.strerror}. Its checkpoints are '
            'whole. Make room, and go on with --resume'
        ) from None
    except Exception as error:
        if 'Cannot find valid image' not in str(error):
            raise
        raise UserError('no picture of the training data could be read: see bad_pictures.txt in the work dir') from None


def _weighs_what_is_ignored(error: IndexError) -> bool:
    """Whether MMSegmentation looked up the weight of each pixel's class, of which an ignored one has none."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    values = frame.tb_frame.f_locals if frame is not None else {}
    weights, labels = values.get('class_weight'), values.get('cls')
    return (
        isinstance(weights, torch.Tensor) and isinstance(labels, torch.Tensor) and bool((labels >= len(weights)).any())
    )


def _too_small_a_batch(error: ValueError, model: nn.Module) -> str:
    names = {id(module): name for name, module in model.named_modules()}
    found, frame = 'a BatchNorm', error.__traceback__
    while frame is not None:
        module = frame.tb_frame.f_locals.get('self')
        if id(module) in names and hasattr(module, 'running_mean'):
            found = names[id(module)]
        frame = frame.tb_next
    return (
        f'{found} gets one value per channel, and cannot learn from it: the batch has one picture, of which a map of '
        '1×1 is left. Set train_dataloader.batch_size to at least 2; where only the last batch of an epoch is so '
        'small, set train_dataloader.drop_last=True'
    )
