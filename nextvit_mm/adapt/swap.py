"""Next-ViT into a config: the network, the widths around it, the pictures as its weights expect them."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from ..errors import UserError
from ..models import NextViT
from .heads import align_cascade, check_heads, classify
from .look import Backbone, Map
from .network import NETWORK_KEYS, foreign_backbone, is_nextvit, names_weights, network_of, other_nextvit
from .optimizer import check_recipe_options, fit_layer_decay, published_runs, use_published_recipe
from .options import leave_out_ours, merge_again, weights_of
from .pictures import set_pixels
from .widths import Change, Pair, change_widths

__all__ = ['NETWORK_KEYS', 'is_nextvit', 'scope_of', 'use_nextvit']

STRIDES = (4, 8, 16, 32)
NO_MAPS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg', 'pretrained', 'init_cfg')
OUT_NORMS = dict(mmseg='all', mmpretrain='last')  # of the published models; detectors have none


def use_nextvit(
    cfg: Config, network: str = 'small', recipe: str | None = None, options: Mapping[str, Any] | None = None
) -> Config:
    """Put a Next-ViT in the place of a config's backbone, in place.

    The old backbone is built and run on shapes alone. A stage of Next-ViT is chosen for each of its maps, by stride.
    Every width of these maps in the neck and heads is changed, and the new parts are run on shapes. What the config
    says beside that stays, except what belongs to the old weights. The log says what was changed.

    Args:
        cfg: A config of MMDetection, MMSegmentation or MMPretrain, with ``model.backbone`` or ``model.detector``.
        network: ``'small'``, ``'base'``, ``'large'``, or a config whose backbone is a Next-ViT.
        recipe: ``'published'`` takes the published optimizer, rate, decay, drop path, frozen parts and BN mode too;
            the schedule's length stays. Default: the config's own.
        options: The dotted keys and values that were merged into ``cfg``. Those of the backbone, of pictures, of
            ``load_from`` and with ``recipe`` of the optimizer come over what is set here.

    Returns:
        Config: ``cfg``.

    Raises:
        UserError: A map has a stride that Next-ViT lacks, or a part cannot take its maps. ``cfg`` is then unchanged.
    """
    if recipe not in (None, 'published'):
        raise UserError(f'--recipe {recipe}: the only one is published')
    new, options = copy.deepcopy(cfg), options or {}
    key, holder = find_holder(new)
    scope = scope_of(new)
    init_default_scope(scope or 'mmengine')
    source = network_of(network)
    old = holder.backbone
    said: list[str] = []
    if is_nextvit(old):
        backbone = other_nextvit(old, source, network)
        _drop_published_hook(new)
    else:
        leave_out_ours(old, f'{key}.backbone', options)
        named = weights_of(f'{key}.backbone', options)
        if named:
            source.init_cfg = named
        backbone, said = foreign_backbone(new, holder, source)
    _fit(new, key, backbone, scope, said)
    if not is_nextvit(old):
        _drop_old_weights(new, holder, key, said, 'load_from' in options)
        _import_us(new)
        set_pixels(new, holder, bool(backbone.get('init_cfg')), said)
    if recipe:
        check_recipe_options(options, scope, holder)
        use_published_recipe(new, holder, scope, said)
    elif not is_nextvit(old):
        said.append(published_runs(scope, holder))
    said += merge_again(new, f'{key}.backbone', options, is_nextvit(old), bool(recipe))
    if not is_nextvit(old):
        fit_layer_decay(new, said)
    cfg.__dict__.update(new.__dict__)
    for line in said:
        print_log(f'--backbone: {line}', 'current')
    return cfg


def find_holder(cfg: Config) -> tuple[str, ConfigDict]:
    """The part of the model that holds the backbone, and its key: the model, or the detector in it.

    Raises:
        UserError: There is none.
    """
    model = cfg.get('model') or {}
    if 'backbone' in model:
        return 'model', model
    if 'backbone' in (model.get('detector') or {}):
        return 'model.detector', model['detector']
    raise UserError(f'{cfg.filename} has no model.backbone')


def scope_of(cfg: Config) -> str | None:
    """The MM library of a config: its default scope, or where the model's class is from."""
    if cfg.get('default_scope') or 'model' not in cfg:
        return cfg.get('default_scope')
    module = getattr(cfg.model.get('type'), '__module__', None)
    return module.split('.')[0] if isinstance(cfg.model.get('type'), type) and module else None


