"""The config of the Next-ViT that takes a backbone's place."""

import copy
import inspect
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from ..errors import UserError
from ..models import NextViT
from ..models.arch import ARCHS, parse_arch
from ..weights.zoo import ZOO
from .read import read_config

NETWORK_KEYS = ('arch', 'sr_mode', 'norm_cfg', 'act_cfg')  # of a NextViT config, what makes it another network
NORMS = ('BN', 'SyncBN')  # what the published weights can live with
DEFAULT_ARCH = 'small'


def is_nextvit(backbone: dict) -> bool:
    """Whether a backbone's config is one of ours, by name, with or without scope, or by class."""
    kind = backbone.get('type')
    return kind is NextViT or str(kind).split('.')[-1] == 'NextViT'


def names_weights(init: Any) -> bool:
    """Whether an ``init_cfg`` or ``pretrained`` names weights, and not only how random ones are drawn."""
    if isinstance(init, (str, bool)):  # timm's networks have weights of their own: True
        return bool(init)
    configs = init if isinstance(init, (list, tuple)) else [init]
    return any(one and ('checkpoint' in one or 'Pretrained' in str(one.get('type'))) for one in configs)


def network_of(name: str) -> ConfigDict:
    """What makes the network: of a size, or of another config's backbone.

    Raises:
        UserError: Neither; or that backbone is no NextViT, or its arch is wrong.
    """
    if name in ARCHS:
        return ConfigDict(arch=name)
    if '::' not in name and not name.endswith('.py'):
        raise UserError(f'--backbone {name}: take one of {", ".join(ARCHS)}, or a config with a Next-ViT')
    model = read_config(name).get('model')
    backbone = model.get('backbone') if isinstance(model, dict) else None
    if not isinstance(backbone, dict):
        raise UserError(f'{name} has no model.backbone' + (f', but {backbone!r} there' if backbone else ''))
    if not is_nextvit(backbone):
        raise UserError(f'--backbone puts a Next-ViT into a config; the backbone of {name} is {backbone.get("type")!r}')
    try:
        parse_arch(backbone.get('arch', DEFAULT_ARCH))
    except ValueError as error:
        raise UserError(f'{name}: {error}') from None
    network = ConfigDict({key: backbone[key] for key in (*NETWORK_KEYS, 'init_cfg') if key in backbone})
    network.setdefault('arch', DEFAULT_ARCH)
    return network


def other_nextvit(old: ConfigDict, network: ConfigDict, name: str) -> ConfigDict:
    """One Next-ViT in the place of another: the network is the new one's; drop rates, freezing and weights stay.

    Published weights are taken of the new size.
    """
    backbone = copy.deepcopy(old)
    backbone.setdefault('arch', DEFAULT_ARCH)
    if name not in ARCHS:  # what the other config leaves to its default is the default
        for key in NETWORK_KEYS:
            if key != 'norm_cfg':  # whether BN is synchronised is the recipe's
                backbone.pop(key, None)
    backbone.update({key: network[key] for key in NETWORK_KEYS if key in network})
    init_cfg = backbone.get('init_cfg') or {}
    checkpoint = init_cfg.get('checkpoint') if isinstance(init_cfg, dict) else None
    if name in ARCHS and checkpoint in ZOO:
        init_cfg['checkpoint'] = checkpoint.replace(f'nextvit-{ZOO[checkpoint].arch}', f'nextvit-{name}')
    return backbone


def foreign_backbone(cfg: Config, holder: ConfigDict, network: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """A Next-ViT in the place of another backbone, with what means the same in both; and what is to be said of it.

    The network's own ``init_cfg`` comes before published weights.
    """
    old = holder.backbone
    said: list[str] = []
    backbone = ConfigDict(type='NextViT', **{key: value for key, value in network.items() if key != 'init_cfg'})
    frozen = old.get('frozen_stages', -1)
    if isinstance(frozen, int) and frozen > -1:
        backbone.frozen_stages = min(frozen, 4)
    for key in ('norm_eval', 'with_cp'):
        if old.get(key, _default(old, key)):
            backbone[key] = True
    if old.get('in_channels', 3) != 3:
        backbone.in_channels = old.in_channels
    norm = old.get('norm_cfg')
    if norm and 'norm_cfg' not in network:
        kind = norm.get('type')
        kind = kind if isinstance(kind, str) else {'SyncBatchNorm': 'SyncBN', 'BatchNorm2d': 'BN'}.get(kind.__name__)
        if kind in NORMS:
            kept = {key: norm[key] for key in ('requires_grad',) if key in norm}  # eps and momentum are the weights'
            backbone.norm_cfg = dict(type=kind, **kept)
        else:
            said.append(f'the backbone keeps its BN, which its weights need; the old one had {norm.get("type")!r}')
    dropped = [key for key in ('dcn', 'plugins') if old.get(key)]
    if dropped:
        said.append(f'{", ".join(dropped)} of the old backbone are left out: they are layers of its own')
    given = [old.get('init_cfg'), old.get('pretrained'), holder.get('pretrained'), cfg.get('load_from')]
    if any(names_weights(one) for one in given):
        init = network.get('init_cfg')
        arch = network.arch
        if init:
            backbone.init_cfg = init
        elif isinstance(arch, str) and arch in ARCHS:
            backbone.init_cfg = dict(type='Pretrained', checkpoint=f'nextvit-{arch}_in1k')
        else:
            learns = [key for key in ('frozen_stages', 'norm_eval') if backbone.pop(key, None)]
            undone = f', without {" and ".join(learns)}, which make no sense then' if learns else ''
            said.append(f'no weights are published for this network: it trains from scratch{undone}')
    else:
        said.append(
            'the old backbone started from no weights, and neither does this one; name some with --cfg-options '
            'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=…'
        )
    return backbone, said


def _default(backbone: ConfigDict, key: str) -> Any:
    """What a backbone's class takes for an argument that its config leaves out; MMDetection's ResNet has norm_eval."""
    kind = backbone.get('type')
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    parameter = inspect.signature(kind.__init__).parameters.get(key) if inspect.isclass(kind) else None
    return None if parameter is None or parameter.default is parameter.empty else parameter.default
