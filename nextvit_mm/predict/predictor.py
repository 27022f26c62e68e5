"""Run an exported model on pictures: NumPy, Pillow and ONNX Runtime or OpenVINO, nothing else.

This file needs no other one of the project, and neither torch nor any MM package: copy it beside the exported model and
its ``.json``, and import it or run ``python predictor.py MODEL PICTURE --out DRAWN.png``.
"""

import argparse
import io
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

FORMAT = 2  # of the .json beside a model
TOP = 5  # classes of a classifier's result
PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
WORKERS = 2  # threads that read, paste and draw beside the network
FIRST_SIDE = 128  # pixels of the picture that a session of OpenVINO gets first
AHEAD = 4  # pictures that are read before the network asks for them

Session = Callable[[np.ndarray], list[np.ndarray]]


class Input(TypedDict, total=False):
    """The tensor that a model takes; all keys are there in an exported one's ``.json``.

    Attributes:
        name: In the file.
        layout, dtype: Of the tensor: ``'NCHW'``, ``'float32'``.
        channels: C.
        size: H and W; None where a picture's size decides.
        dynamic: What may differ from call to call: ``'batch'``, ``'size'``.
        normalized_inside: Whether the model takes pixels from 0 to 255 and normalises them itself.
        color: ``'RGB'``, ``'BGR'`` or ``'gray'``, the order of the channels.
        mean, std: Of each channel, for pixels from 0 to 255.
    """

    name: str
    layout: str
    dtype: str
    channels: int
    size: list[int] | None
    dynamic: list[str]
    normalized_inside: bool
    color: str
    mean: list[float]
    std: list[float]


class About(TypedDict, total=False):
    """What is known of a model, once its config was read: the content of the ``.json`` beside an exported one.

    Attributes:
        format: Of the ``.json``; another one is refused.
        task: ``'detection'``, ``'segmentation'``, ``'classification'`` or ``'backbone'``.
        input: The tensor.
        read: How a picture is read, as :func:`read_picture` takes it.
        steps: What is done with it then, as :func:`place` does it.
        outputs: Names in the file, in order.
        classes: Names; None where the model has none. A backbone has no such key.
        palette: A color of three values for each class, in RGB.
        test_cfg: Of a detector: ``score_thr``, ``max_per_img``, ``mask_thr_binary``.
        multi_label: Of a classifier of many labels a picture: the ``threshold`` or the number ``top`` that count.
        versions: Of packages.
        exported: What was asked for.
        pictures: Whose pictures it was compared with (``test``), and quantised with (``train``).
        file: Format, opset and such.
        compared: Figures of the comparison with PyTorch, or why there are none.
        evaluated: Metrics of both, where they were asked for.
        tensorrt: Operators that its list does not have.
    """

    format: int
    task: str
    input: Input
    read: dict[str, Any]
    steps: list[dict[str, Any]]
    outputs: list[str]
    classes: list[str] | None
    palette: list[list[int]] | None
    test_cfg: dict[str, Any]
    multi_label: dict[str, Any]
    versions: dict[str, str]
    exported: dict[str, Any]
    pictures: dict[str, str]
    file: dict[str, Any]
    compared: dict[str, Any]
    evaluated: dict[str, Any]
    tensorrt: dict[str, Any]


class Placed(NamedTuple):
    """A picture as the model gets it, and how it lies in the original.

    Attributes:
        tensor: (1, C, H, W), float32; C is 3 of most models.
        original: Height and width of the picture.
        resized: Height and width after resizing, before padding or cropping.
        scale: Of height and width, by the last resizing.
    """

    tensor: np.ndarray
    original: tuple[int, int]
    resized: tuple[int, int]
    scale: tuple[float, float]


