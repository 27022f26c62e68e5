"""Detectors as networks that are exported: MMDetection's test path in standard operators."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from ..errors import UserError
from .graph import WHOLE, Graph

# Settings of mmcv's NMS: those that any value is understood of, and values that change nothing.
NMS = dict(type=None, iou_threshold=None, split_thr=None, class_agnostic=False, offset=0, score_threshold=0, max_num=-1)
CODERS = ('DeltaXYWHBBoxCoder', 'DistancePointBBoxCoder')  # what they do is traced as it is


class DetectorGraph(Graph):
    """Image (1, 3, H, W) -> ``boxes`` (K, 4), ``scores`` (K), ``labels`` (K), the best first.

    Boxes are in pixels of the given image, which is padded to the model's divisor inside, so that they are clipped
    where MMDetection clips them. ``labels`` are int64. K is found at run time, at most ``max_per_img``.

    Attributes:
        test_cfg (ConfigDict): ``score_thr``, ``max_per_img`` and, with masks, ``mask_thr_binary``.
    """

    task = 'detection'
    outputs: tuple[str, ...] = ('boxes', 'scores', 'labels')
    test_cfg: ConfigDict

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.pad_as(model.data_preprocessor)

    def run(self, image: Tensor) -> tuple[Tensor, ...]:
        # (W, H, W, H); torch._shape_as_tensor keeps sizes as values of the graph, where int() would freeze them.
        limits = torch._shape_as_tensor(image)[2:].flip(0).repeat(2).to(image.dtype)
        return self.find(self.model.extract_feat(self.padded(image)), limits)

    @abstractmethod
    def find(self, features: Sequence[Tensor], limits: Tensor) -> tuple[Tensor, ...]:
        """From the neck's maps to as many tensors as :attr:`outputs`.

        Args:
            features: (1, C, h, w) each.
            limits: (W, H, W, H) of the image before padding.
        """


def check_methods(part: nn.Module, base: type, *names: str) -> None:
    """Refuse a part whose class has methods of its own where the graph does what those of ``base`` do.

    Raises:
        UserError: It has.
    """
    own = [name for name in names if getattr(type(part), name, None) is not getattr(base, name)]
    if own or not isinstance(part, base):
        how = ', '.join(own) or f'no {base.__name__}'
        raise UserError(f'{type(part).__name__} finds objects in a way of its own ({how}): {WHOLE}')


def check_kind(part: object, name: str, *wanted: str) -> None:
    """Refuse a part that is of another class than those wanted.

    Raises:
        UserError: It is.
    """
    kind = type(part).__name__ if part is not None else 'nothing'
    if kind not in wanted:
        raise UserError(
            f'this detector has {kind} as {name}, and what can be exported whole has {" or ".join(wanted)}: '
            'take --what backbone'
        )


def check_coder(coder: object, name: str, *wanted: str) -> None:
    """Refuse a box coder of another kind than those wanted, and one whose boxes may leave the picture.

    Raises:
        UserError: It is such.
    """
    check_kind(coder, name, *wanted)
    if not getattr(coder, 'clip_border', True):
        raise UserError(f'{name}.clip_border=False is not exported: leave it out, or take --what backbone')


def check_values(config: Mapping[str, Any], name: str, *needed: str) -> None:
    """Refuse a test path that lacks a value without which MMDetection itself cannot predict.

    Raises:
        UserError: One is missing.
    """
    for key in needed:
        if key not in config:
            raise UserError(f'model.test_cfg.{name} has no {key}: set it')


def check_nms(config: Mapping[str, Any], name: str, *needed: str) -> None:
    """Refuse settings of the test path that have no standard operator, or none of the values that it needs.

    Raises:
        UserError: They are such.
    """
    nms = config.get('nms') or {}
    where = f'model.test_cfg.{name}' if name else 'model.test_cfg'
    if nms.get('type', 'nms') != 'nms':
        raise UserError(f'{where}.nms.type={nms["type"]} has no standard operator: take nms')
    for key, value in nms.items():
        if key not in NMS or (NMS[key] is not None and value != NMS[key]):
            raise UserError(f'{where}.nms.{key}={value} is not exported: leave it out, or take --what backbone')
    if 'iou_threshold' not in nms:
        raise UserError(f'{where}.nms has no iou_threshold: set it')
    for key in needed:
        if not config.get(key, 0) > 0:
            raise UserError(f'{where}.{key} must be above 0, because an exported file keeps the best so many: set it')
