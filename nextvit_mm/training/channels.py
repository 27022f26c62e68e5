"""Pictures of other than three channels: how they are read, and what of a config would not go with them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..adapt.network import is_nextvit
from ..adapt.pictures import preprocessors
from ..data.loaders import datasets_of, steps_of, type_name
from ..errors import UserError

USUAL = 3
IN_FILES = (1, 3, 4)  # channels of an 8-bit picture file
# What LoadImageFromFile makes of a file; 'unchanged' gives what the file has.
READ = dict(color=3, color_ignore_orientation=3, grayscale=1, grayscale_ignore_orientation=1)
RULES = {
    ('color', 'cv2'): 'color',
    ('color', 'pillow'): 'color',
    ('grayscale', 'cv2'): 'gray',
    ('grayscale', 'pillow'): 'gray',
    ('unchanged', 'cv2'): 'unchanged',
}  # what it calls that, and by which library; what our own reading calls it
OTHERS = ('mmseg', 'mmpretrain')  # whose preprocessors take as many values as channels, and swap three channels only


def channels_of(cfg: Config) -> int:
    """The channels that a config's Next-ViT takes; three for another backbone, which has rules of its own."""
    model = cfg.get('model') or {}
    if not isinstance(model, dict):  # said elsewhere
        return USUAL
    backbone = (model if 'backbone' in model else model.get('detector') or {}).get('backbone') or {}
    return backbone.get('in_channels', USUAL) if is_nextvit(backbone) else USUAL


def color_type(channels: int) -> str:
    """How ``LoadImageFromFile`` reads pictures of so many channels."""
    return {1: 'grayscale', USUAL: 'color'}.get(channels, 'unchanged')


def fit_channels(cfg: Config, splits: Sequence[str]) -> None:
    """Have pictures read with the channels that the Next-ViT takes, and see that the rest of the config goes with it.

    A ``LoadImageFromFile`` that names no ``color_type`` gets one, and a line says so.

    Args:
        cfg: The config that will run.
        splits: Of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: They do not; the message names the key.
    """
    channels = channels_of(cfg)
    if channels == USUAL:
        return
    of_model = 'data_preprocessor' in (cfg.get('model') or {})  # MMEngine then takes no other
    for name, one in preprocessors(cfg):
        if of_model and not name.startswith('model.'):
            continue
        for problem in _of_preprocessor(cfg, one, channels):
            raise UserError(f'{cfg.filename}: {name}.{problem}, and the backbone takes in_channels={channels}')
    for split in splits:
        for dataset in datasets_of(cfg, split):
            for step in dataset.get('pipeline') or ():
                _check_reading(step, split, channels)
    steps = [step for step in steps_of(cfg, 'LoadImageFromFile') if 'color_type' not in step]
    for step in steps:
        step['color_type'] = color_type(channels)
    if steps:
        print_log(f'pictures: read as color_type={color_type(channels)!r}, for in_channels={channels}', 'current')


def read_as(step: Mapping[str, Any], where: str, channels: int = USUAL) -> dict[str, Any]:
    """What a ``LoadImageFromFile`` does, as a rule for :func:`nextvit_mm.predict.predictor.read_picture`.

    Raises:
        UserError: That function cannot do it.
    """
    color, backend = step.get('color_type', 'color'), step.get('imdecode_backend', 'cv2')
    kind, _, ignores = color.partition('_')
    if ignores not in ('', 'ignore_orientation') or (kind, backend) not in RULES:
        known = ', '.join(f'{name} with {library}' for name, library in RULES)
        raise UserError(f'{where}: LoadImageFromFile reads {color} with {backend}. What is known here is {known}')
    if kind == 'grayscale' and channels != 1:
        raise UserError(
            f'{where}: LoadImageFromFile gives gray pictures, and the backbone takes in_channels={channels}'
        )
    if kind == 'unchanged' and channels not in IN_FILES:
        raise UserError(f'{where}: only pictures of 1, 3 or 4 channels can be read here, and in_channels={channels}')
    rule: dict[str, Any] = dict(backend=backend, orientation=not ignores and kind != 'unchanged')
    if kind != 'color':
        rule.update(color=RULES[kind, backend], channels=channels)
    return rule


def rule_of(cfg: Config) -> dict[str, Any]:
    """:func:`read_as` of a config's test pipeline; in color where that pipeline does what is not known here.

    Raises:
        UserError: Pictures of other than three channels are read in another way.
    """
    channels, where = channels_of(cfg), f'the test pipeline of {cfg.filename}'
    steps = [step for dataset in datasets_of(cfg, 'test') for step in dataset.get('pipeline') or ()]
    loading = [step for step in steps if type_name(step) == 'LoadImageFromFile']
    if not loading and channels != USUAL:
        raise UserError(f'{where} has no LoadImageFromFile: pictures of {channels} channels cannot be read without it')
    try:
        return read_as(loading[-1], where, channels) if loading else {}
    except UserError:
        if channels != USUAL:
            raise
        return {}


def _of_preprocessor(cfg: Config, one: dict, channels: int) -> Iterator[str]:
    name = type_name(one) if 'type' in one else ''
    detects = cfg.get('default_scope') not in OTHERS and not name.startswith(('Seg', 'Cls'))
    for key in ('mean', 'std'):
        count = len(one.get(key) or [0])
        if count not in (1, channels):
            yield f'{key} has {count} values; give one, or one for each channel'
        elif detects and count not in (1, USUAL):
            yield f"{key} has {count} values, and MMDetection's preprocessor takes three, or one for all channels"
    for key in ('bgr_to_rgb', 'rgb_to_bgr'):
        if detects and one.get(key):
            yield f'{key}=True would pick three channels; set it to False'


def _check_reading(step: dict, split: str, channels: int) -> None:
    kind = step.get('color_type', color_type(channels))
    if type_name(step) != 'LoadImageFromFile' or READ.get(kind, channels) == channels:
        return
    wanted = "'grayscale'" if channels == 1 else "'unchanged' for files with as many, or take another loading step"
    raise UserError(
        f'{split}_dataloader: LoadImageFromFile with color_type={kind!r} gives pictures of {READ[kind]} channels, and '
        f'the backbone takes in_channels={channels}: set color_type={wanted}'
    )