class Predictor:
    """An exported model and the ``.json`` beside it.

    Args:
        path: ``.onnx`` (ONNX Runtime) or ``.xml`` (OpenVINO).
        threads: CPU threads. Default: the runtime's choice.
        precision: OpenVINO's inference precision, ``'f32'``, ``'bf16'`` or ``'f16'``. Default ``'f32'``.
        session: What runs the model, from an input array to a list of outputs. Default: :func:`open_session`.
        about: The content of the ``.json``. Default: it is read.

    Raises:
        FileNotFoundError: The model or its ``.json`` is missing.
        ValueError: The file is of another kind, or its ``.json`` was not written by ``tools/export.py``.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        precision: str | None = None,
        session: Session | None = None,
        about: About | None = None,
    ) -> None:
        self.path = Path(path)
        self.about = about or read_about(self.path)
        try:
            self.session = session or open_session(self.path, threads, precision)
        except (ImportError, OSError, ValueError):
            raise
        except Exception as error:  # each runtime has classes of its own
            cause = (str(error).split('\n\n')[0].strip().splitlines() or [type(error).__name__])[-1]
            raise ValueError(f'{self.path} cannot be opened, since it is damaged or not whole: {cause}') from None

    def __call__(self, picture: str | Path | np.ndarray) -> dict[str, Any]:
        """Results of one picture, a file or an array as of :func:`read_picture`, in pixels of that picture.

        Returns:
            dict: By task. Detection: ``boxes`` (K, 4) as x1, y1, x2, y2, ``scores`` (K), ``labels`` (K), ``masks``
            (K, H, W) of bool where the model has them; the best first. Segmentation: ``class_map`` (H, W).
            Classification: ``scores`` (classes), and ``labels``, the best first: the best five, or of a model of many
            labels a picture those that it finds. Backbone: ``maps``, a list.

        Raises:
            OSError, ValueError: The picture cannot be read, or the model does not take its size.
        """
        placed = self.place(picture)
        return self.interpret(self.run(placed), placed)

    def run(self, placed: Placed) -> list[np.ndarray]:
        """The model's outputs for a picture."""
        try:
            return self.session(placed.tensor)
        except Exception as error:  # each runtime has errors of its own
            height, width = placed.tensor.shape[2:]
            cause = (str(error).strip().splitlines() or [''])[-1][:200]
            raise ValueError(f'the model does not run on an input of {height}x{width} ({cause})') from error

    def stream(
        self,
        pictures: Iterable[str | Path | np.ndarray],
        after: Callable[[Any, dict[str, Any]], Any] | None = None,
        on_error: Callable[[Any, Exception], None] | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """Each picture with its result, in order. Reading and pasting run in threads beside the network.

        Args:
            pictures: Files or arrays, as one by one.
            after: What is done with a picture and its result in a thread, such as drawing. What it returns is given
                instead of the result.
            on_error: Called with a picture that cannot be read and the error, and the rest goes on. Default: it is
                raised.
        """
        sources = iter(pictures)
        with ThreadPoolExecutor(WORKERS) as pool:
            placed = deque((item, pool.submit(self.place, item)) for item in itertools.islice(sources, AHEAD))
            done: deque[tuple[Any, Future]] = deque()
            while placed:
                item, future = placed.popleft()
                placed.extend((new, pool.submit(self.place, new)) for new in itertools.islice(sources, 1))
                try:
                    ready = future.result()
                    outputs = self.run(ready)
                except (OSError, ValueError) as error:
                    if on_error is None:
                        raise
                    on_error(item, error)
                    continue
                done.append((item, pool.submit(self._finish, item, outputs, ready, after)))
                while len(done) > AHEAD:
                    yield done[0][0], done.popleft()[1].result()
            while done:
                yield done[0][0], done.popleft()[1].result()

    def _finish(self, item: Any, outputs: list[np.ndarray], placed: Placed, after: Callable | None) -> Any:
        result = self.interpret(outputs, placed)
        return after(item, result) if after else result

    def place(self, picture: str | Path | np.ndarray) -> Placed:
        """A picture, file or array, as the model gets it."""
        return place(self.read(picture), self.about)

    def read(self, picture: str | Path | np.ndarray) -> np.ndarray:
        """A picture, file or array, with the pixels that the model was tested on, as of :func:`read_picture`."""
        return read_picture(picture, self.about.get('read'))

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
            return dict(scores=scores, labels=best_labels(scores, self.about.get('multi_label')))
        return dict(maps=outputs)

    def _detections(self, outputs: dict[str, np.ndarray], placed: Placed) -> dict[str, Any]:
        height, width = placed.original
        boxes = outputs['boxes'] / np.array(2 * placed.scale[::-1], np.float32)
        # Of a padded picture a box may lie in the padding as a whole: it is of nothing in the picture. A box may also
        # reach into the padding; its mask is pasted as a whole before the box is cut.
        seen = (boxes[:, :2] <= (width, height)).all(1)
        boxes = boxes[seen]
        inside = boxes.clip(0, np.array(2 * [width, height], np.float32))
        result = dict(boxes=inside, scores=outputs['scores'][seen], labels=outputs['labels'][seen])
        if 'masks' in outputs:
            threshold = self.about['test_cfg']['mask_thr_binary']
            masks = outputs['masks'][seen]
            result['masks'] = np.full((len(masks), height, width), threshold <= 0)
            for pasted, mask, box in zip(result['masks'], masks, boxes):
                place, values = mask_in_picture(mask, box, placed.original)
                pasted[place] = values >= threshold
        return result

    def draw(self, picture: str | Path | np.ndarray, result: dict[str, Any], score_thr: float = 0.3) -> Image.Image:
        """The picture with its results; of detections those of at least ``score_thr``."""
        picture = as_rgb(self.read(picture))
        if self.about['task'] == 'detection':
            return self._draw_detections(picture, result, score_thr)
        if self.about['task'] == 'segmentation':
            return self._draw_class_map(picture, result['class_map'])
        if self.about['task'] == 'classification':
            lines = [f'{self.name(label)}  {result["scores"][label]:.1%}' for label in result['labels']]
            return _beside(Image.fromarray(picture), [(line, None) for line in lines or ['no class']])
        return Image.fromarray(np.concatenate([_tile(m[0], picture.shape[0]) for m in result['maps']], axis=1))

    def name(self, label: int) -> str:
        classes = self.about.get('classes')
        return ' '.join(str(classes[label]).split()) if classes else f'class {label}'  # of one line

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
                place = _extent(result['masks'][i])
                part, mask = pixels[place], result['masks'][i][place]
                part[mask] = 0.5 * part[mask] + 0.5 * np.array(self.color(result['labels'][i]), np.float32)
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


def read_about(path: Path) -> About:
    """The ``.json`` that ``tools/export.py`` wrote beside a model."""
    about = about_file(path)
    for file in (path, about):
        if not file.exists():
            raise FileNotFoundError(
                f'{file} is missing: tools/export.py writes a model and its .json; keep them together'
            )
    try:
        found: About = json.loads(about.read_text(encoding='utf-8'))
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
        options.log_severity_level = 4  # an error is told once, by the exception
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

        shape = model.inputs[0].get_partial_shape()
        if shape[2].is_dynamic or shape[3].is_dynamic:
            # OpenVINO was seen to give wrong results for all pictures after a first one of 32x32 or less.
            usual = (1, 3, FIRST_SIDE, FIRST_SIDE)
            run(np.zeros([n if axis.is_dynamic else axis.get_length() for n, axis in zip(usual, shape)], np.float32))
        return run
    raise ValueError(f'{path} is neither an .onnx nor an .xml file')


def best_labels(scores: np.ndarray, multi_label: dict[str, Any] | None = None) -> np.ndarray:
    """Classes by their scores, the best first: the best five, or those of ``threshold`` or ``top`` of many labels."""
    order = np.argsort(-scores, kind='stable')
    if not multi_label:
        return order[:TOP]
    if multi_label.get('threshold') is not None:
        return order[scores[order] >= multi_label['threshold']]
    return order[: multi_label['top']]


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """The paths themselves, and of a folder the pictures in it and below, sorted."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(filter(_is_picture, path.rglob('*'))) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(f'no pictures ({", ".join(PICTURES)}) in {path}')
        found += inside
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not path.name.startswith('._') and path.is_file()  # ._ is macOS's own


def read_picture(picture: str | Path | np.ndarray, rule: dict[str, Any] | None = None) -> np.ndarray:
    """A file, or an array as it is: (H, W, 3), RGB, uint8; (H, W, C) where a rule says so.

    A file is read as OpenCV reads it in color, which is what the MM libraries train and test on: gray and palettes
    become colors, transparency is left out, 16 bits become their upper 8, CMYK is converted with OpenCV's rounding, and
    the picture is turned as the camera noted.

    Args:
        picture: A file, or an array of uint8.
        rule: ``orientation``: False leaves the camera's note out. ``backend``: ``'pillow'`` reads as MM's ``pillow``
            does, which differs by at most one level for CMYK, and is refused where it differs by more. ``color``:
            ``'gray'`` gives (H, W, 1), of colored pictures their brightness, which differs from OpenCV's by at most one
            level; ``'unchanged'`` gives the channels of the file: gray, RGB or RGBA. ``channels``: C, if it is not 3.

    Raises:
        OSError: There is no such picture, or it is damaged.
        ValueError: It has another number of channels or too many bits, or is read otherwise by ``pillow``.
    """
    rule = rule or {}
    color, channels = rule.get('color'), rule.get('channels', 3)
    if isinstance(picture, np.ndarray):
        if color == 'gray' and picture.shape[2:] == (3,):
            picture = _brightness(picture)
        if picture.ndim != 3 or picture.shape[2] != channels or picture.dtype != np.uint8:
            raise ValueError(f'a picture must be (H, W, {channels}) of uint8, not {picture.shape} of {picture.dtype}')
        return picture
    try:
        return _read_file(picture, rule)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds where a file is damaged, and not all of them name it
        if isinstance(error, (OSError, ValueError)) and str(picture) in str(error):
            raise
        raise OSError(f'{picture}: {error or type(error).__name__}') from None


def _read_file(picture: str | Path, rule: dict[str, Any]) -> np.ndarray:
    color, channels = rule.get('color'), rule.get('channels', 3)
    with Image.open(picture) as image:
        kind, by_pillow = image.format, rule.get('backend') == 'pillow'
        if color == 'gray' and image.mode == 'RGB' and not by_pillow:
            image.draft('L', image.size)  # what a JPEG stores of it, as OpenCV does
        if rule.get('orientation', True):
            image = ImageOps.exif_transpose(image)
        if by_pillow:
            if image.mode == 'LA' or image.mode.startswith(('I', 'F')):
                raise ValueError(
                    f'{picture} has the mode {image.mode}, which the model was not tested on as it looks: its config '
                    'reads pictures with Pillow. Make it an 8-bit RGB picture'
                )
            colors = image.convert('RGB')
            return np.asarray(colors.convert('L'))[..., None] if color == 'gray' else np.asarray(colors)
        if color == 'gray':
            return _brightness(_as_opencv(image, kind, picture))
        pixels = _unchanged(image, kind, picture) if color == 'unchanged' else _as_opencv(image, kind, picture)
    if pixels.shape[2] != channels:
        raise ValueError(
            f'{picture} has channels: {pixels.shape[2]}. The model takes {channels}: give a picture with as many'
        )
    return pixels


def _unchanged(image: Image.Image, kind: str | None, name: Any) -> np.ndarray:
    """(H, W, 1), (H, W, 3) or (H, W, 4) of uint8, with the channels that OpenCV finds in a file."""
    if image.mode.startswith(('I', 'F')):
        raise ValueError(f'{name} has more than 8 bits a channel, which the model does not take: make it 8 bits')
    tiff = kind == 'TIFF'
    if image.mode in ('1', 'L') or (image.mode == 'LA' and tiff):
        return np.asarray(image.convert('L'))[..., None]
    if image.mode in ('LA', 'PA', 'RGBA') or (image.mode in ('P', 'RGB') and 'transparency' in image.info):
        whole = image.convert('RGBA')
        return np.dstack([_as_opencv(image, kind, name), np.asarray(whole)[..., 3]]) if tiff else np.asarray(whole)
    return _as_opencv(image, kind, name)


def _brightness(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3), RGB, to (H, W, 1), with OpenCV's weights in 32768ths."""
    return ((picture.astype(np.int32) @ np.array([9798, 19235, 3735]) + 16384) >> 15).astype(np.uint8)[..., None]


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """A picture of any number of channels as RGB, to be drawn on."""
    return np.repeat(picture, 3, axis=2) if picture.shape[2] < 3 else picture[..., :3]


def swap_colors(picture: np.ndarray) -> np.ndarray:
    """RGB to BGR and back, in the last axis; gray stays, and so does what comes after three channels."""
    return np.concatenate([picture[..., 2::-1], picture[..., 3:]], axis=-1) if picture.shape[-1] > 2 else picture


def _as_opencv(image: Image.Image, kind: str | None, name: Any) -> np.ndarray:
    if image.mode == 'F' or (image.mode == 'I' and kind != 'PNG'):  # Pillow before 11 has 16-bit PNG as I
        raise ValueError(f'{name} has 32 bits a channel, which OpenCV does not read in color: make it 8 or 16 bits')
    if image.mode.startswith('I'):
        upper = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(upper[..., None], 3, axis=2)
    if image.mode == 'CMYK' and kind == 'JPEG':
        pixels = np.asarray(image).astype(np.int32)
        light = 255 - pixels[..., 3:]
        return (light - ((pixels[..., :3] * light) >> 8)).astype(np.uint8)
    if image.mode == 'RGBA' and kind == 'TIFF':  # libtiff darkens what is transparent
        pixels = np.asarray(image).astype(np.int32)
        return ((pixels[..., :3] * pixels[..., 3:] + 127) // 255).astype(np.uint8)
    return np.asarray(image.convert('RGB'))


def place(picture: np.ndarray, about: About) -> Placed:
    """Resize, crop or pad and, where the model does not do it itself, normalise a picture for a model.

    Args:
        picture: (H, W, C) of uint8, as of :func:`read_picture`.
        about: The content of the model's ``.json``.

    Raises:
        ValueError: What comes out has not the size that the model takes.
    """
    spec = about['input']
    original = resized = picture.shape[:2]
    scale, canvas = (1.0, 1.0), None
    for step in about['steps']:
        if step['do'] == 'resize':
            resized = resized_size(picture.shape[:2], step['to'])
            scale = tuple(new / old for new, old in zip(resized, picture.shape))
            picture = resize(picture, resized, step['interpolation'], step['library'])
        elif step['do'] == 'center_crop':
            picture = center_crop(picture, step['size'])
        elif step['do'] == 'pad':
            picture = pad(picture, step)
        else:
            canvas = step['size']
    if spec['color'] == 'BGR':
        picture = swap_colors(picture)
    mean, std = (np.array(spec[key], np.float32) for key in ('mean', 'std'))
    pixels = picture.astype(np.float32)
    if not spec['normalized_inside']:
        pixels -= mean
        pixels /= std
    if canvas:  # what is added is the mean color, which is 0 after normalisation
        whole = np.empty((*canvas, pixels.shape[2]), np.float32)
        whole[:] = mean if spec['normalized_inside'] else 0
        whole[: pixels.shape[0], : pixels.shape[1]] = pixels
        pixels = whole
    if spec.get('size') and list(pixels.shape[:2]) != list(spec['size']):
        raise ValueError(
            f'a picture of {original[0]}x{original[1]} becomes {pixels.shape[0]}x{pixels.shape[1]}, and the model '
            f'takes {spec["size"][0]}x{spec["size"][1]}: give another picture, or export with --dynamic size'
        )
    return Placed(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), original, resized, scale)


def resized_size(original: tuple[int, int], rule: dict[str, Any]) -> tuple[int, int]:
    """Height and width to which a picture is resized.

    ``rule`` has one of ``exact`` (height and width, ratio not kept), ``fit`` (the largest that fits into this height
    and width, ratio kept), ``long_short`` (the largest whose long and short sides are at most these, ratio kept; with
    ``down`` rounded down), ``factor`` (of height and width; with ``keep_ratio`` the largest of one ratio below),
    ``edge`` with its ``length``, ``shortest`` and ``longest`` (the shorter side, unless the longer one would exceed the
    latter), and ``multiple`` (each side rounded up to a multiple).
    """
    height, width = original
    if 'exact' in rule:
        return tuple(rule['exact'])
    if 'fit' in rule:
        factor = min(rule['fit'][0] / height, rule['fit'][1] / width)
        return tuple(min(side, max(1, int(n * factor + 0.5))) for side, n in zip(rule['fit'], original))
    if 'multiple' in rule:
        return tuple(-(-side // rule['multiple']) * rule['multiple'] for side in original)
    if 'edge' in rule:  # the other side rounded down, as torchvision and MMPretrain do
        by_width = dict(short=width < height, long=width > height, width=True, height=False)[rule['edge']]
        length = rule['length']
        return (int(length * height / width), length) if by_width else (length, int(length * width / height))
    if 'long_short' in rule:
        return _of_one_ratio(original, rule['long_short'], 0.0 if rule.get('down') else 0.5)
    if 'shortest' in rule:
        factor = rule['shortest'] / min(original)
        sides = [float(rule['shortest']) if n == min(original) else factor * n for n in original]
        sides = [n * (rule['longest'] / max(sides)) for n in sides] if max(sides) > rule['longest'] else sides
        return _of_one_ratio(original, [int(n + 0.5) for n in sides])
    height, width = (int(n * factor + 0.5) for n, factor in zip(original, rule['factor']))
    return _of_one_ratio(original, (height, width)) if rule.get('keep_ratio') else (max(1, height), max(1, width))


def _of_one_ratio(original: tuple[int, int], limits: Iterable[int], rounding: float = 0.5) -> tuple[int, int]:
    short, long = sorted(limits)
    factor = min(long / max(original), short / min(original))
    height, width = (max(1, int(n * factor + rounding)) for n in original)
    return height, width


def resize(picture: np.ndarray, size: tuple[int, int], interpolation: str, library: str = 'cv2') -> np.ndarray:
    """(H, W, C) of uint8 to ``size``: ``'bilinear'`` as OpenCV does it, or one of Pillow's own."""
    if picture.shape[:2] == tuple(size):
        return picture
    if library == 'pillow':
        kind = Image.Resampling[interpolation.upper()]
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        return np.asarray(image.resize((size[1], size[0]), kind)).reshape(*size, -1)
    # In OpenCV's fixed-point arithmetic, weights of 11 bits, so that the colors are those that the model was tested on.
    (top, bottom, above, below), (left, right, before, after) = (
        _neighbors(new, old) for new, old in zip(size, picture.shape)
    )
    pixels = picture.astype(np.int32)
    across, other = pixels[:, left], pixels[:, right]
    across *= before[:, None]
    other *= after[:, None]
    across += other
    across >>= 4
    mixed, lower = across[top], across[bottom]
    for rows, weights in ((mixed, above), (lower, below)):  # in place: half the time is that of the memory
        rows *= weights[:, None, None]
        rows >>= 16
    mixed += lower
    mixed += 2
    mixed >>= 2
    return mixed.clip(0, 255, out=mixed).astype(np.uint8)


def pad(picture: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    """To the right and below, with a ``color``: to a ``size``, to multiples of a ``multiple``, or to a ``square``."""
    size = step.get('size') or picture.shape[:2]
    if step.get('square'):
        size = (max(picture.shape[:2]),) * 2
    if step.get('multiple'):
        size = tuple(-(-side // step['multiple']) * step['multiple'] for side in size)
    if any(new < old for new, old in zip(size, picture.shape)):
        raise ValueError(f'a picture of {picture.shape[0]}x{picture.shape[1]} cannot be padded to {size[0]}x{size[1]}')
    padded = np.empty((*size, picture.shape[2]), np.uint8)
    padded[:] = step['color']
    padded[: picture.shape[0], : picture.shape[1]] = picture
    return padded


def nearest(class_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) to ``size``, every pixel from the nearest one: centers onto centers."""
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip(size, class_map.shape))
    return class_map[rows.astype(int)[:, None], columns.astype(int)]


def center_crop(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = (max(0, round((old - new) / 2)) for old, new in zip(picture.shape, size))
    return picture[top : top + size[0], left : left + size[1]]


def mask_in_picture(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """(m, m) probabilities of a box, bilinear between their centers, in a picture of ``size``.

    Outside the box they fade to 0 within a pixel, as MMDetection's do on a CPU.

    Returns:
        tuple: Rows and columns of the picture outside of which all is 0, and the probabilities there.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    top, bottom = max(int(np.floor(y1)) - 1, 0), min(int(np.ceil(y2)) + 1, size[0])
    left, right = max(int(np.floor(x1)) - 1, 0), min(int(np.ceil(x2)) + 1, size[1])
    if x2 <= x1 or y2 <= y1 or bottom <= top or right <= left:
        return (slice(0), slice(0)), np.zeros((0, 0), np.float32)
    m = mask.shape[0]
    padded = np.pad(mask, 1)  # outside, a mask fades to 0 within half a cell
    rows = np.clip((np.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * m + 0.5, 0, m + 1)
    columns = np.clip((np.arange(left, right) + 0.5 - x1) / (x2 - x1) * m + 0.5, 0, m + 1)
    i, j = np.minimum(rows.astype(int), m), np.minimum(columns.astype(int), m)
    across = _mix(padded[:, j], padded[:, j + 1], (columns - j)[None].astype(np.float32))
    values = _mix(across[i], across[i + 1], (rows - i)[:, None].astype(np.float32))
    return (slice(top, bottom), slice(left, right)), values


def _neighbors(new: int, old: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For every new pixel the two old ones around its center, and the weight of each in 2048ths, in float32."""
    position = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    first = np.floor(position)
    share = position - first
    weights = (np.rint(part * np.float32(2048)).astype(np.int32) for part in (np.float32(1) - share, share))
    return *((first.astype(int) + i).clip(0, old - 1) for i in (0, 1)), *weights


def _extent(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of a mask (H, W) that hold all of it."""
    found = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(places[0], places[-1] + 1) if len(places) else slice(0) for places in found)
    return rows, columns


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
    parser = argparse.ArgumentParser(description='Run an exported model on pictures.')
    parser.add_argument('model', type=Path, help='.onnx or .xml, with its .json beside it')
    parser.add_argument('pictures', type=Path, nargs='+', help='files, or folders of them')
    parser.add_argument(
        '--out', type=Path, metavar='PATH', help='draw the result into this file, of several pictures into this folder'
    )
    parser.add_argument('--score-thr', type=float, default=0.3, help='of the detections that are shown (default: 0.3)')
    parser.add_argument('--threads', type=int, help="CPU threads (default: the runtime's choice)")
    args = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):  # names of classes may have what the terminal lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='replace')
    if not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr must be from 0 to 1, and is {args.score_thr:g}')
    try:
        pictures = find_files(args.pictures)
        if args.out and args.out.resolve() in {picture.resolve() for picture in pictures}:
            parser.error(f'--out {args.out} is one of the pictures: it would be lost')
        failed = _run(Predictor(args.model, args.threads), pictures, args)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f'{parser.prog}: {error}\n')
    for line in failed:
        print(f'{parser.prog}: {line}', file=sys.stderr)
    if failed:
        sys.exit(2)


def _run(predictor: Predictor, pictures: list[Path], args: argparse.Namespace) -> list[str]:
    """Print and draw the results; the errors of pictures that could not be read."""
    several, failed, start = len(pictures) > 1 or args.pictures[0].is_dir(), [], time.monotonic()
    if several and args.out:
        args.out.mkdir(parents=True, exist_ok=True)

    def finish(picture: Path, result: dict[str, Any]) -> list[str]:
        lines = describe(predictor, result, args.score_thr)
        if several:
            lines = [f'{picture}: {"; ".join(lines)}']
        if args.out:
            target = args.out / _flat(picture, args.pictures) if several else args.out
            predictor.draw(picture, result, args.score_thr).save(target)
            lines.append(f'drawn into {target}')
        return lines

    def fail(picture: Path, error: Exception) -> None:
        failed.append(str(error) if str(picture) in str(error) else f'{picture}: {error}')

    count = 0
    for _, lines in predictor.stream(pictures, finish, fail):
        count += 1
        print('\n'.join(lines), flush=True)
    if several:
        print(f'{count} pictures, {count / (time.monotonic() - start):.2f} pictures per second')
    return failed


def _flat(picture: Path, given: Iterable[Path]) -> str:
    """A name for a drawing that no other picture of the same folders has."""
    for folder in given:
        if folder.is_dir() and folder in picture.parents:
            return '_'.join(picture.relative_to(folder).parts) + '.png'
    return picture.name + '.png'


def describe(predictor: Predictor, result: dict[str, Any], score_thr: float) -> list[str]:
    """A result in lines of text."""
    task = predictor.about['task']
    if task == 'detection':
        kept = np.flatnonzero(result['scores'] >= score_thr)
        lines = [
            f'{predictor.name(result["labels"][i])} {result["scores"][i]:.3f} at '
            + ', '.join(f'{value:.1f}' for value in result['boxes'][i])
            for i in kept
        ]
        return lines or [f'nothing with a score of {score_thr} or more']
    if task == 'segmentation':
        labels, counts = np.unique(result['class_map'], return_counts=True)
        return [f'{predictor.name(labels[i])} {counts[i] / result["class_map"].size:.1%}' for i in np.argsort(-counts)]
    if task == 'classification':
        lines = [f'{predictor.name(label)} {result["scores"][label]:.1%}' for label in result['labels']]
        return lines or ['no class reaches its threshold']
    return [f'{name}: {array.shape}' for name, array in zip(predictor.about['outputs'], result['maps'])]


if __name__ == '__main__':
    main()
