"""Pictures to verify and to calibrate an export with: given, or the config's own."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from ..errors import UserError
from ..predict.predictor import find_files, read_picture
from ..training.channels import rule_of
from ..training.preflight import check_data
from ..utils.metainfo import leaf_datasets


def find_paths(cfg: Config, images: str | None, count: int, split: str = 'test') -> tuple[list[Path], str]:
    """Up to ``count`` pictures: a file or those of a folder, else the config's data, which may be none.

    Returns:
        tuple: The files, and where they are from: ``'given'``, ``'config'`` or ``'noise'``.
    """
    if images:
        try:
            paths = find_files([images])
        except OSError as error:
            raise UserError(str(error)) from None
        if not paths[0].is_file():
            raise UserError(f'no pictures at {images}')
        return paths[:count], 'given'
    paths = [Path(path) for path in paths_of_dataset(cfg, split, count)]
    if not paths and split == 'train':
        raise UserError(
            "int8 needs pictures to calibrate with: give --calibration-images DIR, or the config's "
            'training data with --data-root'
        )
    return paths, 'config' if paths else 'noise'


def noise(folder: Path, size: Sequence[int] | None, channels: int = 3) -> Path:
    """A picture of noise: it shows whether a file computes the same where a config has no data here."""
    height, width = size or (256, 320)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(folder / 'noise.png')
    return folder / 'noise.png'


def find_pictures(cfg: Config, images: str | None, count: int) -> tuple[list[np.ndarray], str]:
    """The pictures of :func:`find_paths` themselves, as the test pipeline reads them; none where it finds none."""
    paths, source = find_paths(cfg, images, count)
    rule = rule_of(cfg)
    return [read(path, rule) for path in paths], source


def read(path: str | Path, rule: dict | None = None) -> np.ndarray:
    try:
        return read_picture(path, rule)
    except (OSError, ValueError) as error:
        raise UserError(f'a picture cannot be read: {error}') from None


def size_of(path: str | Path, rule: dict | None = None) -> tuple[int, int]:
    """Height and width of a picture as it is read."""
    return read(path, rule).shape[:2]


def paths_of_dataset(cfg: Config, split: str, count: int) -> list[str]:
    """Up to ``count`` pictures of the config's data, or none where its files are not here."""
    dataset = _dataset(cfg, split)
    if dataset is None:
        return []
    # All over the data: files that lie together are often of one kind.
    picked = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return [dataset.get_data_info(int(i))['img_path'] for i in picked]


def _dataset(cfg: Config, split: str):
    """The config's data set without pictures read, or None where its files are not here."""
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        return None
    only = Config(dict(test_dataloader=loader), filename=cfg.filename)
    try:
        check_data(only, ('test',))
    except UserError:
        return None
    leaf = next(leaf_datasets(loader['dataset']))
    with contextlib.redirect_stdout(io.StringIO()):  # of pycocotools
        return DATASETS.build(dict(leaf, pipeline=[]))
