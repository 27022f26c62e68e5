"""What the page shows of a picture: results, a heat map, and what each stage makes of it. Needs no browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from ..inference.models import EXPORTED, Trained, resolve
from ..inference.sources import Source, Unreadable, read
from ..visualization import cam, hooks
from ..visualization.commands import choose_stages, usual_method
from ..visualization.feature_figures import principal_colors
from ..visualization.networks import Network, describe_pictures

LEAST_SIDE = 480  # pixels: smaller pictures are shown larger


class Row(NamedTuple):
    """One line of the results: what, how much or how sure, and the color that it is drawn in, if any."""

    name: str
    value: str
    color: tuple[int, int, int] | None


@dataclass(frozen=True)
class Seen:
    """A picture, RGB (H, W, 3) of uint8, and its result as a predictor returns it."""

    pixels: np.ndarray
    result: dict[str, Any]


class View:
    """A trained model, and what can be shown of its way with a picture.

    Args:
        config: Config, recipe, work dir or checkpoint, as :func:`nextvit_mm.inference.load_predictor` takes them.
        checkpoint: Its weights, where ``config`` does not hold them.
        device: ``'cpu'``, ``'cuda'`` … Default: CUDA where there is one.

    Raises:
        UserError: Something is missing, does not fit, or is an exported file.
    """

    def __init__(self, config: str, checkpoint: str | None = None, device: str | None = None) -> None:
        cam.library()
        for path in (config, checkpoint or ''):
            if path.endswith(EXPORTED):
                raise UserError(f'{path} is an exported file, which cannot be looked into: give the checkpoint')
        cfg, weights = resolve(config, checkpoint)
        self.predictor = Trained(cfg, weights, device)
        self.task: str = self.predictor.about['task']
        model = self.predictor.inferencer.model
        about = describe_pictures(cfg, model)
        name, origin = Path(cfg.filename or config).stem, f'weights of {Path(weights).name}'
        self.network = Network(name, origin, model, model.backbone, about, self.predictor.about['classes'])

    def look(self, file: str | Path) -> Seen:
        """Run the model on a picture, or on the first frame of a video.

        Raises:
            UserError: The file cannot be read.
        """
        path = Path(file)
        try:
            pixels = next(read(Source(path, path.name), self.predictor.read)).pixels
        except Unreadable as error:
            raise UserError(str(error).replace(str(path), path.name)) from None
        return Seen(pixels, self.predictor(pixels))

    def drawn(self, seen: Seen, score_thr: float) -> Image.Image:
        """The picture with its results; of detections those of at least ``score_thr``."""
        return self.predictor.draw(seen.pixels, seen.result, score_thr)

    def rows(self, seen: Seen, score_thr: float) -> list[Row]:
        """The results in words, the surest or largest first."""
        result, predictor = seen.result, self.predictor
        if self.task == 'classification':
            return [Row(predictor.name(i), f'{result["scores"][i]:.1%}', None) for i in result['labels']]
        if self.task == 'segmentation':
            labels, counts = np.unique(result['class_map'], return_counts=True)
            pairs = [(labels[i], f'{counts[i] / result["class_map"].size:.1%}') for i in np.argsort(-counts)]
        else:
            kept = np.flatnonzero(result['scores'] >= score_thr)
            pairs = [(result['labels'][i], f'{result["scores"][i]:.2f}') for i in kept]
        return [Row(predictor.name(label), value, predictor.color(int(label))) for label, value in pairs]

    def heat(self, seen: Seen, score_thr: float) -> tuple[Image.Image | None, str]:
        """Where in the picture the result comes from, as heat over it, and what is explained.

        The heat is the mean over the stages: of a classifier over the last one, of others over all. Without anything to
        explain there is no picture, and the text says why.
        """
        image, model = self.network.prepare(seen.pixels), self.network.model
        try:
            kind = cam.explained_kind(model)
            what = cam.explain(model, image, self.network.classes, min_score=score_thr)
        except (cam.NothingFound, UserError) as nothing:
            return None, str(nothing)
        with hooks.stage_layers(self.network.backbone) as layers:
            chosen = choose_stages(layers, None, kind)
            heat = cam.heat_map(what, list(chosen.values()), image, usual_method(kind))
        return _enlarged(_over(self.network.shown(seen.pixels), heat)), what.title.replace('\n', '; ')

    def stages(self, seen: Seen) -> list[tuple[Image.Image, str]]:
        """Each stage's map, its three principal components as colors, and its channels, width and height in words."""
        image = self.network.prepare(seen.pixels)
        height, width = image.shape[2:]
        with torch.no_grad():
            maps = hooks.run(self.network.backbone, image, self.network.channels_last)
        shown = []
        for stage, found in maps.items():
            count, h, w = found.shape[1:]
            colors, _ = principal_colors(found[0].float().cpu().numpy())
            cells = Image.fromarray((255 * colors).round().astype(np.uint8))
            words = f'stage {stage}: {count} channels, {w}×{h}'
            shown.append((_enlarged(cells.resize((width, height), Image.Resampling.NEAREST)), words))
        return shown


def _over(picture: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Heat (H, W), 0 to 1, over a picture (H, W, 3), gray, so that every color that is seen is heat."""
    from matplotlib import colormaps

    gray = np.repeat((picture @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=2)
    colors = 255 * colormaps['turbo'](heat)[..., :3]
    return Image.fromarray((0.45 * gray + 0.55 * colors).round().astype(np.uint8))


def _enlarged(image: Image.Image) -> Image.Image:
    """At a whole multiple of its size, where it is small."""
    scale = max(1, -(-LEAST_SIDE // max(image.size)))
    size: Sequence[int] = [scale * side for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.NEAREST)
