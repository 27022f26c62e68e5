"""From a config and a checkpoint to a verified file that runs without any MM package."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from ..adapt import use_nextvit
from ..errors import UserError
from ..predict.predictor import About, Predictor, about_file
from ..training import config as cfgs
from ..training.channels import fit_channels
from ..training.loading import load_model
from ..training.preflight import check_data
from ..utils.files import check_writable
from ..utils.logs import quiet_log
from . import backends
from .apart import place
from .console import Steps, files_of, move, print_result
from .evaluate import evaluate_apart
from .fold import fold
from .graphs import Graph, make_graph
from .guards import failing_clearly
from .info import describe, save_about
from .operators import TENSORRT_LIST, unlisted_operators
from .options import WITH_INT8, ExportOptions
from .pictures import find_paths, noise
from .quantize import quantize
from .reference import as_colors, see
from .run import outputs_of
from .steps import Plan, gives_many_shapes, plan
from .verify import ALWAYS, broken, broken_limits, color_difference, compare, not_finite, worst

WRITERS = dict(
    onnx=backends.write_onnx,
    openvino=backends.write_openvino,
    coreml=backends.write_coreml,
    tensorrt=backends.write_onnx,
    **{'torch-export': backends.write_torch},
)


def export(config: str, checkpoint: str | None = None, **options: Any) -> Path:
    """Fold a model, write it in a runtime's format, and see that it computes what the trained model does.

    Args:
        config: Config file of a detector, segmentor or classifier.
        checkpoint: Its weights. Default: what the config's ``init_cfg`` names, which is enough for a backbone.
        options: Those of :class:`.options.ExportOptions`.

    Returns:
        Path: The file; beside it, as ``<file>.json``, what a runtime has to know of it.

    Raises:
        UserError: Something does not fit, a package is missing, or the file does not compute what the model does.
            Nothing is left behind then. Where only the evaluation fails, the finished file stays.
    """
    wanted = ExportOptions(**options)
    cfg = cfgs.load_config(config, wanted.cfg_options)
    if wanted.backbone:
        use_nextvit(cfg, wanted.backbone, options=wanted.cfg_options)
    if wanted.data_root:
        cfgs.set_data_root(cfg, wanted.data_root)
    fit_channels(cfg, ('train', 'test') if wanted.int8 else ('test',))
    target = _target(cfg, wanted)
    if wanted.to == 'tensorrt':
        backends.check_tensorrt()
    check_writable(about_file(target))
    evaluates = _evaluates(cfg, checkpoint, wanted)
    steps = Steps(5 + (wanted.to == 'tensorrt') + wanted.int8 + evaluates)
    with quiet_log():
        model, info = steps.run(
            'building the model', lambda: load_model(cfg, checkpoint, wanted.what, wanted.random_weights)
        )
        network = model if wanted.what == 'model' else model.backbone
        graph = steps.run('folding its norms', lambda: make_graph(fold(network), wanted.what))
        job = _Job(cfg, wanted, model, graph, *_planned(cfg, graph, wanted))
        job.about = describe(cfg, model, graph, info, job.planned, job.dynamic, wanted.normalize_inside)
        job.about['exported'] = dict(
            to=wanted.to,
            what=wanted.what,
            config=Path(config).name,
            int8=wanted.int8,
            random_weights=wanted.random_weights,
            checkpoint=Path(checkpoint).name if checkpoint else None,
        )
        # Beside the file to come, so that it gets there by a rename, whole or not at all.
        with tempfile.TemporaryDirectory(prefix=f'.{target.stem}-', dir=target.parent) as folder:
            path = job.make(Path(folder, target.name), steps)
            steps.run(f'moving it to {target}', lambda: move(path, target))
        failed = None
        if evaluates:
            try:
                job.about['evaluated'] = steps.run(
                    'evaluating both on the test data',
                    lambda: _evaluate(config, dict(trained=checkpoint, exported=target), wanted),
                )
                save_about(job.about, target)
            except UserError as error:
                failed = error
    print_result(target, job.about)
    if failed:
        raise UserError(f'the file was written, and its evaluation failed: {failed}')
    return target


class _Job:
    """What the steps of one export share."""

    def __init__(
        self, cfg: Config, wanted: ExportOptions, model: nn.Module, graph: Graph, dynamic: Sequence[str], planned: Plan
    ) -> None:
        self.cfg, self.wanted, self.model, self.graph = cfg, wanted, model, graph
        self.dynamic, self.planned = dynamic, planned
        self.about = About()

    def make(self, path: Path, steps: Steps) -> Path:
        """Write the file and its ``.json`` and compare it with the model."""
        wanted, about, to = self.wanted, self.about, self.wanted.to
        if wanted.normalize_inside:
            self.graph.normalize_inside(about['input']['mean'], about['input']['std'])
        about['pictures'] = {}
        pictures, about['pictures']['test'] = find_paths(self.cfg, wanted.images, wanted.image_count)
        pictures = pictures or [noise(path.parent, about['input']['size'], about['input']['channels'])]
        calibration: list[Path] = []
        if wanted.int8:
            calibration, about['pictures']['train'] = find_paths(
                self.cfg, wanted.calibration_images, wanted.calibration_count, split='train'
            )
        written = path.with_suffix('.onnx') if to == 'tensorrt' else path
        float32 = written.with_name('float32-' + written.name) if wanted.int8 else written
        save_about(about, float32)
        predictor = Predictor(float32, session=lambda array: [], about=about)
        placed = _place(predictor, pictures, self.graph)
        example = torch.from_numpy(placed[0].tensor)
        with failing_clearly(to, wanted.what, self.dynamic):
            steps.run(
                f'writing {to}', lambda: WRITERS[to](self.graph, example, float32, self.graph.outputs, self.dynamic)
            )
        if wanted.int8:
            steps.run(f'quantising with {len(calibration)} pictures', lambda: quantize(float32, written, calibration))
        about['file'] = backends.file_format(written)
        if written.suffix == '.onnx':
            about['tensorrt'] = dict(list=TENSORRT_LIST, unlisted=unlisted_operators(written))
        about['compared'] = steps.run(
            'comparing with PyTorch', lambda: self.compare(predictor, written, pictures, placed)
        )
        _check(about, to)
        if to == 'tensorrt':
            shapes = _shapes(example, self.dynamic)
            steps.run('building the engine', lambda: backends.build_tensorrt(written, path, shapes))
        save_about(about, path)
        return path

    def compare(self, predictor: Predictor, written: Path, pictures: Sequence[Path], placed: list) -> dict[str, Any]:
        """Figures of :mod:`.verify` over the picture files, or why there are none."""
        task, about = self.graph.task, self.about
        with failing_clearly(self.wanted.to, self.wanted.what, self.dynamic):
            found = outputs_of(written, self.wanted.to, [each.tensor for each in placed])
        if found is None:
            return dict(
                not_compared='a Core ML model runs on macOS only', operations=backends.coreml_operations(written)
            )
        figures = []
        for path, ours, outputs in zip(pictures, placed, found):
            theirs = see(self.model, task, self.planned, path)
            if not_finite(v for v in theirs.results.values() if not isinstance(v, list)):
                raise UserError(f'the trained model itself gives values that are not finite for {path.name}')
            result = predictor.interpret(outputs, ours)
            if task == 'segmentation':
                height, width = ours.resized
                result['input_map'] = outputs[0][0, :height, :width]
            colors = color_difference(
                as_colors(ours.tensor[0], about, not about['input']['normalized_inside']),
                as_colors(theirs.tensor, about),
            )
            figures.append(
                {
                    **compare(task, result, theirs.results, about.get('test_cfg', {})),
                    'largest color difference': colors,
                    'values that are not finite': not_finite(outputs),
                }
            )
        return worst(task, figures)


def _planned(cfg: Config, graph: Graph, wanted: ExportOptions) -> tuple[tuple[str, ...], Plan]:
    """What may differ at run time, and what is done with a picture."""
    dynamic = tuple(wanted.dynamic or ())
    by_itself = (
        wanted.dynamic is None
        and wanted.size is None
        and wanted.to in WITH_INT8
        and graph.task == 'detection'
        and gives_many_shapes(cfg)
    )
    if by_itself:  # at one size a portrait picture would be shrunk into a landscape one
        dynamic = ('size',)
    if graph.task == 'detection' and 'batch' in dynamic:
        raise UserError('a detector is exported for one image: leave batch out of --dynamic')
    return dynamic, plan(cfg, graph.task, wanted.size, dynamic)


def _evaluates(cfg: Config, checkpoint: str | None, wanted: ExportOptions) -> bool:
    """Whether the test data are gone through; looked at now, and not after minutes of work."""
    if wanted.evaluate:
        if wanted.what == 'backbone' or wanted.to not in WITH_INT8 or not checkpoint:
            raise UserError('--evaluate is for whole models with a checkpoint, --to onnx or openvino')
        check_data(cfg, ('test',))
        return True
    by_itself = wanted.evaluate is None and wanted.int8 and wanted.what == 'model' and checkpoint
    return bool(by_itself and _has_test_data(cfg))


def _place(predictor: Predictor, pictures: Sequence[Path], graph: Graph) -> list:
    placed = []
    for path in pictures:
        placed.append(place(predictor, path))
        graph.check_size(*placed[-1].tensor.shape[2:])
    return placed


def _target(cfg: Config, wanted: ExportOptions) -> Path:
    to, out = wanted.to, wanted.out
    suffix = backends.SUFFIXES[to]
    stem = Path(cfg.filename).stem
    name = stem + ('_backbone' if wanted.what == 'backbone' else '') + ('_int8' if wanted.int8 else '') + suffix
    target = Path(out) if out else Path(cfg.get('work_dir') or Path('work_dirs', stem)) / 'export' / name
    if target.suffix != suffix:
        raise UserError(f'--out {target} must end in {suffix} for --to {to}')
    for path in files_of(target):
        if path.exists() and not wanted.overwrite:
            raise UserError(f'{path} exists: give another --out, or --overwrite')
    return target


def _has_test_data(cfg: Config) -> bool:
    try:
        check_data(cfg, ('test',))
    except UserError:
        return False
    return True


def _check(about: About, to: str) -> None:
    figures, exported = about['compared'], about['exported']
    if 'not_compared' in figures:
        return
    if figures.get('detections') == 0 and not exported['random_weights']:
        raise UserError(
            'the model finds nothing in the pictures that it was compared on, so that nothing was '
            'compared: give --images with what it finds'
        )
    # Scores of random weights are as good as tied: which of them is kept is a matter of rounding.
    free = exported['int8'] or exported['random_weights']
    wrong = broken(ALWAYS, figures) if free else broken_limits(about['task'], figures)
    if wrong:
        raise UserError(f'the {to} file does not compute what the model does, so it was not kept: {"; ".join(wrong)}')


def _evaluate(config: str, files: dict[str, Any], wanted: ExportOptions) -> dict[str, Any]:
    """Metrics of the checkpoint and of the exported file, and the difference of those that both have.

    A detector that finds nothing has no metrics.
    """
    results = evaluate_apart(config, files, wanted.data_root, wanted.cfg_options, wanted.backbone)
    both = results['trained'].keys() & results['exported'].keys()
    results['difference'] = {
        key: value - results['trained'][key] for key, value in results['exported'].items() if key in both
    }
    return results


def _shapes(example: torch.Tensor, dynamic: Sequence[str]) -> list[str]:
    """Least, usual and largest input for TensorRT; none where nothing is dynamic."""
    if not dynamic:
        return []
    batch, channels, height, width = example.shape
    scales = itertools.product((0.5, 1, 2)) if 'size' in dynamic else itertools.repeat((1,), 3)
    batches = (1, 1, 8) if 'batch' in dynamic else (batch,) * 3
    return [f'{b}x{channels}x{int(height * s)}x{int(width * s)}' for b, (s,) in zip(batches, scales)]
