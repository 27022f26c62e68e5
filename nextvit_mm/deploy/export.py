"""From a config and a checkpoint to a verified file that runs without any MM package."""

import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from ..adapt import use_nextvit
from ..errors import UserError
from ..predict.predictor import about_file, open_session, place
from ..training import config as cfgs
from ..training.loading import load_model
from ..training.preflight import check_data
from ..utils.logs import quiet_log
from ..utils.optional import need
from ..utils.subprocess import run_apart
from . import backends
from .evaluate import evaluate_apart
from .fold import fold
from .graphs import Graph, make_graph
from .info import describe, find_pictures, save_about
from .quantize import quantize
from .verify import broken_limits, compare, reference, worst

WRITERS = dict(
    onnx=backends.write_onnx,
    openvino=backends.write_openvino,
    coreml=backends.write_coreml,
    tensorrt=backends.write_onnx,
    **{'torch-export': backends.write_torch},
)
WITH_INT8 = ('onnx', 'openvino')


def export(
    config: str,
    checkpoint: str | None = None,
    to: str = 'onnx',
    what: str = 'model',
    size: Sequence[int] | None = None,
    dynamic: Iterable[str] = (),
    out: str | None = None,
    overwrite: bool = False,
    images: str | None = None,
    image_count: int = 4,
    normalize_inside: bool = False,
    int8: bool = False,
    calibration_images: str | None = None,
    calibration_count: int = 64,
    evaluate: bool | None = None,
    random_weights: bool = False,
    data_root: str | None = None,
    cfg_options: dict | None = None,
    backbone: str | None = None,
) -> Path:
    """Fold a model, write it in a runtime's format, and see that it computes what the trained model does.

    Args:
        config: Config file of a detector, segmentor or classifier.
        checkpoint: Its weights. Default: what the config's ``init_cfg`` names, which is enough for a backbone.
        to: ``'onnx'``, ``'openvino'``, ``'coreml'``, ``'tensorrt'`` or ``'torch-export'``.
        what: ``'model'``, from the image to results, or ``'backbone'``, to the feature maps.
        size: Height and width in pixels, or one number for both. Default: from the config's test pipeline.
        dynamic: ``'batch'``, ``'size'``, or both: what may differ at run time.
        out: The file to write. Default: ``work_dirs/<config>/export/…``.
        overwrite: Replace a file that is there.
        images: A picture or a folder of pictures to verify with. Default: the config's test data.
        image_count: How many of them at most.
        normalize_inside: Put the mean and standard deviation into the network, which then takes colors from 0 to 255.
        int8: Quantise after training (ONNX, OpenVINO). Its differences are reported and not limited.
        calibration_images: A folder of pictures to calibrate with. Default: the config's training data.
        calibration_count: How many of them at most.
        evaluate: Measure the checkpoint and the exported model on the config's test data. Default: for int8, where
            the data are there.
        random_weights: Do not load any weights: for speed only.
        data_root, cfg_options, backbone: As in :func:`nextvit_mm.training.launch.train`.

    Returns:
        Path: The file; beside it, as ``<file>.json``, what a runtime has to know of it.

    Raises:
        UserError: Something does not fit, a package is missing, or the file does not compute what the model does.
            Nothing is left behind then.
    """
    dynamic = tuple(dynamic)
    cfg = cfgs.load_config(config, cfg_options)
    if backbone:
        use_nextvit(cfg, backbone)
    if data_root:
        cfgs.set_data_root(cfg, data_root)
    target = _target(cfg, to, what, int8, out, overwrite)
    if int8 and to not in WITH_INT8:
        raise UserError(f'--int8 is for {" and ".join(WITH_INT8)}, not for {to}')
    if to == 'tensorrt':
        backends.check_tensorrt()
    if min(image_count, calibration_count) < 1:
        raise UserError('--image-count and --calibration-count must be at least 1')
    if evaluate:  # looked at now, and not after minutes of work
        if what == 'backbone' or to not in WITH_INT8 or not checkpoint:
            raise UserError('--evaluate is for whole models with a checkpoint, --to onnx or openvino')
        check_data(cfg, ('test',))
    elif evaluate is None:
        evaluate = bool(int8 and what == 'model' and checkpoint and _has_test_data(cfg))
    steps = _Steps(5 + (to == 'tensorrt') + int8 + evaluate)
    with quiet_log():
        model, dataset_meta = steps.run('building the model', lambda: load_model(cfg, checkpoint, what, random_weights))
        network = model if what == 'model' else model.backbone
        graph = steps.run('folding its norms', lambda: make_graph(fold(network), what))
        if graph.task == 'detection' and 'batch' in dynamic:
            raise UserError('a detector is exported for one image: leave batch out of --dynamic')
        about = describe(cfg, model, graph, dataset_meta, size, dynamic, normalize_inside)
        about['exported'] = dict(
            to=to,
            what=what,
            config=Path(config).name,
            int8=int8,
            random_weights=random_weights,
            checkpoint=Path(checkpoint).name if checkpoint else None,
        )
        if normalize_inside:
            graph.normalize_inside(about['input']['mean'], about['input']['std'])
        about['pictures'] = {}
        pictures, about['pictures']['test'] = find_pictures(cfg, images, image_count, about['input']['size'])
        if int8:
            calibration, about['pictures']['train'] = find_pictures(
                cfg, calibration_images, calibration_count, split='train'
            )
        example = torch.from_numpy(place(pictures[0], about).tensor)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the file to come, so that it gets there by a rename, whole or not at all.
        with tempfile.TemporaryDirectory(prefix=f'.{target.stem}-', dir=target.parent) as folder:
            path = Path(folder, target.name)
            written = path.with_suffix('.onnx') if to == 'tensorrt' else path
            float32 = written.with_name('float32-' + written.name) if int8 else written
            steps.run(f'writing {to}', lambda: WRITERS[to](graph, example, float32, graph.outputs, dynamic))
            save_about(about, float32)
            if int8:
                inputs = [place(picture, about).tensor for picture in calibration]
                steps.run(f'quantising with {len(inputs)} pictures', lambda: quantize(float32, written, inputs))
                save_about(about, written)
            if written.suffix == '.onnx':
                about['tensorrt'] = dict(list=backends.TENSORRT_LIST, unlisted=backends.unlisted_operators(written))
            about['compared'] = steps.run(
                'comparing with PyTorch', lambda: verify(model, graph, about, written, pictures, to)
            )
            _check(about, to)
            if evaluate:
                about['evaluated'] = steps.run(
                    'evaluating both on the test data',
                    lambda: _evaluate(config, dict(trained=checkpoint, exported=written), data_root, cfg_options),
                )
            if to == 'tensorrt':
                steps.run(
                    'building the engine', lambda: backends.build_tensorrt(written, path, _shapes(example, dynamic))
                )
            save_about(about, path)
            steps.run(f'moving it to {target}', lambda: _move(path, target))
    _print_result(target, about)
    return target


