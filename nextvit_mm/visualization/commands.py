"""What a network does, drawn: the commands of ``tools/visualize.py``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from ..errors import UserError
from ..utils.figures import check_matplotlib, check_png
from ..utils.logs import quiet_log
from ..utils.sizes import parse_size
from . import cam, figures, hooks
from .feature_figures import draw_features
from .measure import branch_spectra, depths, print_branches, progress, run_network, splits
from .networks import Network, load_beside, load_network, read_config, settle_statistics, take_pictures
from .options import FeaturesOptions, HeatmapOptions, SpectrumOptions, ViewOptions


@quiet_log()
def spectrum(options: SpectrumOptions) -> Path:
    """Draw the Fourier spectra of a backbone's stages and blocks, or of the branches of its NTBs.

    Returns:
        Path: The PNG.

    Raises:
        UserError: Something is missing or does not fit.
    """
    cfg, target = _start(options, 'branches' if options.branches else 'spectrum')
    pictures = take_pictures(cfg, options.images, options.count)
    own = _load_backbone(cfg, options, options.random_weights, exact=True)
    first = own.prepare(pictures[0]).shape
    networks = [own, *(load_beside(text, cfg, own, tuple(first[2:]), options.device) for text in options.beside)]
    for network in networks:
        settle_statistics(network, pictures)
    sizes = {tuple(own.prepare(picture).shape[2:]) for picture in pictures}
    about = f'{_plural(len(pictures), "picture")} of ' + (
        '{1}×{0}'.format(*sizes.pop()) if len(sizes) == 1 else f'{len(sizes)} sizes'
    )
    if options.branches:
        found = [(network, branch_spectra(network, pictures)) for network in networks]
        print_branches(found)
        figures.draw_branches([(network.title, splits(spectra)) for network, spectra in found], about, target)
    else:
        figures.draw_spectra([depths(network, pictures) for network in networks], about, target)
    print(f'written: {target}')
    return target


@quiet_log()
def heatmap(options: HeatmapOptions) -> Path:
    """Draw class-activation maps of a classifier, segmentor or detector over pictures.

    Returns:
        Path: The PNG.

    Raises:
        UserError: Something is missing or does not fit, or nothing is found in any picture.
    """
    cfg, target = _start(options, 'heatmap')
    if not options.checkpoint:
        raise UserError(f'a heat map explains what a trained model finds: give a CHECKPOINT after {options.config}')
    cam.library()
    pictures = take_pictures(cfg, options.images, options.count)
    size = parse_size(options.size, '--size')
    network = load_network(cfg, options.checkpoint, size=size, device=options.device)
    kind = cam.explained_kind(network.model)
    method = options.method or usual_method(kind)
    label = cam.find_class(options.class_name, network.classes, cam.count_classes(network.model))
    explanations: list[figures.Explanation] = []
    strides: dict[int, int] = {}
    with hooks.stage_layers(network.backbone) as layers:
        chosen = choose_stages(layers, options.stages, kind)
        for number, picture in enumerate(progress(pictures, 'pictures'), start=1):
            image = network.prepare(picture)
            try:
                what = cam.explain(network.model, image, network.classes, label, options.min_score)
            except cam.NothingFound as nothing:
                print(f'picture {number} of {len(pictures)}: {nothing}; left out', file=sys.stderr)
                continue
            heats, strides = _heat_maps(what, chosen, image, method)
            explanations.append(_explanation(network, picture, what, heats))
    if not explanations:
        raise UserError(
            f'in none of {_plural(len(pictures), "picture")} there is anything to explain: give other --images'
            + (', another --class' if options.class_name else '')
            + (', or a lower --min-score' if kind == 'detector' else '')
        )
    name = cam.METHODS[method] + (' (whatever the class)' if method in cam.CLASS_FREE else '')
    figures.draw_heat_maps(explanations, strides, f'{name} of {network.title}', target)
    print(f'written: {target}')
    return target


def usual_method(kind: str) -> str:
    """How the maps of a kind of model are weighed, where nobody says."""
    # y of others comes from some places of the picture: Grad-CAM's weight of a channel is a mean over all of it.
    return 'gradcam' if kind == 'classifier' else 'layercam'


def choose_stages(layers: dict[int, nn.Module], wanted: Sequence[int] | None, kind: str) -> dict[int, nn.Module]:
    """The stages that were asked for; without any, of a classifier the last one, of others all."""
    for stage in wanted or ():
        if stage not in layers:
            raise UserError(f'--stages {stage}: the backbone has {", ".join(map(str, layers))}')
    usual = list(layers)[-1:] if kind == 'classifier' else list(layers)
    return {stage: layers[stage] for stage in sorted(set(wanted or usual))}


def _heat_maps(
    what: cam.Explained, layers: dict[int, nn.Module], image: torch.Tensor, method: str
) -> tuple[dict[int, np.ndarray], dict[int, int]]:
    """The heat map of each stage, and the strides of their maps."""
    heats: dict[int, np.ndarray] = {}
    shapes: dict[int, tuple[int, ...]] = {}

    def remember(stage: int, found: torch.Tensor) -> None:
        shapes.setdefault(stage, tuple(found.shape))

    for stage, layer in layers.items():
        with hooks.watch({stage: layer}, remember):
            heats[stage] = cam.heat_map(what, layer, image, method)
    # Where a side is no multiple of the stride, its last cell is not whole.
    strides = {
        stage: round(max(image.shape[2] / shape[2], image.shape[3] / shape[3])) for stage, shape in shapes.items()
    }
    return heats, strides


def _explanation(
    network: Network, picture: np.ndarray, what: cam.Explained, heats: dict[int, np.ndarray]
) -> figures.Explanation:
    names = [
        f'{network.classes[i] if network.classes else i} {score:.2f}' for i, score in zip(what.labels, what.scores)
    ]
    return figures.Explanation(network.shown(picture), what.title, heats, what.boxes, names, what.mask)


@quiet_log()
def features(options: FeaturesOptions) -> Path:
    """Draw what each stage makes of one picture.

    Returns:
        Path: The PNG.

    Raises:
        UserError: Something is missing or does not fit.
    """
    cfg, target = _start(options, 'features')
    if options.channels < 0:
        raise UserError(f'--channels {options.channels} must be at least 0')
    pictures = take_pictures(cfg, options.images, 1)
    network = _load_backbone(cfg, options, options.random_weights)
    settle_statistics(network, pictures)
    with torch.no_grad():
        maps = run_network(network, pictures[0])
    stages = {stage: found[0].cpu().numpy() for stage, found in maps.items()}
    title = f'Feature maps of {network.title}'
    draw_features(network.shown(pictures[0]), stages, title, target, options.channels)
    print(f'written: {target}')
    return target


def _start(options: ViewOptions, name: str) -> tuple[Config, Path]:
    """What can be looked at before minutes of work: the config, the file to write, the device."""
    cfg = read_config(options.config, options.data_root, options.cfg_options)
    work_dir = Path(cfg.get('work_dir') or Path('work_dirs', Path(cfg.filename).stem))
    target = Path(options.out) if options.out else work_dir / 'visualize' / f'{name}.png'
    check_png(target)
    check_matplotlib()
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {options.device}: {str(error).splitlines()[0]}') from None
    return cfg, target


def _load_backbone(cfg: Config, options: ViewOptions, random_weights: bool, exact: bool = False) -> Network:
    size = parse_size(options.size, '--size')
    return load_network(cfg, options.checkpoint, random_weights, 'backbone', size, exact, device=options.device)


def _plural(count: int, word: str) -> str:
    return f'{count} {word}' + ('' if count == 1 else 's')
