"""The demo's digits as a classification set: one digit on a photograph, in a folder of ImageNet's layout.

Digits, photographs and split are those of :mod:`nextvit_mm.demo.digits`: validation has digits, written by
whoever wrote scikit-learn's, that training never saw.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .digits import CLASSES, background, bright_colour, load_photos, load_split, make_once, paint, resize

SPLITS = ('train', 'val')


@dataclass(frozen=True)
class DigitClassesConfig:
    """What is made.

    Attributes:
        train, val: Numbers of pictures. Every digit of a split is drawn equally often, give or take one.
        size: Height and width of a picture, pixels, at least 32.
        min_scale, max_scale: Side of the digit over the side of the picture, in (0, 1].
        seed: The same seed, with the same versions of NumPy, scikit-learn and Pillow, gives the same bytes.
    """

    train: int = 2880
    val: int = 360
    size: int = 64
    min_scale: float = 0.5
    max_scale: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (('train', len(CLASSES)), ('val', len(CLASSES)), ('size', 32), ('seed', 0)):
            if getattr(self, name) < least:
                raise ValueError(f'{name}={getattr(self, name)} must be at least {least}')
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(f'min_scale={self.min_scale} and max_scale={self.max_scale} must be ascending in (0, 1]')


class LabelledPicture(NamedTuple):
    """One picture: ``image`` (S, S, 3) uint8 RGB, and ``label``, the digit on it."""

    image: np.ndarray
    label: int


def make_digit_classes(out_dir: str | Path, config: DigitClassesConfig = DigitClassesConfig()) -> bool:
    """Write ``out_dir/{train,val}/{0..9}/*.jpg``, or leave it be where the same has been made already.

    Returns:
        bool: True if the data were made now, False if they were there.

    Raises:
        FileExistsError: ``out_dir`` holds something else, or digits made with other settings.
    """

    def write(root: Path) -> None:
        for split in SPLITS:
            _write_split(root / split, split, config)

    return make_once(Path(out_dir), asdict(config), write)


def draw_labelled(split: str, config: DigitClassesConfig) -> Iterator[LabelledPicture]:
    """The pictures of ``'train'`` or ``'val'``, one after the other."""
    digits, labels = load_split(split)
    photos = load_photos()
    rng = np.random.default_rng([config.seed, SPLITS.index(split)])
    picks = _in_turn(labels, rng)
    for number in range(getattr(config, split)):
        pick = picks[number % len(picks)]
        yield LabelledPicture(_draw(rng, digits[pick], photos, config), int(labels[pick]))


def _in_turn(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The digits' places in random order with the classes in turn, so that the first few are already of all classes."""
    order = rng.permutation(len(labels))
    turns = np.empty(len(labels), int)
    for label in range(len(CLASSES)):
        turns[order[labels[order] == label]] = np.arange((labels == label).sum())
    return order[np.argsort(turns[order], kind='stable')]


def _draw(rng: np.random.Generator, digit: np.ndarray, photos, config: DigitClassesConfig) -> np.ndarray:
    image = background(rng, photos, config.size)
    side = max(8, round(config.size * rng.uniform(config.min_scale, config.max_scale)))
    top, left = rng.integers(0, config.size - side + 1, 2)
    paint(image[top : top + side, left : left + side], resize(digit, side), bright_colour(rng))
    return image.round().astype(np.uint8)


def _write_split(folder: Path, split: str, config: DigitClassesConfig) -> None:
    from PIL import Image
    from tqdm import tqdm

    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    pictures = tqdm(draw_labelled(split, config), f'{split} pictures', total=getattr(config, split), disable=None)
    for number, picture in enumerate(pictures, start=1):
        Image.fromarray(picture.image).save(folder / CLASSES[picture.label] / f'{split}_{number:08d}.jpg', quality=95)