def _fit(cfg: Config, key: str, backbone: ConfigDict, scope: str | None, said: list[str]) -> None:
    """Choose the stages, and change neck and heads; the new backbone is then in the config."""
    *_, holder = _walk(cfg, key)
    before, old = copy.deepcopy(holder), holder.backbone
    old_run = Backbone(before.backbone)
    try:
        maps = old_run.look()
    except Exception as error:
        raise UserError(
            f'{key}.backbone, {old.get("type")!r}, cannot be built and run to see its maps: {_first(error)}'
        ) from error
    stages = choose_stages(maps, old, key)
    if is_nextvit(old):
        _check_depth(backbone, stages)
    else:
        backbone.out_indices = stages
    vectors = not maps[0].stride
    if not is_nextvit(old):
        backbone.out_norm = OUT_NORMS.get(str(scope), 'none') if stages[-1] == 3 or scope == 'mmseg' else 'none'
        strides, ours = [one.stride for one in maps], [STRIDES[i] for i in stages]
        if not vectors and strides != ours:
            said.append(f'maps of strides {strides} become maps of {ours}, as Next-ViT has no dilated stages')
    holder.backbone = backbone
    if vectors and not holder.get('neck'):
        holder.neck = ConfigDict(type='GlobalAveragePooling')
        said.append(f'{key}.neck pools the map, which the old backbone did itself')
        said += classify(holder, maps[-1].width, key)
    necks = _necks(holder)
    new_run = Backbone(backbone)
    given = new_run.look()
    changes, last = _fit_necks(necks, _necks(before), (old_run, new_run), (maps, given), key)
    if [one.width for one in last[0]] != [one.width for one in last[1]]:
        kept = _keep_fixed_parts(holder, last, key)
        pairs = [Pair(a.width, b.width) for a, b in zip(*last)] + _pooled((maps, given), last)
        said += align_cascade(holder, last, key)
        for name in [] if kept else [name for name in holder if name not in NO_MAPS]:
            changes += change_widths(holder[name], f'{key}.{name}', pairs)
        check_heads(holder, before, key, said)
        said += kept
    said += [f'{change.key} = {change.old} becomes {change.new}' for change in changes]


def choose_stages(maps: list[Map], old: dict, key: str) -> tuple[int, ...]:
    """The stage of Next-ViT for each map: of the same stride, or in a dilated network of the same place.

    Raises:
        UserError: There is no such stage.
    """
    strides = [one.stride for one in maps]
    if not any(strides):
        if len(strides) > 1:
            raise UserError(
                f'{key}.backbone, {old.get("type")!r}, gives {len(strides)} vectors to a head of its own; Next-ViT '
                'gives one map'
            )
        return (len(STRIDES) - 1,)
    rising = all(a < b for a, b in zip(strides, strides[1:]))
    if rising and all(stride in STRIDES for stride in strides):
        return tuple(STRIDES.index(stride) for stride in strides)
    ordered = all(a <= b for a, b in zip(strides, strides[1:])) and strides[-1] <= STRIDES[-1]
    if ordered and len(strides) == 4 and strides[0] == 4 < strides[-1]:
        return (0, 1, 2, 3)
    places = tuple(old.get('out_indices') or ())
    if ordered and 'dilations' in old and len(places) == len(strides) and set(places) <= {0, 1, 2, 3}:
        return places
    shown = ', '.join(f'stride {one.stride} with {one.width} channels' for one in maps)
    raise UserError(
        f'{key}.backbone, {old.get("type")!r}, gives maps of {shown}; Next-ViT has one each of strides 4, 8, 16 and '
        '32, and cannot take its place'
    )


