"""One step of an MM test pipeline as the exported file's, with every one of its settings understood."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UserError
from ..training.channels import read_as
from ..utils.sizes import parse_size

PILLOW = ('nearest', 'bilinear', 'bicubic', 'lanczos', 'box', 'hamming')
ANY = object()  # of a key, every value
Step = dict[str, Any]


def name_of(step: Mapping[str, Any]) -> str:
    return str(getattr(step['type'], '__name__', step['type'])).split('.')[-1]


def _settings(step: Step, where: str, known: Mapping[str, Any], needed: Sequence[str] = ()) -> Step:
    """A step's settings, each of them known: :data:`ANY` value, or just the one that changes nothing."""
    for key in needed:
        if key not in step:
            raise UserError(f'{where}: {name_of(step)} has no {key}: set it')
    for key, value in step.items():
        if key == 'type':
            continue
        if key not in known or (known[key] is not ANY and value != known[key]):
            raise UserError(f'{where}: {name_of(step)} has {key}={value!r}, which the exported file cannot do')
    return step


def reading(step: Step, where: str, channels: int) -> Step:
    known = dict(
        color_type=ANY, imdecode_backend=ANY, to_float32=False, ignore_empty=ANY, backend_args=ANY, file_client_args=ANY
    )
    return read_as(_settings(step, where, known), where, channels)


def normalizing(step: Step, where: str) -> Step:
    _settings(step, where, dict(mean=ANY, std=ANY, to_rgb=ANY), ('mean', 'std'))
    return dict(
        mean=[float(v) for v in step['mean']],
        std=[float(v) for v in step['std']],
        color='RGB' if step.get('to_rgb', True) else 'BGR',
    )


def _resizing(to: Step, step: Step, where: str, interpolation: str = 'bilinear') -> Step:
    library, kind = step.get('backend') or 'cv2', step.get('interpolation') or interpolation
    if (library, kind) != ('cv2', 'bilinear') and not (library == 'pillow' and kind in PILLOW):
        raise UserError(
            f'{where} resizes with {kind} of {library}, which the exported file cannot do: it knows bilinear of cv2, '
            f'and {", ".join(PILLOW)} of pillow'
        )
    return dict(do='resize', to=to, library=library, interpolation=kind)


HOW = dict(backend=ANY, interpolation=ANY)


def _resize(step: Step, where: str) -> Step:
    if 'fit' in step:
        return _resizing(dict(fit=list(step['fit'])), step, where)
    known = dict(scale=ANY, scale_factor=ANY, keep_ratio=ANY, clip_object_border=ANY, **HOW)
    _settings(step, where, known)
    down, keep = name_of(step) == 'FixScaleResize', bool(step.get('keep_ratio', False))
    if step.get('scale'):
        scale = parse_size(step['scale'])
        to = dict(long_short=sorted(scale, reverse=True)) if keep else dict(exact=scale[::-1])
        return _resizing(dict(to, down=True) if down and keep else to, step, where)
    factor = step.get('scale_factor') or 1.0
    factors = [float(f) for f in factor][::-1] if isinstance(factor, (tuple, list)) else [float(factor)] * 2
    if down and keep:
        raise UserError(f'{where} has FixScaleResize with a scale_factor and keep_ratio: give it a scale')
    return _resizing(dict(factor=factors, **(dict(keep_ratio=True) if keep else {})), step, where)


def _resize_edge(step: Step, where: str) -> Step:
    _settings(step, where, dict(scale=ANY, edge=ANY, **HOW), ('scale',))
    return _resizing(dict(edge=step.get('edge', 'short'), length=int(step['scale'])), step, where)


def _resize_shortest_edge(step: Step, where: str) -> Step:
    _settings(step, where, dict(scale=ANY, max_size=ANY), ('scale', 'max_size'))
    return _resizing(dict(shortest=min(parse_size(step['scale'])), longest=int(step['max_size'])), step, where)


def _resize_to_multiple(step: Step, where: str) -> Step:
    _settings(step, where, dict(size_divisor=ANY, interpolation=ANY))
    return _resizing(dict(multiple=int(step.get('size_divisor', 32))), step, where)


def _center_crop(step: Step, where: str) -> Step:
    _settings(step, where, dict(crop_size=ANY, auto_pad=False, pad_cfg=ANY, clip_object_border=ANY), ('crop_size',))
    return dict(do='center_crop', size=parse_size(step['crop_size'])[::-1])


def _pad(step: Step, where: str) -> Step:
    known = dict(size=ANY, size_divisor=ANY, pad_to_square=ANY, pad_val=ANY, padding_mode='constant')
    _settings(step, where, known)
    value = step.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    given = list(value) if isinstance(value, (tuple, list)) else [value]
    color = given[2::-1] + given[3:]  # MM's is BGR, as its pictures
    target = dict(
        size=parse_size(step['size'])[::-1] if step.get('size') else None,
        multiple=step.get('size_divisor'),
        square=step.get('pad_to_square') or None,
    )
    return dict(do='pad', color=[round(c) for c in color], **{key: v for key, v in target.items() if v})


STEPS: dict[str, Callable[[Step, str], Step]] = dict(
    Resize=_resize,
    FixScaleResize=_resize,
    ResizeEdge=_resize_edge,
    ResizeShortestEdge=_resize_shortest_edge,
    ResizeToMultiple=_resize_to_multiple,
    CenterCrop=_center_crop,
    Pad=_pad,
)
RESIZING = tuple(name for name in STEPS if 'Resize' in name)
