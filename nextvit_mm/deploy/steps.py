"""From an MM test pipeline to the steps that an exported file's pictures go through: understood, or refused by name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmengine.config import Config

from ..errors import UserError
from ..predict.predictor import resized_size
from ..training.channels import channels_of, color_type
from ..utils.metainfo import leaf_datasets
from ..utils.sizes import parse_size
from .pictures import paths_of_dataset, size_of
from .translate import RESIZING, STEPS, Step, name_of, normalizing, reading

PACKERS = ('PackDetInputs', 'PackSegInputs', 'PackInputs')
CLASSIFIERS = (
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
)  # what a classifier's config without test data is taken to do


class Plan(NamedTuple):
    """How a picture becomes the input.

    Attributes:
        read: How a file is read, for :func:`nextvit_mm.predict.predictor.read_picture`.
        steps: What is done with it, for :func:`nextvit_mm.predict.predictor.place`.
        size: Height and width of the input where they are fixed.
        normalize: A ``Normalize`` step, where the pipeline has one instead of the ``data_preprocessor``.
        pipeline: The same in MM's steps, without annotations.
    """

    read: Step
    steps: list[Step]
    size: list[int] | None
    normalize: Step | None
    pipeline: list[Step]

    @property
    def canvas(self) -> list[int] | None:
        """Height and width to which an export of a fixed size pads, beyond what the pipeline does."""
        return next((step['size'] for step in self.steps if step['do'] == 'canvas'), None)

    def pipeline_of(self, picture: tuple[int, int]) -> list[Step]:
        """MM's steps for a picture of a height and width: MM has none that fits one into a height and width."""
        return [_without_fit(step, picture) if 'fit' in step else step for step in self.pipeline]


def _without_fit(step: Step, picture: tuple[int, int]) -> Step:
    scale = resized_size(picture, dict(fit=step['fit']))[::-1]
    return dict({key: value for key, value in step.items() if key != 'fit'}, scale=scale)


def plan(cfg: Config, task: str, size: Sequence[int] | None, dynamic: Sequence[str]) -> Plan:
    """What the config's test pipeline does, and with ``size`` the same at another size.

    With a fixed size, and a pipeline that gives pictures of many shapes, a picture is resized to fit into it, its ratio
    kept, and padded to the right and below.

    Raises:
        UserError: The pipeline has a step, or a setting of one, that is not understood, or does not tell the size.
    """
    where = f'the test pipeline of {cfg.filename}'
    for step in config_pipeline(cfg):
        if 'type' not in step:
            raise UserError(f'{where} has a step without type: {step}')
    steps = [step for step in config_pipeline(cfg) if not _is_annotation(name_of(step))]
    channels = channels_of(cfg)
    if all(name_of(step) in PACKERS for step in steps):  # none, or those of data that are no files
        usual: Sequence[Step] = (
            CLASSIFIERS if task == 'classification' and not steps else [dict(type='LoadImageFromFile')]
        )
        steps = [dict(usual[0], color_type=color_type(channels)), *usual[1:], *steps]
    _check_order(steps, task, where)
    for step in steps:
        if name_of(step) in STEPS:
            STEPS[name_of(step)](step, where)  # says what of it is not understood, before its size is looked at
    steps, fixed = _at_size(cfg, steps, task, parse_size(size), 'size' in dynamic, where)
    read, found, normalize = {}, [], None
    for step in steps:
        name = name_of(step)
        if name == 'LoadImageFromFile':
            read = reading(step, where, channels)
        elif name == 'Normalize':
            normalize = normalizing(step, where)
        elif name not in PACKERS:
            found.append(STEPS[name](step, where))
    if any('fit' in step.get('to', ()) for step in found):
        found.append(dict(do='canvas', size=fixed))
    return Plan(read, found, fixed, normalize, steps)


def config_pipeline(cfg: Config) -> list[Step]:
    """The steps of the config's test data, or none where it has none."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if not dataset:
        return []
    return [dict(step) for step in next((leaf.get('pipeline', []) for leaf in leaf_datasets(dataset)), [])]


def gives_many_shapes(cfg: Config) -> bool:
    """Whether the test pipeline gives pictures of different heights and widths."""
    steps = {name_of(step): step for step in config_pipeline(cfg)}
    exact = 'Resize' in steps and not steps['Resize'].get('keep_ratio') and steps['Resize'].get('scale')
    return not (exact or 'CenterCrop' in steps or steps.get('Pad', {}).get('size'))


def _is_annotation(name: str) -> bool:
    return name.startswith('Load') and name.endswith('Annotations')


def _check_order(steps: Sequence[Step], task: str, where: str) -> None:
    """Refuse steps that are not known, and orders in which MM's own results would not lie on the picture."""
    names = [name_of(step) for step in steps]
    known = ('LoadImageFromFile', *STEPS, 'Normalize', *PACKERS)
    for name in names:
        if name not in known:
            raise UserError(
                f'{where} has the step {name}, which the exported file cannot do: it knows {", ".join(known)}. Take '
                'one of these, or export --what backbone with such a pipeline'
            )
    last = [name for name in names if name not in PACKERS]
    if last[0] != 'LoadImageFromFile':
        raise UserError(f'{where} begins with {last[0]}: it must begin with LoadImageFromFile')
    if 'Normalize' in last and last[-1] != 'Normalize':
        raise UserError(f'{where} has {last[-1]} after Normalize, which the exported file cannot do: put it before')
    changes = [name for name in names if name in RESIZING or name == 'CenterCrop']
    if task == 'detection' and (len(changes) > 1 or 'CenterCrop' in changes):
        raise UserError(f'{where} has {" and ".join(changes)}: MMDetection maps boxes back through one resizing only')
    if task == 'segmentation' and {'CenterCrop', 'Pad'} & set(names):
        raise UserError(
            f'{where} has {" and ".join(sorted({"CenterCrop", "Pad"} & set(names)))}: MMSegmentation stretches what '
            'comes out over the whole picture. Pad with data_preprocessor.test_cfg instead'
        )