def verify(
    model: nn.Module, graph: Graph, about: dict[str, Any], path: Path, pictures: Sequence[np.ndarray], to: str
) -> dict[str, Any]:
    """Figures of :mod:`.verify` over the pictures, or why there are none."""
    images = [torch.from_numpy(place(picture, about).tensor) for picture in pictures]
    outputs = _outputs(path, to, [image.numpy() for image in images])
    if outputs is None:
        return dict(not_compared='a Core ML model runs on macOS only', operations=backends.coreml_operations(path))
    mean, std = (torch.tensor(about['input'][key]).view(1, 3, 1, 1) for key in ('mean', 'std'))
    figures = []
    for image, found in zip(images, outputs):
        theirs = reference(model, graph.task, (image - mean) / std if graph.mean is not None else image)
        figures.append(
            compare(
                graph.task, dict(zip(graph.outputs, found)), theirs, tuple(image.shape[2:]), about.get('test_cfg', {})
            )
        )
    return worst(graph.task, figures)


class _Steps:
    """One line a step, with its time."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def run(self, title: str, work):
        self.done += 1
        print(f'[{self.done}/{self.total}] {title}', end=' … ', flush=True)
        start = time.monotonic()
        try:
            result = work()
        except BaseException:
            print('failed', flush=True)
            raise
        print(f'{time.monotonic() - start:.1f} s', flush=True)
        return result


def _target(cfg: Config, to: str, what: str, int8: bool, out: str | None, overwrite: bool) -> Path:
    suffix = backends.SUFFIXES[to]
    stem = Path(cfg.filename).stem
    name = stem + ('_backbone' if what == 'backbone' else '') + ('_int8' if int8 else '') + suffix
    target = Path(out) if out else Path(cfg.get('work_dir') or Path('work_dirs', stem)) / 'export' / name
    if target.suffix != suffix:
        raise UserError(f'--out {target} must end in {suffix} for --to {to}')
    for path in _files(target):
        if path.exists() and not overwrite:
            raise UserError(f'{path} exists: give another --out, or --overwrite')
    return target


def _has_test_data(cfg: Config) -> bool:
    try:
        check_data(cfg, ('test',))
    except UserError:
        return False
    return True


def _files(path: Path) -> list[Path]:
    """What belongs to an exported model, itself first."""
    return [path, *([path.with_suffix('.bin')] if path.suffix == '.xml' else []), about_file(path)]


def _move(source: Path, target: Path) -> None:
    """Each file by one rename; the ``.json`` last, without which the runner takes nothing."""
    about_file(target).unlink(missing_ok=True)
    for old, new in zip(_files(source), _files(target)):
        if new.is_dir():
            shutil.rmtree(new)
        os.replace(old, new)


def _outputs(path: Path, to: str, images: Sequence[np.ndarray]) -> list[list[np.ndarray]] | None:
    """The file's outputs for each image, or None where the format cannot be run here."""
    if to == 'coreml' and sys.platform != 'darwin':
        return None
    if to == 'openvino':
        return _openvino_outputs(path, images)
    if to == 'torch-export':
        module = torch.export.load(str(path)).module()
        with torch.no_grad():
            results = [module(torch.from_numpy(image)) for image in images]
        return [[o.numpy() for o in (r if isinstance(r, (tuple, list)) else (r,))] for r in results]
    if to == 'coreml':
        program = need('coremltools', 'Core ML').models.MLModel(str(path))
        names = [output.name for output in program.get_spec().description.output]
        return [[program.predict({backends.INPUT: image})[name] for name in names] for image in images]
    need('onnxruntime', 'running ONNX')
    session = open_session(path, device='cpu')
    return [session(image) for image in images]


