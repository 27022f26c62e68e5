"""What a network does, drawn: the commands of ``tools/visualize.py``."""

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from ..errors import UserError
from ..utils.figures import check_matplotlib, check_png
from ..utils.logs import quiet_log
from . import cam, figures, hooks
from .networks import Subject, load_beside, load_subject, read_config, settle_statistics, take_pictures
from .spectrum import Spectra, share_of_noise

BRANCHES = dict(low='E-MHSA branch', high='MHCA branch', mhsa='E-MHSA alone', mhca='MHCA alone')


@quiet_log()
def spectrum(
    config: str,
    checkpoint: str | None = None,
    beside: Sequence[str] = (),
    branches: bool = False,
    images: str | None = None,
    count: int = 16,
    size: Sequence[int] | None = None,
    out: str | None = None,
    random_weights: bool = False,
    device: str = 'cpu',
    data_root: str | None = None,
    cfg_options: dict | None = None,
) -> Path:
    """Draw the Fourier spectra of a backbone's stages and blocks, or of the branches of its NTBs.

    Args:
        config: Config file of an MM model.
        checkpoint: Its weights. Default: the published ones that the config names for its backbone.
        beside: Networks to put beside it, as :func:`.subjects.load_beside` takes them.
        branches: Look at the two branches of every NTB instead of the stages and blocks.
        images: A picture or a folder. Default: the config's test data.
        count: How many pictures at most.
        size: Height and width that every picture is resized to. Default: as the config's test pipeline does.
        out: The PNG. Default: ``work_dirs/<config>/visualize/spectrum.png`` or ``branches.png``.
        random_weights: Load no weights.
        device: Where it runs.
        data_root, cfg_options: As in :func:`nextvit_mm.training.launch.train`.

    Returns:
        Path: The PNG.

    Raises:
        UserError: Something is missing or does not fit.
    """
    cfg, target = _start(config, out, 'branches' if branches else 'spectrum', data_root, cfg_options, device)
    pictures = take_pictures(cfg, images, count)
    own = load_subject(cfg, checkpoint, random_weights, 'backbone', _pair(size), exact=True, device=device)
    first = own.prepare(pictures[0]).shape
    subjects = [own, *(load_beside(text, cfg, own, tuple(first[2:]), device) for text in beside)]
    for subject in subjects:
        settle_statistics(subject, pictures)
    sizes = {tuple(own.prepare(picture).shape[2:]) for picture in pictures}
    about = f'{_plural(len(pictures), "picture")} of ' + (
        '{1}×{0}'.format(*sizes.pop()) if len(sizes) == 1 else f'{len(sizes)} sizes'
    )
    if branches:
        found = [(subject, _branch_spectra(subject, pictures)) for subject in subjects]
        _print_branches(found)
        figures.draw_branches([(subject.title, _splits(spectra)) for subject, spectra in found], about, target)
    else:
        figures.draw_spectra([_depths(subject, pictures) for subject in subjects], about, target)
    print(f'written: {target}')
    return target