def _at_size(
    cfg: Config, steps: list[Step], task: str, size: list[int] | None, dynamic: bool, where: str
) -> tuple[list[Step], list[int] | None]:
    """The steps at the wanted size, and the height and width of the input where they are fixed."""
    by_name = {name_of(step): step for step in steps}
    if 'CenterCrop' in by_name:
        steps, fixed = _at_crop(steps, size)
    elif by_name.get('Pad', {}).get('size'):
        if size:
            raise UserError(f'{where} pads to one size: leave --size out, or Pad')
        fixed = parse_size(by_name['Pad']['size'])[::-1]
    elif _gives_one_size(by_name):
        fixed = size or parse_size(by_name['Resize']['scale'])[::-1]
        steps = [dict(step, scale=tuple(fixed[::-1])) if name_of(step) == 'Resize' else step for step in steps]
    elif dynamic:
        return (_bounded(steps, size) if size else steps), None
    else:
        return _fitted(cfg, steps, task, size, where)
    return steps, None if dynamic else fixed


def _gives_one_size(by_name: Mapping[str, Step]) -> bool:
    resize = by_name.get('Resize', {})
    others = (set(by_name) & set(RESIZING)) - {'Resize'}
    return bool(resize.get('scale') and not resize.get('keep_ratio') and not others and 'Pad' not in by_name)


def _at_crop(steps: list[Step], size: list[int] | None) -> tuple[list[Step], list[int]]:
    """Another crop comes from a picture resized in the same proportion."""
    usual = parse_size(next(step for step in steps if name_of(step) == 'CenterCrop')['crop_size'])[::-1]
    crop = size or usual
    if crop == usual:
        return steps, crop
    changed = []
    for step in steps:
        if name_of(step) == 'ResizeEdge':
            step = dict(step, scale=max(round(step['scale'] * min(crop) / min(usual)), *crop))
        elif name_of(step) == 'CenterCrop':
            step = dict(step, crop_size=tuple(crop[::-1]))
        changed.append(step)
    return changed, crop


def _bounded(steps: list[Step], size: list[int]) -> list[Step]:
    """Pictures of many shapes, their long and short sides at most those of ``size``."""
    changed = [step for step in steps if name_of(step) not in RESIZING]
    first = next((step for step in steps if name_of(step) in RESIZING), {})
    how: Step = {key: first[key] for key in ('backend', 'interpolation') if key in first}
    changed.insert(1, dict(type='Resize', scale=tuple(sorted(size, reverse=True)), keep_ratio=True, **how))
    return changed


def _fitted(
    cfg: Config, steps: list[Step], task: str, size: list[int] | None, where: str
) -> tuple[list[Step], list[int]]:
    """Pictures of many shapes fitted into one size."""
    resizing = [step for step in steps if name_of(step) in RESIZING]
    if task == 'classification':
        raise UserError(f'{where} has neither CenterCrop nor a Resize to one size')
    if len(resizing) > 1 or any(name_of(step) == 'Pad' for step in steps):
        names = ' and '.join(name_of(step) for step in steps if name_of(step) in (*RESIZING, 'Pad'))
        raise UserError(f'{where} has {names}, which give pictures of many shapes: give --dynamic size, without --size')
    first = resizing[0] if resizing else {}
    scale = first.get('scale') if name_of(first or dict(type='')) in ('Resize', 'FixScaleResize') else None
    if not size and resizing and task == 'segmentation' and not first.get('scale_factor'):
        raise UserError(
            f"{where} gives pictures of many shapes, and padding would change a segmentor's result: give --size HEIGHT "
            'WIDTH for pictures of one shape, or --dynamic size'
        )
    if not size and scale:
        size = parse_size(scale)[::-1]
    if not size:
        paths = paths_of_dataset(cfg, 'test', 1)
        if not paths:
            raise UserError(f'{where} takes pictures at their own size: give --size HEIGHT WIDTH, or --dynamic size')
        size = list(size_of(paths[0]))
        if first:
            size = list(resized_size((size[0], size[1]), STEPS[name_of(first)](first, where)['to']))
    how: Step = {key: first[key] for key in ('backend', 'interpolation') if key in first}
    kept = [step for step in steps if name_of(step) not in RESIZING]
    kept.insert(1, dict(type='Resize', fit=size, **how))
    return kept, size
