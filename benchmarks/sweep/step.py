"""A training step and a test step of a config, with its own backbone or with Next-ViT."""

import copy
import math
import resource
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import is_seq_of
from torch import nn

from nextvit_mm.adapt import read_config, use_nextvit
from nextvit_mm.adapt.network import names_weights
from nextvit_mm.adapt.swap import scope_of
from nextvit_mm.errors import UserError

from .pictures import make

SIDES = (128, 224, 320)  # pixels; some networks take the side that they were made for alone, SSD needs more
# Sampled regions and points, boxes before and after NMS: what is called does not depend on how many there are.
LIMITS = dict(num=16, max_per_img=32, nms_pre=100, nms_post=32, num_points=256)
WEIGHTS = ('init_cfg', 'pretrained', 'teacher_ckpt', 'load_from')


class Watched:
    """mmcv's operators, which remember what was called."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Callable:
        def call(*args, **kwargs):
            self.called.add(name)
            return getattr(self.module, name)(*args, **kwargs)

        return call


def small(node: Any) -> Any:
    """A config that fetches nothing, and trains on few boxes; in place."""
    if isinstance(node, dict):
        for key in WEIGHTS:
            if names_weights(node.get(key)) or isinstance(node.get(key), str):
                node[key] = None
        for key, most in LIMITS.items():
            if isinstance(node.get(key), int) and node[key] > most and (key != 'num' or 'pos_fraction' in node):
                node[key] = most
    values = node.values() if isinstance(node, dict) else node if is_seq_of(node, dict) else ()
    for value in values:
        small(value)
    return node


def attempt(name: str, backbone: str | None, sides: tuple[int, ...] = SIDES) -> dict[str, Any]:
    """Train and test a step; what came of it, with the first side of ``sides`` that works.

    Args:
        name: Of a config.
        backbone: A Next-ViT for :func:`use_nextvit`; None is the config's own.
        sides: Of the pictures, in pixels.

    Returns:
        dict: ``outcome`` is ``passes``, ``refused`` or ``fails``, with a ``reason`` for the last two. What passes has
        ``side``, ``loss``, seconds of the processor in ``train`` and ``test``, ``megabytes`` at the peak, less what the
        process began with, and the ``parameters`` of the model.
    """
    start = resident('VmRSS')
    try:
        cfg = read_config(name)
        cfg.setdefault('default_scope', name.split(':')[0])
        if backbone:
            use_nextvit(cfg, backbone)
        for side in sides:
            try:
                row = dict(outcome='passes', side=side, **step(cfg, side))
                return dict(row, megabytes=round(resident('VmHWM') - start))
            except Exception:  # of any library; the last is the one that is told
                if side == sides[-1]:
                    raise
    except UserError as error:
        return dict(outcome='refused', reason=str(error))
    except BaseException as error:  # the point of a sweep is to go on
        return dict(outcome='fails', reason=first_line(error), trace=traceback.format_exc(limit=-12))
    raise AssertionError('no side')


def step(cfg: Config, side: int) -> dict[str, Any]:
    """Train and test one step; raises what goes wrong."""
    torch.manual_seed(0)
    np.random.seed(0)
    model = build(cfg, side)
    train, test = make(model, side)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-4)
    hub = MessageHub.get_current_instance()
    for key in ('iter', 'epoch'):  # what a runner would tell: some losses change in the course of a training
        hub.update_info(key, 0)
    begin = time.process_time()
    model.train()
    losses = model._run_forward(model.data_preprocessor(train, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    learns = [p for p in backbone_of(model).parameters() if p.requires_grad]
    if learns and not any(p.grad is not None for p in learns):
        raise RuntimeError('no gradient reaches the backbone')
    optimizer.step()
    middle = time.process_time()
    model.eval()
    with torch.no_grad():
        mode = 'predict' if predicts(model) else 'tensor'
        model._run_forward(model.data_preprocessor(test, False), mode=mode)
    if not math.isfinite(loss.item()):
        raise RuntimeError(f'the loss is {loss.item()}')
    return dict(
        loss=round(loss.item(), 3),
        train=round(middle - begin, 2),
        test=round(time.process_time() - middle, 2),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def build(cfg: Config, side: int) -> nn.Module:
    """The model of a config, without weights, for pictures of this side, and with BN that one process can train."""
    init_default_scope(scope_of(cfg) or 'mmengine')
    config = small(copy.deepcopy(cfg.model))  # some models change their config
    if 'data_preprocessor' in cfg:
        config.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    not_larger(config.get('data_preprocessor'), side)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return revert_sync_batchnorm(MODELS.build(config))


def not_larger(node: Any, side: int) -> None:
    """Let no preprocessor pad the pictures to the size that the config trains with."""
    if isinstance(node, dict):
        if is_seq_of(node.get('size'), int):
            node['size'] = (side, side)
        node = list(node.values())
    for value in node if isinstance(node, (list, tuple)) else ():
        not_larger(value, side)


def backbone_of(model: nn.Module) -> nn.Module:
    for place in ('backbone', 'detector.backbone', 'student.backbone', 'student'):
        try:
            return model.get_submodule(place)
        except AttributeError:
            continue
    return model


def predicts(model: nn.Module) -> bool:
    """Whether the model has a test path; what learns without labels has none."""
    return 'mmpretrain.models.selfsup' not in type(model).__module__


def resident(which: str) -> float:
    """Memory of this process in MB: now (``VmRSS``), or at its peak (``VmHWM``)."""
    try:
        with open('/proc/self/status') as file:
            return next(int(line.split()[1]) for line in file if line.startswith(which)) / 1024
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def first_line(error: BaseException) -> str:
    return f'{type(error).__name__}: {(str(error).strip().splitlines() or [""])[0][:160]}'
