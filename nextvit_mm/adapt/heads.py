"""Whether the heads take the new maps: the parts that read them are run on shapes alone, before and after."""

from typing import Any

import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from ..errors import UserError
from .look import Map, build, run_small

LINEAR = dict(ClsHead='LinearClsHead', MultiLabelClsHead='MultiLabelLinearClsHead')  # the same head with a layer


def check_heads(holder: ConfigDict, before: ConfigDict, key: str, said: list[str]) -> None:
    """Run the heads of the new model; where they fail, run the old one's, which tells whose fault it is.

    Raises:
        UserError: They fail with the new maps alone. The message names the layer, and both widths.
    """
    place: dict[str, str] = {}
    try:
        run_small(lambda device, side: _run(holder, device, side, place))
    except Exception as error:
        cause = f'{type(error).__name__}: {(str(error).strip().splitlines() or [""])[0][:200]}'
        where = place.get('at', '')
        try:
            run_small(lambda device, side: _run(before, device, side, {}))
        except Exception:  # of any library; that nothing could be tried is said, with the first cause
            said.append(f'the heads cannot be tried on shapes, not with the old backbone either ({cause})')
            return
        raise UserError(
            f'{key}.{where or "head"} does not fit the maps of Next-ViT, and its width is at no key that could be '
            f'changed ({cause})'
        ) from error


def align_cascade(holder: ConfigDict, maps: tuple[list[Map], list[Map]], key: str) -> list[str]:
    """Heads that refine one another's output take maps of one size; what was changed for that.

    The stages of a dilated network have one stride, those of Next-ViT do not: each head then takes the last one's map.
    """
    heads = holder.get('decode_head')
    if not isinstance(heads, (list, tuple)):
        return []
    old, new = maps
    places = [head.get('in_index', -1) for head in heads]
    if not all(isinstance(place, int) and -len(old) <= place < len(old) for place in places):
        return []
    if len({old[place].stride for place in places}) > 1 or len({new[place].stride for place in places}) == 1:
        return []
    said = []
    for number, (head, place) in enumerate(zip(heads, places)):
        if place != places[-1] and head.get('in_channels') == old[place].width:
            head.update(in_index=places[-1], in_channels=old[places[-1]].width)
            said.append(
                f'{key}.decode_head.{number}.in_index = {place} becomes {places[-1]}, as the heads of a cascade take '
                'maps of one size'
            )
    return said


def classify(holder: ConfigDict, classes: int, key: str) -> list[str]:
    """A classifier that was part of the old backbone, such as VGG's, moves into the head; what was changed for that."""
    head = holder.get('head') or {}
    kind = head.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    scope, _, plain = name.rpartition('.')
    if plain not in LINEAR:
        return []
    head.update(type=f'{scope}.{LINEAR[plain]}'.lstrip('.'), num_classes=classes, in_channels=classes)
    return [f'{key}.head is a {LINEAR[plain]} of {classes} classes, as the classifier was part of the old backbone']


def _run(holder: ConfigDict, device: str, side: int, place: dict[str, str]) -> None:
    """Build the model and run what reads its maps; ``place['at']`` is the layer that was entered last."""
    model = build({k: v for k, v in holder.items() if k != 'data_preprocessor'}, device)
    for name, module in model.named_modules():
        if not list(module.children()) and name:
            module.register_forward_pre_hook(lambda _, args, n=name, m=module: place.update(at=_told(n, m, args)))
    image = torch.empty(2, holder.backbone.get('in_channels', 3), side, side, device=device)
    metas = [dict(img_shape=(side, side), ori_shape=(side, side), pad_shape=(side, side))] * 2
    if hasattr(model, 'encode_decode'):  # MMSegmentation
        model.encode_decode(image, metas)
        auxiliary = getattr(model, 'auxiliary_head', None)
        for head in [] if auxiliary is None else auxiliary if isinstance(auxiliary, nn.ModuleList) else [auxiliary]:
            head.forward(model.extract_feat(image))
    elif getattr(model, 'with_roi_head', False):
        _run_regions(model, model.extract_feat(image))
    elif hasattr(model, 'panoptic_head'):
        _run_panoptic(model, image, side)
    else:
        model(image, mode='tensor')


def _run_regions(model: Any, maps: tuple[Tensor, ...]) -> None:
    """A detector of two stages: its first, and the second on pooled regions of the maps' width."""
    if model.with_rpn:
        model.rpn_head(maps)
    roi_head = model.roi_head
    cascade = isinstance(roi_head.bbox_head, nn.ModuleList)
    extractors = roi_head.bbox_roi_extractor if cascade else [roi_head.bbox_roi_extractor]
    for extractor, head in zip(extractors, roi_head.bbox_head if cascade else [roi_head.bbox_head]):
        size = extractor.roi_layers[0].output_size
        pooled = torch.empty(2, maps[0].shape[1], *size, device=maps[0].device)
        if extractor.out_channels != maps[0].shape[1]:
            raise ValueError(f'bbox_roi_extractor.out_channels is {extractor.out_channels}, not {maps[0].shape[1]}')
        head(roi_head.shared_head(pooled) if roi_head.with_shared_head else pooled)


def _run_panoptic(model: Any, image: Tensor, side: int) -> None:
    from mmdet.structures import DetDataSample

    sample = DetDataSample(
        metainfo=dict(img_shape=(side, side), batch_input_shape=(side, side), pad_shape=(side, side))
    )
    model.panoptic_head(model.extract_feat(image), [sample, sample])


def _told(name: str, module: nn.Module, args: tuple) -> str:
    """A layer's name, the channels it takes and those that it got."""
    takes = getattr(module, 'in_channels', getattr(module, 'in_features', None))
    if takes is None or not args or not isinstance(args[0], Tensor):
        return name
    gets = args[0].shape[1] if hasattr(module, 'in_channels') else args[0].shape[-1]
    return f'{name} (takes {takes} channels, gets {gets})'