@quiet_log()
def heatmap(
    config: str,
    checkpoint: str | None = None,
    images: str | None = None,
    count: int = 4,
    stages: Sequence[int] | None = None,
    method: str | None = None,
    class_name: str | None = None,
    min_score: float = 0.3,
    size: Sequence[int] | None = None,
    out: str | None = None,
    device: str = 'cpu',
    data_root: str | None = None,
    cfg_options: dict | None = None,
) -> Path:
    """Draw class-activation maps of a classifier, segmentor or detector over pictures.

    Args:
        config, checkpoint, images, count, device, data_root, cfg_options: As in :func:`spectrum`.
        stages: Whose maps, by number from 1. Default: of a classifier the last one, of others all.
        method: One of :data:`.cam.METHODS`. Default: ``gradcam`` for classifiers, ``layercam`` for others, whose y
            comes from some places of the picture: Grad-CAM's weight of a channel is a mean over all of it.
        class_name: Name or number of the class to explain. Default: what the model finds; see :func:`.cam.explain`.
        min_score: Detections of at least this score count.
        size: Height and width that pictures are resized to fit into. Default: as the config's test pipeline does.
        out: The PNG. Default: ``work_dirs/<config>/visualize/heatmap.png``.

    Returns:
        Path: The PNG.

    Raises:
        UserError: Something is missing or does not fit, or nothing is found in any picture.
    """
    cfg, target = _start(config, out, 'heatmap', data_root, cfg_options, device)
    if not checkpoint:
        raise UserError(f'a heat map explains what a trained model finds: give a CHECKPOINT after {config}')
    cam.library()
    pictures = take_pictures(cfg, images, count)
    subject = load_subject(cfg, checkpoint, size=_pair(size), device=device)
    model = subject.model
    kind = cam.explained_kind(model)
    method = method or ('gradcam' if kind == 'classifier' else 'layercam')
    label = cam.find_class(class_name, subject.classes, cam.count_classes(model))
    explanations: list[figures.Explanation] = []
    with hooks.stage_layers(subject.backbone) as layers:
        usual = list(layers)[-1:] if kind == 'classifier' else list(layers)
        chosen = sorted(set(stages)) if stages else usual
        for stage in chosen:
            if stage not in layers:
                raise UserError(f'--stages {stage}: the backbone has {", ".join(map(str, layers))}')
        strides: dict[int, int] = {}
        for number, picture in enumerate(_progress(pictures, 'pictures'), start=1):
            image = subject.prepare(picture)
            try:
                what = cam.explain(model, image, subject.classes, label, min_score)
            except cam.NothingFound as nothing:
                print(f'picture {number} of {len(pictures)}: {nothing}; left out', file=sys.stderr)
                continue
            heats = {}
            for stage in chosen:
                shapes: list[tuple[int, ...]] = []
                with hooks.watch({stage: layers[stage]}, lambda _, out, shapes=shapes: shapes.append(out.shape)):
                    heats[stage] = cam.heat_map(what, layers[stage], image, method)
                # Where a side is no multiple of the stride, its last cell is not whole.
                strides[stage] = round(max(image.shape[2] / shapes[0][2], image.shape[3] / shapes[0][3]))
            names = [
                f'{subject.classes[i] if subject.classes else i} {score:.2f}'
                for i, score in zip(what.labels, what.scores)
            ]
            explanations.append(
                figures.Explanation(subject.shown(picture), what.title, heats, what.boxes, names, what.mask)
            )
    if not explanations:
        raise UserError(
            f'in none of {_plural(len(pictures), "picture")} there is anything to explain: give other '
            '--images'
            + (', another --class' if class_name else '')
            + (', or a lower --min-score' if kind == 'detector' else '')
        )
    name = cam.METHODS[method] + (' (whatever the class)' if method in cam.CLASS_FREE else '')
    figures.draw_heat_maps(explanations, strides, f'{name} of {subject.title}', target)
    print(f'written: {target}')
    return target


@quiet_log()
def features(
    config: str,
    checkpoint: str | None = None,
    images: str | None = None,
    channels: int = 4,
    size: Sequence[int] | None = None,
    out: str | None = None,
    random_weights: bool = False,
    device: str = 'cpu',
    data_root: str | None = None,
    cfg_options: dict | None = None,
) -> Path:
    """Draw what each stage makes of one picture.

    Args:
        config, checkpoint, images, random_weights, device, data_root, cfg_options: As in :func:`spectrum`; the first
            picture is taken.
        channels: How many of the strongest channels of each stage.
        size: Height and width that the picture is resized to fit into. Default: as the config's test pipeline does.
        out: The PNG. Default: ``work_dirs/<config>/visualize/features.png``.

    Returns:
        Path: The PNG.

    Raises:
        UserError: Something is missing or does not fit.
    """
    cfg, target = _start(config, out, 'features', data_root, cfg_options, device)
    if channels < 0:
        raise UserError(f'--channels {channels} must be at least 0')
    pictures = take_pictures(cfg, images, 1)
    subject = load_subject(cfg, checkpoint, random_weights, 'backbone', _pair(size), device=device)
    settle_statistics(subject, pictures)
    with torch.no_grad():
        maps = _run(subject, pictures[0])
    stages = {stage: found[0].cpu().numpy() for stage, found in maps.items()}
    figures.draw_features(subject.shown(pictures[0]), stages, f'Feature maps of {subject.title}', target, channels)
    print(f'written: {target}')
    return target


def _start(
    config: str, out: str | None, name: str, data_root: str | None, cfg_options: dict | None, device: str
) -> tuple[Config, Path]:
    """What can be looked at before minutes of work: the config, the file to write, the device."""
    cfg = read_config(config, data_root, cfg_options)
    target = (
        Path(out)
        if out
        else Path(cfg.get('work_dir') or Path('work_dirs', Path(cfg.filename).stem)) / 'visualize' / f'{name}.png'
    )
    check_png(target)
    check_matplotlib()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {device}: {str(error).splitlines()[0]}') from None
    return cfg, target


