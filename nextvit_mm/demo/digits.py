"""A small data set that can be learned on a CPU: handwritten digits on photographs.

Digits (the 1,797 of 8×8 pixels that scikit-learn ships) of varied size, place and bright colour lie on darkened crops
of real photographs (the two that scikit-learn ships) and hide one another. The same pictures are written twice: as
COCO 2017 lays out instances, and as ADE20K lays out label maps. Training and validation use different digits.
"""

import colorsys
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLASSES = tuple('0123456789')
MANIFEST = 'digits.json'  # what a folder was made with
VAL_SHARE = 0.2  # of the digits of each class, kept from training
MIN_VISIBLE = 0.8  # share of each digit that the ones on top of it must leave
COCO_SPLITS = dict(train='train2017', val='val2017')
ADE_SPLITS = dict(train='training', val='validation')


@dataclass(frozen=True)
class DigitsConfig:
    """What is made.

    Attributes:
        train, val: Numbers of pictures.
        size: Height and width of a picture, pixels, at least 32.
        min_digits, max_digits: Digits in a picture. Fewer are placed where no more fit without hiding another.
        min_scale, max_scale: Side of a digit over the side of the picture, in (0, 1].
        seed: The same seed, with the same versions of NumPy, scikit-learn and Pillow, gives the same bytes.
    """

    train: int = 800
    val: int = 80
    size: int = 128
    min_digits: int = 3
    max_digits: int = 7
    min_scale: float = 0.2
    max_scale: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (('train', 1), ('val', 1), ('size', 32), ('min_digits', 1), ('seed', 0)):
            if getattr(self, name) < least:
                raise ValueError(f'{name}={getattr(self, name)} must be at least {least}')
        if self.max_digits < self.min_digits:
            raise ValueError(f'max_digits={self.max_digits} is less than min_digits={self.min_digits}')
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(f'min_scale={self.min_scale} and max_scale={self.max_scale} must be ascending in (0, 1]')


class Picture(NamedTuple):
    """One picture: ``image`` (S, S, 3) uint8 RGB, ``labels`` (n,), ``masks`` (n, S, S) bool, disjoint."""

    image: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def make_digits(out_dir: str | Path, config: DigitsConfig = DigitsConfig()) -> bool:
    """Write ``out_dir/coco`` and ``out_dir/ade``, or leave them be where the same has been made already.

    ``coco/``: ``annotations/instances_{train,val}2017.json`` (masks as run-length encoding, because a polygon
    cannot have the hole of a 0), ``{train,val}2017/%012d.jpg``; categories 1 to 10 are the digits 0 to 9.
    ``ade/``: ``images/{training,validation}/ADE_{train,val}_%08d.jpg`` and ``annotations/…png`` with 0 unlabelled
    (unused here), 1 background, 2 to 11 the digits 0 to 9.

    Returns:
        bool: True if the data were made now, False if they were there.

    Raises:
        FileExistsError: ``out_dir`` holds something else, or digits made with other settings.
    """

    def write(root: Path) -> None:
        for split in ('train', 'val'):
            _write_split(root, split, config)

    return make_once(Path(out_dir), asdict(config), write)


def make_once(out_dir: Path, settings: dict, write: Callable[[Path], None]) -> bool:
    """Make a folder of data whole or not at all, or leave it be where it was made with the same settings.

    Args:
        out_dir: The folder.
        settings: What it is made with; kept in it.
        write: Writes the data into the folder that it is given.

    Returns:
        bool: True if the data were made now, False if they were there.

    Raises:
        FileExistsError: ``out_dir`` holds something else, or data made with other settings.
    """
    if out_dir.exists() and any(out_dir.iterdir()):
        try:
            made_with = json.loads((out_dir / MANIFEST).read_text())
        except (OSError, ValueError):
            made_with = None
        if made_with == settings:
            return False
        what = f'digits made with other settings ({made_with})' if made_with else 'something else'
        raise FileExistsError(f'{out_dir} holds {what}: remove it, or choose another folder')
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole, so that what is interrupted leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f'.{out_dir.name}-') as tmp:
        root = Path(tmp) / out_dir.name
        write(root)
        (root / MANIFEST).write_text(json.dumps(settings, indent=2))
        try:
            root.rename(out_dir)  # takes the place of an empty folder, and of no other
        except OSError:
            if not out_dir.is_dir():
                raise
            return make_once(out_dir, settings, write)  # another process was faster: what it made is looked at
    return True


def draw_pictures(split: str, config: DigitsConfig) -> Iterator[Picture]:
    """The pictures of ``'train'`` or ``'val'``, one after the other."""
    digits, labels = load_split(split)
    photos = load_photos()
    rng = np.random.default_rng([config.seed, list(COCO_SPLITS).index(split)])
    for _ in range(getattr(config, split)):
        yield _draw_picture(rng, digits, labels, photos, config)