def _fit_necks(
    necks: list, old_necks: list, runs: tuple[Backbone, Backbone], maps: tuple[list[Map], list[Map]], key: str
) -> tuple[list[Change], tuple[list[Map], list[Map]]]:
    """Change the necks one after the other; what they changed, and the maps after the last one, old and new."""
    changes: list[Change] = []
    added = len(necks) - len(old_necks)  # one that pools
    for number, neck in enumerate(necks):
        where = f'{key}.neck' + (f'.{number}' if len(necks) > 1 else '')
        old_in, new_in = maps
        found = list(change_widths(neck, where, [Pair(a.width, b.width) for a, b in zip(old_in, new_in)]))
        try:
            old_out = old_in if added else runs[0].look(old_necks[: number + 1])
        except Exception as error:
            raise UserError(
                f'{where}, {neck.get("type")!r}, does not run on the maps of its own backbone: {_first(error)}'
            ) from error
        try:
            new_out = runs[1].look(necks[: number + 1])
        except Exception as error:
            widths = {name: value for name, value in neck.items() if 'channels' in name}
            raise UserError(
                f'{where}, {neck.get("type")!r}, with {widths}, cannot take Next-ViT: its maps had '
                f'{[one.width for one in old_in]} channels and now have {[one.width for one in new_in]} '
                f'({_first(error)})'
            ) from error
        if len(old_out) != len(new_out):
            raise UserError(f'{where}, {neck.get("type")!r}, gives {len(new_out)} maps instead of {len(old_out)}')
        changes += found
        maps = (old_out, new_out)
    return changes, maps


def _keep_fixed_parts(holder: ConfigDict, maps: tuple[list[Map], list[Map]], key: str) -> list[str]:
    """A head made of a ResNet's last stage has widths of its own: a convolution brings the map to the old one."""
    if 'shared_head' not in (holder.get('roi_head') or {}) or holder.get('neck'):
        return []
    old, new = ([one.width for one in side] for side in maps)
    if len(set(old)) > 1:
        return []
    holder.neck = ConfigDict(
        type='ChannelMapper', in_channels=new, out_channels=old[0], kernel_size=1, norm_cfg=dict(type='BN')
    )
    return [
        f'{key}.neck is a convolution from {new[0]} to {old[0]} channels, because those of {key}.roi_head.shared_head '
        'are fixed'
    ]


def _pooled(maps: tuple[list[Map], list[Map]], last: tuple[list[Map], list[Map]]) -> list[Pair]:
    """The widths behind a vector that holds several places of a map; how many depends on the picture's size."""
    (old, new), (long, longer) = ((side[-1] for side in pair) for pair in (maps, last))
    several = long.stride == 0 < old.stride and long.width > old.width and long.width % old.width == 0
    return [Pair(old.width, new.width)] if several and longer.width * old.width == long.width * new.width else []


def _check_depth(backbone: dict, stages: tuple[int, ...]) -> None:
    try:
        built = len(NextViT(**{k: v for k, v in backbone.items() if k == 'arch'}, out_indices=(0,)).arch.stages)
    except ValueError as error:
        raise UserError(str(error)) from None
    if stages[-1] >= built:
        raise UserError(f'the network has {built} stages, and the config takes the maps of stage {stages[-1] + 1}')


def _drop_old_weights(cfg: Config, holder: ConfigDict, key: str, said: list[str], keep_load_from: bool) -> None:
    dropped = []
    if not keep_load_from:  # of --cfg-options, and so of the new network
        dropped.append(('load_from', cfg.get('load_from')))
        cfg.load_from = None
    for name in ('pretrained', 'init_cfg'):
        given = holder.get(name)
        if names_weights(given):
            dropped.append((f'{key}.{name}', given.get('checkpoint') if isinstance(given, dict) else given))
            holder[name] = None
    said += [f'{name} = {value} is left out: it is for the old network' for name, value in dropped if value]


def _drop_published_hook(cfg: Config) -> None:
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if str(hook['type']).split('.')[-1] != 'PublishedRunHook']
    if len(cfg.custom_hooks) < len(hooks):
        print_log('another backbone than the published: not compared with the published run', 'current')


def _import_us(cfg: Config) -> None:
    imports = cfg.get('custom_imports') or dict(imports=[])
    names = imports['imports']
    names = [names] if isinstance(names, str) else list(names)
    cfg.custom_imports = dict(imports, imports=names + ['nextvit_mm'] * ('nextvit_mm' not in names))


def _necks(holder: ConfigDict) -> list:
    neck = holder.get('neck') or []
    return list(neck) if isinstance(neck, (list, tuple)) else [neck]


def _walk(cfg: Config, key: str) -> list[Any]:
    nodes: list[Any] = [cfg]
    for name in key.split('.'):
        nodes.append(nodes[-1][name])
    return nodes


def _first(error: BaseException) -> str:
    return f'{type(error).__name__}: {(str(error).strip().splitlines() or [""])[0][:200]}'
