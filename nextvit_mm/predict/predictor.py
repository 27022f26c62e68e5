"""Run an exported model on a picture: NumPy, Pillow and ONNX Runtime or OpenVINO, nothing else.

This file needs no other one of the project, and neither torch nor any MM package: copy it beside the exported model and
its ``.json``, and import it or run ``python runner.py MODEL PICTURE --out DRAWN.png``.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

FORMAT = 1  # of the .json beside a model
TOP = 5  # classes of a classifier's result


class Placed(NamedTuple):
    """A picture as the model gets it, and how it lies in the original.

    Attributes:
        tensor: (1, 3, H, W), float32.
        original: Height and width of the picture.
        resized: Height and width after resizing, before padding or cropping.
    """

    tensor: np.ndarray
    original: tuple[int, int]
    resized: tuple[int, int]


class Predictor:
    """An exported model and the ``.json`` beside it.

    Args:
        path: ``.onnx`` (ONNX Runtime) or ``.xml`` (OpenVINO).
        threads: CPU threads. Default: the runtime's choice.
        precision: OpenVINO's inference precision, ``'f32'``, ``'bf16'`` or ``'f16'``. Default ``'f32'``.

    Raises:
        FileNotFoundError: The model or its ``.json`` is missing.
        ValueError: The file is of another kind, or its ``.json`` was not written by ``tools/export.py``.
    """

    def __init__(self, path: str | Path, threads: int | None = None, precision: str | None = None) -> None:
        self.path = Path(path)
        self.about = read_about(self.path)
        self.session = open_session(self.path, threads, precision)

    def __call__(self, picture: str | Path | np.ndarray) -> dict[str, Any]:
        """Results of one picture, a file or an RGB array (H, W, 3) of uint8, in pixels of that picture.

        Returns:
            dict: By task. Detection: ``boxes`` (K, 4) as x1, y1, x2, y2, ``scores`` (K), ``labels`` (K), ``masks``
            (K, H, W) of bool where the model has them; the best first. Segmentation: ``class_map`` (H, W).
            Classification: ``scores`` (classes), ``labels``, the best five first. Backbone: ``maps``, a list.
        """
        picture = read_picture(picture)
        placed = place(picture, self.about)
        return self.interpret(self.session(placed.tensor), placed)

    def interpret(self, outputs: list[np.ndarray], placed: Placed) -> dict[str, Any]:
        """The model's outputs as results in pixels of the original picture."""
        task = self.about['task']
        if task == 'detection':
            return self._detections(dict(zip(self.about['outputs'], outputs)), placed)
        if task == 'segmentation':
            height, width = placed.resized
            return dict(class_map=nearest(outputs[0][0, :height, :width], placed.original))
        if task == 'classification':
            scores = outputs[0][0]
            return dict(scores=scores, labels=np.argsort(-scores, kind='stable')[:TOP])
        return dict(maps=outputs)

    def _detections(self, outputs: dict[str, np.ndarray], placed: Placed) -> dict[str, Any]:
        (height, width), (rows, columns) = placed.original, placed.resized
        boxes = outputs['boxes'] * np.array(2 * [width / columns, height / rows], np.float32)
        boxes = boxes.clip(0, np.array(2 * [width, height], np.float32))  # of a padded picture, into the picture
        result = dict(boxes=boxes, scores=outputs['scores'], labels=outputs['labels'])
        if 'masks' in outputs:
            threshold = self.about['test_cfg']['mask_thr_binary']
            result['masks'] = np.array(
                [paste_mask(mask, box, placed.original) >= threshold for mask, box in zip(outputs['masks'], boxes)],
                bool,
            ).reshape(-1, height, width)
        return result

    def draw(self, picture: str | Path | np.ndarray, result: dict[str, Any], score_thr: float = 0.3) -> Image.Image:
        """The picture with its results; of detections those of at least ``score_thr``."""
        picture = read_picture(picture)
        if self.about['task'] == 'detection':
            return self._draw_detections(picture, result, score_thr)
        if self.about['task'] == 'segmentation':
            return self._draw_class_map(picture, result['class_map'])
        if self.about['task'] == 'classification':
            lines = [f'{self.name(label)}  {result["scores"][label]:.1%}' for label in result['labels']]
            return _beside(Image.fromarray(picture), [(line, None) for line in lines])
        return Image.fromarray(np.concatenate([_tile(m[0], picture.shape[0]) for m in result['maps']], axis=1))

    def name(self, label: int) -> str:
        classes = self.about.get('classes')
        return classes[label] if classes else f'class {label}'

    def color(self, label: int) -> tuple[int, int, int]:
        palette = self.about.get('palette')
        if palette:
            red, green, blue = palette[label]
        else:  # hues a golden angle apart stay apart, however many classes there are
            hue = Image.new('HSV', (1, 1), (int(label * 97.3) % 256, 200, 230))
            red, green, blue = hue.convert('RGB').tobytes()
        return red, green, blue

    def _draw_detections(self, picture: np.ndarray, result: dict[str, Any], score_thr: float) -> Image.Image:
        kept = np.flatnonzero(result['scores'] >= score_thr)
        scale = max(1, -(-400 // min(picture.shape[:2])))  # labels on a small picture would cover it
        pixels = picture.astype(np.float32)
        for i in kept:
            if 'masks' in result:
                mask = result['masks'][i]
                pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array(self.color(result['labels'][i]))
        drawn = Image.fromarray(pixels.astype(np.uint8)).resize(
            [scale * n for n in picture.shape[1::-1]], Image.Resampling.NEAREST
        )
        pen, font = ImageDraw.Draw(drawn), _font()
        for i in kept:
            label, box = int(result['labels'][i]), (scale * result['boxes'][i]).tolist()
            pen.rectangle(box, outline=self.color(label), width=2)
            text = f'{self.name(label)} {result["scores"][i]:.2f}'
            left, top, right, bottom = pen.textbbox(box[:2], text, font=font)
            pen.rectangle((left, top, right + 2, bottom + 2), fill=self.color(label))
            dark = np.dot(self.color(label), (0.299, 0.587, 0.114)) < 128
            pen.text(box[:2], text, fill='white' if dark else 'black', font=font)
        return drawn

    def _draw_class_map(self, picture: np.ndarray, class_map: np.ndarray) -> Image.Image:
        labels, counts = np.unique(class_map, return_counts=True)
        pixels = picture.astype(np.float32)
        for label in labels:
            pixels[class_map == label] = 0.5 * pixels[class_map == label] + 0.5 * np.array(self.color(label))
        order = np.argsort(-counts)
        lines = [(f'{self.name(labels[i])}  {counts[i] / class_map.size:.1%}', self.color(labels[i])) for i in order]
        return _beside(Image.fromarray(pixels.astype(np.uint8)), lines)


def about_file(path: Path) -> Path:
    """Where a model's description is: ``model.onnx.json`` beside ``model.onnx``."""
    return path.with_name(path.name + '.json')


def read_about(path: Path) -> dict[str, Any]:
    """The ``.json`` that ``tools/export.py`` wrote beside a model."""
    about = about_file(path)
    for file in (path, about):
        if not file.exists():
            raise FileNotFoundError(
                f'{file} is missing: tools/export.py writes a model and its .json; keep them together'
            )
    try:
        found = json.loads(about.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{about} is not JSON: {error}') from None
    if not isinstance(found, dict) or found.get('format') != FORMAT:
        raise ValueError(f'{about} was not written by tools/export.py, or by another version of it: export again')
    return found


def open_session(
    path: str | Path, threads: int | None = None, precision: str | None = None, device: str | None = None
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Load ``.onnx`` in ONNX Runtime or ``.xml`` in OpenVINO.

    Args:
        path: The model file.
        threads: CPU threads. Default: the runtime's choice.
        precision: OpenVINO's inference precision, ``'f32'``, ``'bf16'`` or ``'f16'``. Default ``'f32'``.
        device: ``'cpu'``, or None for ONNX Runtime's CUDA where it has it. OpenVINO runs on the CPU.

    Returns:
        A function from one input array to the list of the model's outputs.

    Raises:
        ValueError: The file is neither.
    """
    path = Path(path)
    if path.suffix == '.onnx':
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        wanted = ('CUDAExecutionProvider', 'CPUExecutionProvider') if device is None else ('CPUExecutionProvider',)
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        name = session.get_inputs()[0].name
        return lambda array: session.run(None, {name: array})
    if path.suffix == '.xml':
        import openvino

        settings: dict[str, Any] = {'INFERENCE_PRECISION_HINT': precision or 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
        if threads:
            settings['INFERENCE_NUM_THREADS'] = threads
        model = openvino.Core().compile_model(str(path), 'CPU', settings)
        request = model.create_infer_request()

        def run(array: np.ndarray) -> list[np.ndarray]:
            # A result's memory is the request's, and the next call's result would come over it.
            results = request.infer({0: array})
            return [np.array(results[output]) for output in model.outputs]

        return run
    raise ValueError(f'{path} is neither an .onnx nor an .xml file')


def read_picture(picture: str | Path | np.ndarray) -> np.ndarray:
    """A file, or an array as it is: (H, W, 3), RGB, uint8."""
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(f'a picture must be (H, W, 3) of uint8, not {picture.shape} of {picture.dtype}')
        return picture
    with Image.open(picture) as image:
        # Cameras note which way up a picture is; what reads pictures for training turns them, too.
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))


def place(picture: np.ndarray, about: dict[str, Any]) -> Placed:
    """Resize, crop or pad and, where the model does not do it itself, normalise an RGB picture for a model.

    Args:
        picture: (H, W, 3) of uint8.
        about: The content of the model's ``.json``.
    """
    rule, spec = about['resize'], about['input']
    original = picture.shape[:2]
    resized = resized_size(original, rule)
    picture = resize(picture, resized, rule['interpolation'])
    if 'center_crop' in rule:
        picture = center_crop(picture, rule['center_crop'])
    if spec['color'] == 'BGR':
        picture = picture[..., ::-1]
    mean, std = (np.array(spec[key], np.float32) for key in ('mean', 'std'))
    pixels = picture.astype(np.float32)
    if not spec['normalized_inside']:
        pixels = (pixels - mean) / std
    if 'canvas' in rule:  # what is added is the mean color, which is 0 after normalisation
        canvas = np.empty((*rule['canvas'], 3), np.float32)
        canvas[:] = mean if spec['normalized_inside'] else 0
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        pixels = canvas
    return Placed(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), original, resized)


def resized_size(original: tuple[int, int], rule: dict[str, Any]) -> tuple[int, int]:
    """Height and width to which a picture is resized.

    ``rule`` has one of ``long_short`` (the largest size whose long and short sides are at most these, ratio kept, as
    MM's ``Resize`` with two numbers), ``factor``, ``short_edge``, ``canvas`` (the largest that fits into this height
    and width, ratio kept) and ``exact`` (height and width, ratio not kept).
    """
    height, width = original
    if 'exact' in rule:
        return tuple(rule['exact'])
    if 'long_short' in rule:
        long, short = rule['long_short']
        factor = min(long / max(original), short / min(original))
    elif 'canvas' in rule:
        factor = min(rule['canvas'][0] / height, rule['canvas'][1] / width)
        return tuple(min(side, max(1, int(n * factor + 0.5))) for side, n in zip(rule['canvas'], original))
    elif 'short_edge' in rule:  # the long side rounded down, as torchvision and MMPretrain do
        short = rule['short_edge']
        return (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    else:
        factor = rule['factor']
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize(picture: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """(H, W, 3) of uint8 to ``size``: ``'bilinear'`` as OpenCV does it, ``'bicubic'`` as Pillow."""
    if picture.shape[:2] == tuple(size):
        return picture
    if interpolation == 'bicubic':
        return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    # In OpenCV's fixed-point arithmetic, weights of 11 bits, so that the colors are those that the model was tested on.
    (top, bottom, above, below), (left, right, before, after) = (
        _neighbors(new, old) for new, old in zip(size, picture.shape)
    )
    pixels = picture.astype(np.int32)
    across = (pixels[:, left] * before[:, None] + pixels[:, right] * after[:, None]) >> 4
    above, below = above[:, None, None], below[:, None, None]
    mixed = (((above * across[top]) >> 16) + ((below * across[bottom]) >> 16) + 2) >> 2
    return mixed.clip(0, 255).astype(np.uint8)


def nearest(class_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) to ``size``, every pixel from the nearest one: centers onto centers."""
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip(size, class_map.shape))
    return class_map[rows.astype(int)[:, None], columns.astype(int)]


def center_crop(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = (round((old - new) / 2) for old, new in zip(picture.shape, size))
    return picture[top : top + size[0], left : left + size[1]]


def paste_mask(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(m, m) probabilities of a box, bilinear between their centers, into a picture of ``size``: 0 outside the box."""
    canvas = np.zeros(size, np.float32)
    x1, y1, x2, y2 = (float(value) for value in box)
    top, bottom = max(int(np.floor(y1)), 0), min(int(np.ceil(y2)), size[0])
    left, right = max(int(np.floor(x1)), 0), min(int(np.ceil(x2)), size[1])
    if x2 <= x1 or y2 <= y1 or bottom <= top or right <= left:
        return canvas
    m = mask.shape[0]
    padded = np.pad(mask, 1)  # outside, a mask fades to 0 within half a cell
    rows = np.clip((np.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * m + 0.5, 0, m + 1)
    columns = np.clip((np.arange(left, right) + 0.5 - x1) / (x2 - x1) * m + 0.5, 0, m + 1)
    i, j = np.minimum(rows.astype(int), m), np.minimum(columns.astype(int), m)
    across = _mix(padded[:, j], padded[:, j + 1], (columns - j)[None])
    canvas[top:bottom, left:right] = _mix(across[i], across[i + 1], (rows - i)[:, None])
    return canvas


def _neighbors(new: int, old: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For every new pixel the two old ones around its center, and the weight of each in 2048ths."""
    position = ((np.arange(new) + 0.5) * (old / new) - 0.5).clip(0, old - 1).astype(np.float32)
    first = np.floor(position).astype(int)
    share = position - first
    return (
        first,
        np.minimum(first + 1, old - 1),
        np.rint((1 - share) * 2048).astype(np.int32),
        np.rint(share * 2048).astype(np.int32),
    )


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + (second - first) * share


def _font() -> Any:
    try:
        return ImageFont.load_default(14)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


def _tile(channels: np.ndarray, side: int) -> np.ndarray:
    """The mean over the channels of (C, h, w) as a gray square of ``side`` pixels."""
    mean = channels.mean(0)
    gray = (255 * (mean - mean.min()) / max(float(np.ptp(mean)), 1e-12)).astype(np.uint8)
    return np.asarray(Image.fromarray(gray).resize((side, side), Image.Resampling.NEAREST).convert('RGB'))


def _beside(image: Image.Image, lines: list[tuple[str, tuple[int, int, int] | None]]) -> Image.Image:
    """A legend to the right of a picture, each line with the color that it explains."""
    scale = max(1, -(-256 // image.height))
    image = image.resize((scale * image.width, scale * image.height), Image.Resampling.NEAREST)
    lines = lines[: max(1, image.height // 16)]
    width = int(max(ImageDraw.Draw(image).textlength(text) for text, _ in lines)) + 32
    drawn = Image.new('RGB', (image.width + width, image.height), 'white')
    drawn.paste(image)
    pen = ImageDraw.Draw(drawn)
    for row, (text, color) in enumerate(lines):
        left, top = image.width + 6, 4 + 16 * row
        if color:
            pen.rectangle((left, top, left + 12, top + 12), fill=color)
        pen.text((left + 18, top), text, fill='black')
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description='Run an exported model on a picture.')
    parser.add_argument('model', type=Path, help='.onnx or .xml, with its .json beside it')
    parser.add_argument('picture', type=Path)
    parser.add_argument('--out', type=Path, metavar='FILE.png', help='draw the result into this file')
    parser.add_argument('--score-thr', type=float, default=0.3, help='of the detections that are shown (default: 0.3)')
    parser.add_argument('--threads', type=int, help="CPU threads (default: the runtime's choice)")
    args = parser.parse_args()
    try:
        runner = Predictor(args.model, args.threads)
        result = runner(args.picture)
        for line in describe(runner, result, args.score_thr):
            print(line)
        if args.out:
            runner.draw(args.picture, result, args.score_thr).save(args.out)
            print(f'drawn into {args.out}')
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f'{parser.prog}: {error}\n')


def describe(runner: Predictor, result: dict[str, Any], score_thr: float) -> list[str]:
    """A result in lines of text."""
    task = runner.about['task']
    if task == 'detection':
        kept = np.flatnonzero(result['scores'] >= score_thr)
        lines = [
            f'{runner.name(result["labels"][i])} {result["scores"][i]:.3f} at '
            + ', '.join(f'{value:.1f}' for value in result['boxes'][i])
            for i in kept
        ]
        return lines or [f'nothing with a score of {score_thr} or more']
    if task == 'segmentation':
        labels, counts = np.unique(result['class_map'], return_counts=True)
        return [f'{runner.name(labels[i])} {counts[i] / result["class_map"].size:.1%}' for i in np.argsort(-counts)]
    if task == 'classification':
        return [f'{runner.name(label)} {result["scores"][label]:.1%}' for label in result['labels']]
    return [f'{name}: {array.shape}' for name, array in zip(runner.about['outputs'], result['maps'])]


if __name__ == '__main__':
    main()
