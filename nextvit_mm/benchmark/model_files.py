"""What the turns of a whole model start from: a picture, the model with weights, and its exported files."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from torch import Tensor, nn

from ..deploy.backends import write_onnx, write_openvino
from ..deploy.fold import fold
from ..deploy.graphs import Graph, make_graph
from ..deploy.info import describe, save_about
from ..deploy.quantize import quantize
from ..deploy.reference import see
from ..deploy.run import outputs_of
from ..deploy.steps import Plan, plan
from ..deploy.verify import compare
from ..errors import UserError
from ..models import NextViT
from ..predict.predictor import About, Predictor
from ..utils.logs import quiet_log
from ..utils.metainfo import leaf_datasets, read_metainfo
from .candidates import SETTLING_SIZE, photographs, settle_norms
from .complexity import count_complexity
from .model_list import load, parse_model

WRITERS = dict(onnxruntime=('onnx', '.onnx', write_onnx), openvino=('openvino', '.xml', write_openvino))
PACKERS = dict(mmdet='PackDetInputs', mmseg='PackSegInputs')
ENLARGED = 1.6  # how much larger than its picture an input is, as COCO's at 800×1280
STRIDE = 32
SPREAD = 2.0  # standard deviation of the logits of a detector's classes: most boxes then have a class, as in a crowd
# A share of a result may differ from MM's in eager float32: which of two boxes of nearly the same score stays.
TOLERANCES = dict(fp32=0.02, bf16=0.3, int8=1.0)


@dataclass
class Made:
    """Of one model at one size.

    Attributes:
        flops: Of one picture, two a multiply-add.
        found: Detections in the picture, or classes in it.
        files: By ``RUNTIME/PRECISION`` the file that a turn of it takes.
        errors: By the same, the share of the result that differs from MM's own in eager float32.
        skipped: By the same, why there is no file.
    """

    flops: int
    found: int
    files: dict[str, str]
    errors: dict[str, float]
    skipped: dict[str, str]


def draw_picture(path: Path, size: Sequence[int], seed: int) -> None:
    """A picture file that becomes an input of ``size`` (height, width) when enlarged, as a photograph would."""
    height, width = (round(side / ENLARGED) for side in size)
    pixels = photographs((1, 3, height, width), seed)[0].permute(1, 2, 0) * 50 + 120
    Image.fromarray(pixels.clamp(0, 255).numpy().astype(np.uint8)).save(path, quality=95)


def make_files(
    name: str, size: Sequence[int], wanted: Sequence[str], picture: str, folder: str, seed: int, threads: int
) -> dict[str, Any]:
    """Build a model, write the files of all its runtimes, and compare what they find: a :class:`Made`, as a dict.

    Args:
        name: As :func:`.model_list.parse_model` takes it.
        size: Height and width.
        wanted: ``RUNTIME/PRECISION`` each.
        picture: Of :func:`draw_picture`.
        folder: For the files.
        seed: Of the weights.
        threads: Of the CPU.

    Raises:
        UserError: It is no detector or segmentor, or cannot be built or exported at all.
    """
    torch.set_num_threads(threads)
    with quiet_log():
        cfg = _at_size(load(parse_model(name)), size)
        model = build(cfg, seed)
        task = 'detection' if cfg.default_scope == 'mmdet' else 'segmentation'
        planned = plan(cfg, task, None, ())
        maker = _Maker(cfg, model, planned, Path(picture), Path(folder))
        widen_scores(maker)
        made = Made(2 * count_complexity(cfg, (size[0], size[1])).flops, maker.found(), {}, {}, {})
        for key in wanted:
            try:
                made.files[key], made.errors[key] = maker.make(*key.split('/'))
            except (UserError, RuntimeError) as error:  # of an exporter about one network: the others go on
                made.skipped[key] = (str(error).strip().splitlines() or [''])[0][:200]
    return vars(made)


def build(cfg: Config, seed: int) -> nn.Module:
    """The model of a config with random weights, its BN with statistics of their own; nothing is downloaded."""
    init_default_scope(cfg.default_scope)
    torch.manual_seed(seed)
    model = revert_sync_batchnorm(MODELS.build(_without_checkpoints(cfg.model)))
    model.init_weights()
    settle_norms(model if cfg.default_scope == 'mmseg' else model.backbone, SETTLING_SIZE, seed)
    return model.eval().requires_grad_(False)


def _without_checkpoints(model: ConfigDict) -> ConfigDict:
    """The config of a model, with no checkpoint named in it; how weights are drawn stays."""
    model = copy.deepcopy(model)
    model.pop('pretrained', None)
    model.get('backbone', {}).pop('init_cfg', None)
    return model


def widen_scores(maker: '_Maker') -> None:
    """Scale a detector's class weights until boxes and masks come out as they do of a trained one."""
    head = getattr(getattr(maker.model, 'roi_head', None), 'bbox_head', None)
    if head is None or not hasattr(head, 'fc_cls'):
        return
    seen: list[Tensor] = []
    hook = head.fc_cls.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        maker.see(maker.model)
    finally:
        hook.remove()
    with torch.no_grad():
        head.fc_cls.weight *= SPREAD / seen[0].std(0).mean().clamp(min=1e-6)


