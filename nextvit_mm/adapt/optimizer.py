"""How the published runs train, and layer-wise decay, for a config of somebody else."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import OPTIMIZERS

from ..errors import UserError
from .layer_decay import LAYER_DECAY
from .network import is_nextvit

BN_FREE = {'norm': dict(decay_mult=0.0), 'bn': dict(decay_mult=0.0)}
# Optimizer, groups, and the batch over all GPUs that its rate is for: as in configs/_base_/schedules.
DETECTION = (dict(type='AdamW', lr=1e-4, weight_decay=0.05), dict(custom_keys=BN_FREE), 16)
UPERNET = (dict(type='AdamW', lr=6e-5, weight_decay=0.01), dict(custom_keys=BN_FREE), 16)
SEMANTIC_FPN = (dict(type='AdamW', lr=1e-4, weight_decay=1e-4), None, 16)
CLASSIFICATION = (
    dict(type='AdamW', lr=2e-3, weight_decay=0.1),
    dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    2048,
)
DROP_PATH = dict(small=0.1, base=0.2, large=0.2)  # of detectors and classifiers; segmentors 0.2
CONSTRUCTORS = (
    'LearningRateDecayOptimizerConstructor',
    'LearningRateDecayOptimWrapperConstructor',
    'LayerDecayOptimizerConstructor',
)


def use_published_recipe(cfg: Config, holder: ConfigDict, scope: str | None, said: list[str]) -> None:
    """Take the published optimizer, rate, decay groups, drop path, frozen parts and BN mode; not the schedule.

    Raises:
        UserError: The config has several optimizers.
    """
    optimizer, groups, batch = _published(scope, holder)
    wrapper = cfg.setdefault('optim_wrapper', ConfigDict(type='OptimWrapper'))
    several = [name for name, value in wrapper.items() if isinstance(value, dict) and 'optimizer' in value]
    if several:
        raise UserError(
            f'--recipe published is one optimizer, and optim_wrapper of {cfg.filename} has several, of '
            f'{", ".join(several)}: leave --recipe out'
        )
    wrapper.optimizer = ConfigDict(optimizer)
    wrapper.pop('constructor', None)
    wrapper.pop('paramwise_cfg', None)
    if groups:
        wrapper.paramwise_cfg = ConfigDict(groups)
    cfg.auto_scale_lr = dict(cfg.get('auto_scale_lr') or dict(enable=False), base_batch_size=batch)
    backbone = holder.backbone
    arch = backbone.get('arch', 'small')
    backbone.drop_path_rate = 0.2 if scope == 'mmseg' else DROP_PATH.get(arch, 0.1) if isinstance(arch, str) else 0.1
    pretrained = bool(backbone.get('init_cfg'))
    backbone.frozen_stages = 1 if scope == 'mmdet' and pretrained else -1
    backbone.norm_eval = scope == 'mmdet' and pretrained
    if scope == 'mmseg':
        backbone.norm_cfg = dict(type='SyncBN', requires_grad=True)
    said.append(f'the published recipe, for a batch of {batch} over all GPUs: {_taken(optimizer, backbone)}')
    said.append("the schedule, and its warm-up, stay the config's")


def published_runs(scope: str | None, holder: ConfigDict) -> str:
    """One line on what the published runs do."""
    batch = _published(scope, holder)[2]
    return (
        f"optimizer and rate stay the config's; the published runs take, for a batch of {batch}, {_text(scope, holder)}"
        ' (--recipe published)'
    )


def check_recipe_options(options: Mapping[str, Any], scope: str | None, holder: ConfigDict) -> None:
    """See that the published optimizer takes what options say of the optimizer.

    Raises:
        UserError: It does not, and they name no other one.
    """
    start = 'optim_wrapper.optimizer.'
    kind = _published(scope, holder)[0]['type']
    takes = inspect.signature(OPTIMIZERS.get(kind).__init__).parameters
    wrong = [
        option for option in options if option.startswith(start) and option[len(start) :].split('.')[0] not in takes
    ]
    if wrong and f'{start}type' not in options:
        raise UserError(
            f'--cfg-options {wrong[0]} does not go with --recipe published, whose {kind} takes no such value: leave '
            f'one of them out, or give {start}type too'
        )


def fit_layer_decay(cfg: Config, said: list[str]) -> None:
    """Put our constructor of layer-wise decay in the place of those that know other networks by name."""
    wrapper = cfg.get('optim_wrapper') or {}
    kind = wrapper.get('constructor')
    name = kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')
    if name in CONSTRUCTORS:
        wrapper['constructor'] = LAYER_DECAY
        said.append(f'optim_wrapper.constructor is {LAYER_DECAY}, as {name} does not know Next-ViT')


def use_our_layer_decay(cfg: Config) -> None:
    """As :func:`fit_layer_decay`, in a config that has a Next-ViT of its own.

    MMPretrain's constructor stays for classifiers: it asks the backbone.
    """
    said: list[str] = []
    backbones = [part.get('backbone') for part in (cfg.model, cfg.model.get('detector') or {})]
    if cfg.get('default_scope') != 'mmpretrain' and any(one and is_nextvit(one) for one in backbones):
        fit_layer_decay(cfg, said)
    for line in said:
        print_log(line, 'current')


def _published(scope: str | None, holder: ConfigDict) -> tuple[dict, dict | None, int]:
    if scope == 'mmpretrain':
        return CLASSIFICATION
    if scope == 'mmseg':
        return SEMANTIC_FPN if str(holder.get('neck') or {}).count('FPN') else UPERNET
    return DETECTION


def _taken(optimizer: dict, backbone: ConfigDict) -> str:
    """What a recipe has put into a config."""
    frozen = 'stem and stage 1 frozen, BN in eval mode' if backbone.norm_eval else 'nothing frozen'
    return (
        f'{optimizer["type"]}, rate {optimizer["lr"]:g}, decay {optimizer["weight_decay"]:g}, drop path '
        f'{backbone.drop_path_rate}, {frozen}'
    )


def _text(scope: str | None, holder: ConfigDict) -> str:
    optimizer, _, _ = _published(scope, holder)
    rest = dict(
        mmseg='drop path 0.2, SyncBN, nothing frozen', mmpretrain='drop path 0.1 (small) or 0.2, nothing frozen'
    ).get(str(scope), 'drop path 0.1 (small) or 0.2, stem and stage 1 frozen, BN in eval mode')
    return f'{optimizer["type"]}, rate {optimizer["lr"]:g}, decay {optimizer["weight_decay"]:g}, {rest}'
