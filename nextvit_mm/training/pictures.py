"""Pictures that cannot be read: training stops and names the file, or goes on without it and keeps a list."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..errors import UserError

STOP, SKIP = 'stop', 'skip'
LIST = 'bad_pictures.txt'
REMEDY = f'Replace it; or give --bad-pictures {SKIP}, to train without it and keep a list'
OF_VALIDATION = 'Replace it, or take it out of the data set: an evaluation leaves none out'


class BadPictureError(UserError):
    """A picture that cannot be read.

    A loading process hands an error on as text that begins with its own traceback; of it the message is kept.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rsplit(f'{type(self).__name__}: ', 1)[-1].strip())


class GuardedReading:
    """A pipeline's step that reads files, and what happens where it fails.

    Args:
        transform: The step.
        skipped: File that takes the names of pictures left out. Default None: none are left out.
        remedy: What the message says that one can do.

    Raises:
        BadPictureError: The step failed, and the picture is not left out.
    """

    def __init__(self, transform: Callable, skipped: str | None = None, remedy: str = REMEDY) -> None:
        self.transform, self.skipped, self.remedy = transform, skipped, remedy

    def __call__(self, results: dict) -> dict | None:
        try:
            done = self.transform(results)
            _check_sizes(results)
            return done
        except UserError:
            raise
        except Exception as error:
            path = self._bad_file(results)
            if path is None:
                raise
            if self.skipped is None:
                raise BadPictureError(
                    f'{path} cannot be read as a picture ({_why(path, error)}). {self.remedy}'
                ) from None
            with open(self.skipped, 'a') as file:  # one short write, which processes do not mix
                file.write(f'{path}\n')
            return None  # the data set then takes another one in its place

    def _bad_file(self, results: dict) -> str | None:
        """The file that cannot be read; None where the step failed of something else."""
        paths = [results.get(key) for key in ('img_path', 'seg_map_path')]
        return next((path for path in paths if path and not is_picture(path)), None)

    def __repr__(self) -> str:
        return repr(self.transform)

    def __getattr__(self, name: str) -> Any:
        if name == 'transform':
            raise AttributeError(name)
        return getattr(self.transform, name)


class PicturesHook(Hook):
    """Guards the pictures of a run, and says which were left out.

    Args:
        bad_pictures: ``'stop'`` or ``'skip'``, for training; validation always stops.
        interval: Iterations between two looks at the list. Default 50.
    """

    def __init__(self, bad_pictures: str = STOP, interval: int = 50) -> None:
        self.skip, self.interval = bad_pictures == SKIP, interval
        self._told = 0

    def guard_training(self, runner: Runner, dataset: Any) -> None:
        self.list = Path(runner.work_dir, LIST)
        guard(dataset, str(self.list) if self.skip else None)
        self._told = len(self._skipped())

    def before_test(self, runner: Runner) -> None:
        guard(runner.test_dataloader.dataset, remedy=OF_VALIDATION)

    def before_val(self, runner: Runner) -> None:
        guard(runner.val_dataloader.dataset, remedy=OF_VALIDATION)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if self.skip and (runner.iter + 1) % self.interval == 0:
            self._tell(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.skip:
            self._tell(runner)

    @master_only
    def _tell(self, runner: Runner) -> None:
        skipped = self._skipped()
        if len(skipped) > self._told:
            new = list(dict.fromkeys(skipped[self._told :]))
            runner.logger.warning(
                f'{len(skipped) - self._told} times a picture could not be read and was left out, {len(new)} different '
                f'ones, such as {new[-1]}; all are in {self.list}'
            )
            self._told = len(skipped)

    def _skipped(self) -> list[str]:
        return self.list.read_text().splitlines() if self.list.is_file() else []


def guard(dataset: Any, skipped: str | None = None, remedy: str = REMEDY) -> None:
    """Guard every step of a data set, and of those inside it, that reads pictures or label maps."""
    for inner in _data_sets(dataset):
        steps = getattr(getattr(inner, 'pipeline', None), 'transforms', None)
        for i, step in enumerate(steps or ()):
            if type(step).__name__.startswith(('LoadImage', 'LoadAnnotations')):
                steps[i] = GuardedReading(step, skipped, remedy)


def _why(path: str, error: Exception) -> str:
    if os.path.isfile(path) and not os.path.getsize(path):
        return 'the file is empty'
    return ' '.join(f'{type(error).__name__}: {error}'.split())


def _check_sizes(results: dict) -> None:
    """See that a class map has the size of its picture, as that is read: turned by EXIF where the file says so.

    Raises:
        BadPictureError: It has not.
    """
    labels, size = results.get('gt_seg_map'), results.get('ori_shape')
    if labels is None or size is None or labels.shape[:2] == tuple(size[:2]):
        return
    if labels.ndim < 2:
        raise BadPictureError(f'{results.get("seg_map_path")} has a side of one pixel: take its picture out')
    turned = ' (turned, as its EXIF says)' if labels.shape[:2] == tuple(size[1::-1]) else ''
    raise BadPictureError(
        f'{results.get("seg_map_path")} is {labels.shape[1]}×{labels.shape[0]}, and its picture '
        f'{results.get("img_path")} is {size[1]}×{size[0]}{turned}: both need the same size'
    )


def is_picture(path: str) -> bool:
    """Whether a file is there and a picture."""
    try:
        return os.path.isfile(path) and cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) is not None
    except cv2.error:  # of an empty file, and of one whose size is over a limit
        return False


def _data_sets(dataset: Any) -> Iterator[Any]:
    yield dataset
    for inner in [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or [])]:
        if inner is not None and inner is not dataset:
            yield from _data_sets(inner)