class _Maker:
    """The files of one model."""

    def __init__(self, cfg: Config, model: nn.Module, planned: Plan, picture: Path, folder: Path) -> None:
        self.cfg, self.model, self.planned, self.picture, self.folder = cfg, model, planned, picture, folder
        self.task = 'detection' if cfg.default_scope == 'mmdet' else 'segmentation'
        self.folded = fold(model) if any(isinstance(part, NextViT) for part in model.modules()) else None
        self.expected: dict[str, Any] = {}
        self.graph: Graph | None = None
        self.about = About()

    def see(self, model: nn.Module) -> dict[str, Any]:
        return see(model, self.task, self.planned, self.picture).results

    def found(self) -> int:
        """Build what all files share; detections, or classes, that MM's model finds."""
        if self.folded is not None:
            self.folded = fold(self.model)  # its scores were widened
        self.expected = self.see(self.model)
        source = copy.deepcopy(self.model) if self.folded is None else copy.deepcopy(self.folded)
        self.graph = make_graph(source, 'model')
        self.about = describe(self.cfg, self.model, self.graph, read_metainfo(self.cfg), self.planned, (), False)
        return len(self.expected.get('scores', ())) or len(np.unique(self.expected.get('class_map', ())))

    def make(self, runtime: str, precision: str) -> tuple[str, float]:
        """The file of a runtime and precision, and the share of its result that differs."""
        if runtime in ('eager', 'folded'):
            return self._save(runtime)
        to, suffix, write = WRITERS[runtime]
        path = self.folder / f'model{suffix}'
        predictor = Predictor(path, session=lambda array: [], about=self.about)
        placed = predictor.place(self.picture)
        if not path.exists():
            save_about(self.about, path)
            write(self.graph, torch.from_numpy(placed.tensor), path, self.graph.outputs)
        if precision == 'int8':
            path, source = path.with_name(f'int8{suffix}'), path
            quantize(source, path, [self.picture])
            save_about(self.about, path)
        outputs = outputs_of(path, to, [placed.tensor])[0]
        result = predictor.interpret(outputs, placed)
        return str(path), self._difference(dict(result, input_map=outputs[0][0]))

    def _save(self, runtime: str) -> tuple[str, float]:
        model = self.model if runtime == 'eager' else self.folded
        if model is None:
            raise UserError("only this project's backbone can be folded")
        path = self.folder / f'{runtime}.pt'
        saved = dict(model=model, planned=self.planned, about=self.about, scope=self.cfg.default_scope)
        torch.save(saved, path)
        if runtime == 'eager':
            return str(path), 0.0
        found = self.see(model)
        if 'masks' in found:
            found['masks'] = found['masks'] >= 255 * self.about['test_cfg']['mask_thr_binary']
        return str(path), self._difference(found)

    def _difference(self, result: dict[str, Any]) -> float:
        figures = compare(self.task, result, self.expected, self.about.get('test_cfg', {}))
        if self.task == 'segmentation':
            return 1 - figures['equal pixels']
        return figures['unmatched detections'] / max(figures['detections'], 1)


def _at_size(cfg: Config, size: Sequence[int]) -> Config:
    """A config whose test pipeline makes an input of a height and width of the picture, and nothing else."""
    scope = cfg.get('default_scope')
    if scope not in PACKERS:
        raise UserError(f'{cfg.filename} has default_scope={scope!r}: whole models are detectors and segmentors')
    if any(side % STRIDE for side in size):
        raise UserError(f'a whole model is measured at multiples of {STRIDE} pixels, not at {size[0]}×{size[1]}')
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(size[1], size[0]), keep_ratio=False),
        dict(type=PACKERS[scope]),
    ]
    kind = next(iter(_datasets(cfg)), dict(type='CocoDataset' if scope == 'mmdet' else 'ADE20KDataset'))
    cfg.test_dataloader = dict(dataset=dict(type=kind['type'], metainfo=kind.get('metainfo', {}), pipeline=steps))
    if scope == 'mmseg':
        cfg.model.test_cfg = dict(mode='whole')
        cfg.model.data_preprocessor.pop('test_cfg', None)
    return cfg


def _datasets(cfg: Config) -> list[dict]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    return list(leaf_datasets(dataset)) if dataset else []
