"""From what a command line names to pictures: files, folders, patterns and the frames of videos."""

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..predict.predictor import read_picture
from ..utils.optional import need

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


@dataclass(frozen=True)
class Source:
    """A picture or a video.

    Attributes:
        path: Its file.
        name: What its results are called: the path below the folder that was given, with ``/`` between the parts.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Picture:
    """One picture as it is looked at.

    Attributes:
        source: The name of its source.
        pixels: (H, W, C), uint8, as of :func:`nextvit_mm.predict.predictor.read_picture`.
        frame: Its number in a video, from 0 on.
        frames_per_second: Of the video.
    """

    source: str
    pixels: np.ndarray
    frame: int | None = None
    frames_per_second: float = 0.0

    @property
    def name(self) -> str:
        """Of its source, and for a frame its number: ``clip.mp4#000012``."""
        return self.source if self.frame is None else f'{self.source}#{self.frame:06d}'


class Unreadable(Exception):
    """A file that is no picture or video, or a damaged one."""


def find_sources(inputs: Sequence[str], without: Path | None = None) -> list[Source]:
    """The pictures and videos that are named: files, folders with all below them, and patterns such as ``'*.jpg'``.

    Args:
        inputs: What names them.
        without: A folder below which a given folder is not searched: what an earlier call has drawn.

    Raises:
        UserError: One of them names nothing.
    """
    sources: list[Source] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found = [
                Source(file, file.relative_to(path).as_posix())
                for file in sorted(path.rglob('*'))
                if file.suffix.lower() in PICTURES + VIDEOS and file.is_file() and not _is_below(file, without, path)
            ]
        elif path.is_file():
            found = [Source(path, path.name)]
        else:
            found = [Source(Path(file), Path(file).name) for file in sorted(glob.glob(given, recursive=True))]
            found = [source for source in found if source.path.is_file()]
        if not found:
            what = 'a folder without pictures or videos' if path.is_dir() else 'not found'
            what = 'an address, which is not fetched' if '://' in given else what
            raise UserError(f'{given}: {what}; give pictures ({", ".join(PICTURES)}), videos, folders or patterns')
        sources += found
    return _with_names_of_their_own(sources)


def _is_below(file: Path, folder: Path | None, given: Path) -> bool:
    """Whether a file lies in a folder that is itself below the one that was given."""
    if folder is None:
        return False
    inner = folder.resolve()
    return inner != given.resolve() and inner in file.resolve().parents


def read(source: Source, as_pixels: Callable[[Any], np.ndarray] = read_picture) -> Iterator[Picture]:
    """The picture of a source, or the frames of a video one by one.

    Args:
        source: What to read.
        as_pixels: Makes pixels of a file, and of a frame (H, W, 3), RGB: a predictor's ``read``.

    Raises:
        Unreadable: It cannot be read.
    """
    if source.is_video:
        for frame in _frames(source):
            yield replace(frame, pixels=as_pixels(frame.pixels))
        return
    try:
        yield Picture(source.name, as_pixels(source.path))
    except Exception as error:  # damaged bytes make Pillow fail in any way there is
        raise Unreadable(f'{source.path} cannot be read as a picture: {error}') from None


def count_frames(source: Source) -> int:
    """Frames of a video as its file tells, 1 for a picture; at least 1."""
    if not source.is_video:
        return 1
    cv2 = need('cv2', 'reading videos')
    return max(1, int(cv2.VideoCapture(str(source.path)).get(cv2.CAP_PROP_FRAME_COUNT)))


def _frames(source: Source) -> Iterator[Picture]:
    cv2 = need('cv2', 'reading videos')
    video = cv2.VideoCapture(str(source.path))
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    number = 0
    try:
        while True:
            there, frame = video.read()
            if not there:
                break
            yield Picture(source.name, np.ascontiguousarray(frame[..., ::-1]), number, rate)
            number += 1
    finally:
        video.release()
    if not number:
        raise Unreadable(f'{source.path} cannot be read as a video, or has no frame')


def _with_names_of_their_own(sources: list[Source]) -> list[Source]:
    """Sources of one name, from two folders, told apart by a number; a source named twice is taken once."""
    taken: dict[str, int] = {}
    files: set[Path] = set()
    result = []
    for source in sources:
        if source.path.resolve() in files:
            continue
        files.add(source.path.resolve())
        # Drawn pictures are all PNG, so that a.jpg and a.png would come to lie on one another.
        stem = source.name.rsplit('.', 1)[0]
        taken[stem] = taken.get(stem, 0) + 1
        if taken[stem] > 1:
            suffix = source.name[len(stem) :]
            source = Source(source.path, f'{stem}-{taken[stem]}{suffix}')
        result.append(source)
    return result