def load_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 8, 8) images in [0, 1] and (n,) labels of one split: every fifth digit of a class is for validation."""
    from sklearn.datasets import load_digits

    data = load_digits()
    is_val = np.zeros(len(data.target), bool)
    for label in range(len(CLASSES)):
        index = np.flatnonzero(data.target == label)
        is_val[index[:: round(1 / VAL_SHARE)]] = True
    keep = is_val if split == 'val' else ~is_val
    return data.images[keep] / 16, data.target[keep]


def load_photos() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def _draw_picture(
    rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray, photos: list[np.ndarray], config: DigitsConfig
) -> Picture:
    size = config.size
    image = background(rng, photos, size)
    masks: list[np.ndarray] = []
    areas: list[int] = []
    kept: list[int] = []
    wanted = rng.integers(config.min_digits, config.max_digits + 1)
    for _ in range(20 * wanted):  # tries; a crowded picture ends with fewer digits
        if len(kept) == wanted:
            break
        pick = int(rng.integers(len(digits)))
        side = max(8, round(size * rng.uniform(config.min_scale, config.max_scale)))
        top, left = rng.integers(0, size - side + 1, 2)
        ink = resize(digits[pick], side)
        colour = bright_colour(rng)
        mask = np.zeros((size, size), bool)
        mask[top : top + side, left : left + side] = ink > 0.5
        if any((old & ~mask).sum() < MIN_VISIBLE * area for old, area in zip(masks, areas)):
            continue
        paint(image[top : top + side, left : left + side], ink, colour)
        masks = [old & ~mask for old in masks] + [mask]
        areas.append(int(mask.sum()))
        kept.append(pick)
    return Picture(image.round().astype(np.uint8), labels[kept], np.stack(masks))


def background(rng: np.random.Generator, photos: list[np.ndarray], size: int) -> np.ndarray:
    """A square crop of a photograph, perhaps mirrored, darkened, as (size, size, 3) float."""
    photo = photos[rng.integers(len(photos))]
    side = rng.integers(min(photo.shape[:2]) // 3, min(photo.shape[:2]) + 1)
    top, left = (rng.integers(0, n - side + 1) for n in photo.shape[:2])
    crop = photo[top : top + side, left : left + side, :]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    image = np.stack([resize(crop[..., c].astype(float), size) for c in range(3)], axis=-1)
    return np.clip(image * rng.uniform(0.2, 0.6), 0, 255)


def bright_colour(rng: np.random.Generator) -> np.ndarray:
    """A random RGB colour, every channel of which is brighter than nearly all of the darkened background."""
    hue, saturation, value = rng.random(), rng.uniform(0, 0.5), rng.uniform(0.85, 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def paint(patch: np.ndarray, ink: np.ndarray, colour: np.ndarray) -> None:
    """Paint ink (s, s), 0 to 1, onto a patch (s, s, 3) of an image, in place."""
    alpha = np.clip((ink - 0.35) / 0.3, 0, 1)[..., None]  # a soft edge around the mask's, at 0.5
    patch[:] = (1 - alpha) * patch + alpha * colour


def resize(array: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(array.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))


def _write_split(root: Path, split: str, config: DigitsConfig) -> None:
    from PIL import Image
    from tqdm import tqdm

    coco_images = root / 'coco' / COCO_SPLITS[split]
    ade_images, ade_labels = (root / 'ade' / kind / ADE_SPLITS[split] for kind in ('images', 'annotations'))
    annotation_file = root / 'coco' / 'annotations' / f'instances_{COCO_SPLITS[split]}.json'
    for folder in (coco_images, ade_images, ade_labels, annotation_file.parent):
        folder.mkdir(parents=True, exist_ok=True)

    images: list[dict] = []
    annotations: list[dict] = []
    pictures = tqdm(draw_pictures(split, config), f'{split} pictures', total=getattr(config, split), disable=None)
    for number, picture in enumerate(pictures, start=1):
        image = Image.fromarray(picture.image)
        file_name, ade_name = f'{number:012d}.jpg', f'ADE_{split}_{number:08d}'
        image.save(coco_images / file_name, quality=95)
        shutil.copyfile(coco_images / file_name, ade_images / f'{ade_name}.jpg')
        Image.fromarray(_ade_labels(picture)).save(ade_labels / f'{ade_name}.png')
        images.append(dict(id=number, file_name=file_name, height=config.size, width=config.size, license=0))
        annotations += _coco_annotations(picture, number, first_id=len(annotations) + 1)
    annotation_file.write_text(
        json.dumps(
            dict(
                info=dict(description='handwritten digits on photographs, both from scikit-learn', version='1.0'),
                licenses=[dict(id=0, name="scikit-learn's data sets", url='https://scikit-learn.org')],
                images=images,
                annotations=annotations,
                categories=[dict(id=i, name=name, supercategory='digit') for i, name in enumerate(CLASSES, 1)],
            )
        )
    )


def _coco_annotations(picture: Picture, image_id: int, first_id: int) -> list[dict]:
    from pycocotools import mask as coco_mask

    annotations = []
    for i, (label, mask) in enumerate(zip(picture.labels, picture.masks)):
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append(
            dict(
                id=first_id + i,
                image_id=image_id,
                category_id=int(label) + 1,
                bbox=coco_mask.toBbox(rle).tolist(),
                area=int(mask.sum()),
                iscrowd=0,
                segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
            )
        )
    return annotations


def _ade_labels(picture: Picture) -> np.ndarray:
    """(S, S) uint8: 1 background, 2 + digit on the digits."""
    labels = np.ones(picture.image.shape[:2], np.uint8)
    for label, mask in zip(picture.labels, picture.masks):
        labels[mask] = label + 2
    return labels