def _openvino_outputs(path: Path, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """By a process of its own, for the reason given at :func:`.backends.write_openvino`."""
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            np.save(Path(folder, f'{i}.npy'), image)
        run_apart(_run_openvino, f'OpenVINO cannot run {path.name}', path=str(path), folder=folder, count=len(images))
        results = []
        for i in range(len(images)):
            with np.load(Path(folder, f'{i}.npz')) as arrays:
                results.append([arrays[f'arr_{j}'] for j in range(len(arrays.files))])
        return results


def _run_openvino(path: str, folder: str, count: int) -> None:
    session = open_session(path)
    for i in range(count):
        np.savez(Path(folder, f'{i}.npz'), *session(np.load(Path(folder, f'{i}.npy'))))


def _check(about: dict[str, Any], to: str) -> None:
    figures, exported = about['compared'], about['exported']
    if figures.get('detections') == 0 and not exported['random_weights']:
        raise UserError(
            'the model finds nothing in the pictures that it was compared on, so that nothing was '
            'compared: give --images with what it finds'
        )
    broken = [] if exported['int8'] or 'not_compared' in figures else broken_limits(about['task'], figures)
    if broken:
        raise UserError(f'the {to} file does not compute what the model does, so it was not kept: {"; ".join(broken)}')


def _evaluate(config: str, files: dict[str, Any], data_root: str | None, cfg_options: dict | None) -> dict[str, Any]:
    """Metrics of the checkpoint and of the exported file, and the difference."""
    results = {name: evaluate_apart(config, file, data_root, cfg_options) for name, file in files.items()}
    results['difference'] = {key: value - results['trained'][key] for key, value in results['exported'].items()}
    return results


def _print_result(target: Path, about: dict[str, Any]) -> None:
    compared = about['compared']
    if 'not_compared' in compared:
        print(
            f'not compared with PyTorch: {compared["not_compared"]}; the program has '
            f'{sum(compared["operations"].values())} operations of {len(compared["operations"])} kinds'
        )
    else:
        pictures = dict(
            given='given pictures',
            config="pictures of the config's test data",
            noise='noise, for want of pictures (--images)',
        )[about['pictures']['test']]
        figures = ', '.join(f'{name} {value:.6g}' for name, value in compared.items())
        print(f'against PyTorch, on {pictures}: {figures}')
    if 'tensorrt' in about:
        unlisted = ', '.join(about['tensorrt']['unlisted'])
        print(f'operators that {about["tensorrt"]["list"]} does not list: {unlisted or "none"}')
    if about['exported']['int8'] and 'evaluated' not in about:
        print("what int8 costs in AP or mIoU was not measured: that needs the config's test data (--data-root DIR)")
    for name, metrics in about.get('evaluated', {}).items():
        print(f'{name}: ' + ', '.join(f'{key} {value:.4g}' for key, value in metrics.items()))
    print('written: ' + ', '.join(str(path) for path in _files(target)))


def _shapes(example: torch.Tensor, dynamic: Sequence[str]) -> list[str]:
    """Least, usual and largest input for TensorRT; none where nothing is dynamic."""
    if not dynamic:
        return []
    batch, channels, height, width = example.shape
    scales = itertools.product((0.5, 1, 2)) if 'size' in dynamic else itertools.repeat((1,), 3)
    batches = (1, 1, 8) if 'batch' in dynamic else (batch,) * 3
    return [f'{b}x{channels}x{int(height * s)}x{int(width * s)}' for b, (s,) in zip(batches, scales)]