def _run(subject: Subject, picture: np.ndarray, see=None) -> dict[int, torch.Tensor]:
    image = subject.prepare(picture)
    try:
        return hooks.run(subject.backbone, image, subject.channels_last, see)
    except (RuntimeError, ValueError, AssertionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip('.')
        raise UserError(
            f'{subject.name} does not take pictures of {image.shape[3]}×{image.shape[2]}: {why}. Give '
            '--size HEIGHT WIDTH'
        ) from error


def _depths(subject: Subject, pictures: Sequence[np.ndarray]) -> figures.Depths:
    """Spectra of every block and stage."""
    blocks: dict[tuple[int, int], Spectra] = {}
    stages: dict[int, Spectra] = {}
    with torch.no_grad():
        for picture in _progress(pictures, subject.name):
            maps = _run(
                subject,
                picture,
                lambda block, found: blocks.setdefault((block.stage, block.index), Spectra()).add(found[0]),
            )
            for stage, found in maps.items():
                stages.setdefault(stage, Spectra()).add(found[0])
    curves = blocks or stages
    shares = {
        stage: (100 * spectra.mean_shares.high, 100 * share_of_noise(*spectra.shape[1:]))
        for stage, spectra in stages.items()
    }
    print(
        f'{subject.title}: share of energy above π/2 after each stage: '
        + ', '.join(f'{stage}: {share:.1f} % (white noise {noise:.1f} %)' for stage, (share, noise) in shares.items())
    )
    return figures.Depths(
        subject.title,
        [spectra.curve for spectra in curves.values()],
        [
            (f'stage {stage}: {spectra.shape[0]} × {spectra.shape[2]}×{spectra.shape[1]}', spectra.map)
            for stage, spectra in stages.items()
        ],
    )


def _branch_spectra(subject: Subject, pictures: Sequence[np.ndarray]) -> dict[hooks.Block, dict[str, Spectra]]:
    """Spectra of what happens inside every NTB, by the names of :data:`BRANCHES`."""
    ntbs = hooks.find_ntbs(subject.backbone)
    if not ntbs:
        raise UserError(f'{subject.name} has no Next Transformer Blocks for --branches')
    found: dict[hooks.Block, dict[str, Spectra]] = {ntb: {} for ntb in ntbs}

    def see(block: hooks.Block, seen: hooks.Branches) -> None:
        for name, maps in seen._asdict().items():
            if maps is not None:
                found[block].setdefault(name, Spectra()).add(maps[0])

    with torch.no_grad(), hooks.watch_branches(ntbs, see):
        for picture in _progress(pictures, subject.name):
            _run(subject, picture)
    return found


def _splits(spectra: dict[hooks.Block, dict[str, Spectra]]) -> list[figures.Split]:
    splits = []
    for block, found in spectra.items():
        height, width = next(iter(found.values())).shape[1:]
        curves = {name: found[name].curve if name in found else None for name in BRANCHES}
        splits.append(
            figures.Split(
                f'stage {block.stage}, block {block.index}: {width}×{height}',
                **curves,
                shares={name: one.mean_shares for name, one in found.items()},
                noise=share_of_noise(height, width),
            )
        )
    return splits


def _print_branches(networks: Sequence[tuple[Subject, dict[hooks.Block, dict[str, Spectra]]]]) -> None:
    """Tables: shares of energy of every NTB, and on how many pictures MHCA's is the greater."""
    for field, heading in (
        ('high', 'energy above π/2, % of what varies (all but the zero frequency)'),
        ('zero', 'energy at the zero frequency, % of all'),
    ):
        print(f'{heading}; means over channels and pictures')
        print(
            f'{"":<24}{"map":>8}'
            + ''.join(f'{name:>15}' for name in BRANCHES.values())
            + f'{"white noise" if field == "high" else "":>13}   pictures with more in MHCA: branch, alone'
        )
        for subject, spectra in networks:
            print(f'  {subject.title}')
            for block, found in spectra.items():
                height, width = next(iter(found.values())).shape[1:]
                print(
                    f'{f"    stage {block.stage}, block {block.index}":<24}{f"{width}×{height}":>8}'
                    + ''.join(
                        f'{100 * getattr(found[name].mean_shares, field):>15.1f}' if name in found else f'{"–":>15}'
                        for name in BRANCHES
                    )
                    + (f'{100 * share_of_noise(height, width):>13.1f}' if field == 'high' else f'{"":>13}')
                    + '   '
                    + ', '.join(_more(found, *pair, field) for pair in (('low', 'high'), ('mhsa', 'mhca')))
                )


def _more(found: dict[str, Spectra], low: str, high: str, field: str) -> str:
    """On how many pictures the second of two has the greater share."""
    if low not in found or high not in found:
        return '–'
    pairs = [(getattr(a, field), getattr(b, field)) for a, b in zip(found[low].shares, found[high].shares)]
    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
    return f'{sum(b > a for a, b in pairs)} of {len(pairs)}'


def _progress(items: Sequence, what: str) -> Iterator:
    """The items, counted on stderr where that is a terminal."""
    for i, item in enumerate(items, start=1):
        if sys.stderr.isatty():
            print(f'\r{what}: {i}/{len(items)}', end='' if i < len(items) else '\r\033[K', file=sys.stderr, flush=True)
        yield item


def _pair(size: Sequence[int] | None) -> list[int] | None:
    if size is None:
        return None
    if len(size) not in (1, 2) or min(size) < 1:
        raise UserError(f'--size takes one or two numbers of pixels, not {" ".join(map(str, size))}')
    return list(size) * 2 if len(size) == 1 else list(size)


def _plural(count: int, word: str) -> str:
    return f'{count} {word}' + ('' if count == 1 else 's')
