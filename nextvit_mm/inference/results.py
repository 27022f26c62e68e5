"""Results as files: COCO's format for all three tasks, class maps as PNG, drawn pictures and videos."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..predict.predictor import Predictor
from ..utils.files import write_text
from ..utils.optional import need
from .sources import Picture

MASKS = 'masks'  # folder of class maps


class CocoFile:
    """Results in COCO's format: ``images``, ``categories`` and ``annotations`` with a ``score`` each.

    A class has the number of its place in the list of classes, from 1 on. A segmentor's annotations are the regions of
    a class as run-length masks. A classifier's are its best classes, without boxes.
    """

    def __init__(self, predictor: Predictor, score_thr: float) -> None:
        self.predictor, self.score_thr = predictor, score_thr
        self.images: list[dict] = []
        self.annotations: list[dict] = []

    def add(self, picture: Picture, result: dict[str, Any]) -> None:
        height, width = picture.pixels.shape[:2]
        self.images.append(dict(id=len(self.images) + 1, file_name=picture.name, height=height, width=width))
        rows = dict(detection=self._objects, segmentation=self._regions, classification=self._classes)
        for label, row in rows[self.predictor.about['task']](result):
            self.annotations.append(
                dict(
                    id=len(self.annotations) + 1,
                    image_id=len(self.images),
                    category_id=int(label) + 1,
                    iscrowd=0,
                    **row,
                )
            )

    def save(self, path: Path) -> None:
        seen = max((row['category_id'] for row in self.annotations), default=0)
        names = self.predictor.about.get('classes') or [self.predictor.name(label) for label in range(seen)]
        categories = [dict(id=i, name=str(name)) for i, name in enumerate(names, start=1)]
        content = dict(images=self.images, categories=categories, annotations=self.annotations)
        write_text(path, json.dumps(content))

    def _objects(self, result: dict[str, Any]):
        for i in np.flatnonzero(result['scores'] >= self.score_thr):
            x1, y1, x2, y2 = (round(float(value), 2) for value in result['boxes'][i])
            row = dict(
                bbox=[x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                score=round(float(result['scores'][i]), 5),
                area=round((x2 - x1) * (y2 - y1), 2),
            )
            if 'masks' in result:
                row.update(_run_lengths(result['masks'][i]))
            yield result['labels'][i], row

    def _regions(self, result: dict[str, Any]):
        for label in np.unique(result['class_map']):
            mask = result['class_map'] == label
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = int(columns[0]), int(rows[0])
            bbox = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
            yield label, dict(bbox=bbox, **_run_lengths(mask))

    def _classes(self, result: dict[str, Any]):
        for label in result['labels']:
            yield label, dict(score=round(float(result['scores'][label]), 5))


class Folder:
    """A folder of drawn pictures, of class maps where a segmentor makes them, and of drawn videos.

    Raises:
        UserError: It cannot be written.
    """

    def __init__(self, path: Path, predictor: Predictor, score_thr: float) -> None:
        self.path, self.predictor, self.score_thr = path, predictor, score_thr
        self.written: list[Path] = []
        self._video: Any = None
        self._video_size: tuple[int, int] = (0, 0)

    def add(self, picture: Picture, result: dict[str, Any]) -> None:
        drawn = self.predictor.draw(picture.pixels, result, self.score_thr)
        number = '' if picture.frame is None else f'_{picture.frame:06d}'
        if number:
            video = self.path / _with_suffix(picture.source, '.mp4')
            self._add_frame(video, np.asarray(drawn), picture.frames_per_second)
        else:
            self._save(drawn, self.path / _with_suffix(picture.source, '.png'))
        if self.predictor.about['task'] == 'segmentation':
            mask = self.path / MASKS / _with_suffix(picture.source, f'{number}.png')
            self._save(self._class_map(result['class_map']), mask)

    def end_source(self) -> None:
        """After a source's last picture: a video's file is complete."""
        if self._video is not None:
            self._video.release()
            self._video = None

    def _class_map(self, class_map: np.ndarray) -> Image.Image:
        """The class of each pixel as its number, with the classes' colors as palette where 8 bits hold them."""
        if class_map.max() > 255:
            return Image.fromarray(class_map.astype(np.uint16))
        image = Image.fromarray(class_map.astype(np.uint8), mode='P')
        count = max(int(class_map.max()) + 1, len(self.predictor.about.get('classes') or ()))
        image.putpalette([value for label in range(min(count, 256)) for value in self.predictor.color(label)])
        return image

    def _save(self, image: Image.Image, path: Path) -> None:
        _parent(path)
        try:
            image.save(path)
        except OSError as error:
            raise UserError(f'{path} cannot be written: {error.strerror or error}') from None
        self.written.append(path)

    def _add_frame(self, path: Path, pixels: np.ndarray, rate: float) -> None:
        cv2 = need('cv2', 'writing videos')
        if self._video is None:
            _parent(path)
            self._video_size = pixels.shape[1::-1]
            self._video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, self._video_size)
            if not self._video.isOpened():
                raise UserError(f'{path} cannot be written as a video')
            self.written.append(path)
        if pixels.shape[1::-1] != self._video_size:  # a legend beside the picture is as wide as its longest line
            canvas = np.full((*self._video_size[::-1], 3), 255, np.uint8)
            height, width = (min(a, b) for a, b in zip(canvas.shape, pixels.shape[:2]))
            canvas[:height, :width] = pixels[:height, :width]
            pixels = canvas
        self._video.write(np.ascontiguousarray(pixels[..., ::-1]))


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length mask, and its area."""
    coder = need('pycocotools.mask', 'writing masks into a JSON file')
    encoded = coder.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(
        segmentation=dict(size=list(encoded['size']), counts=encoded['counts'].decode()), area=int(coder.area(encoded))
    )


def _with_suffix(name: str, suffix: str) -> str:
    return name.rsplit('.', 1)[0] + suffix


def _parent(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f'{path.parent} cannot be made: {error.strerror}') from None
