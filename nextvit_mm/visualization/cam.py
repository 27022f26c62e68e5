"""Class-activation maps of classifiers, segmentors and detectors, through pytorch-grad-cam.

What is explained is a number y that the model computes from the image; its gradient with respect to a stage's map says
where in the picture that number comes from. y is

- of a classifier, the logit of one class;
- of a segmentor, the mean logit of one class over the pixels that the model gives to it;
- of a detector with an RoI head, the sum of the class logits of its own detections, each computed anew from its final
  box, which is held fixed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError

# Those whose cost is one pass forward and one back; how each weighs a map's channels is the library's.
METHODS = {
    'gradcam': 'GradCAM',
    'gradcam++': 'GradCAMPlusPlus',
    'xgradcam': 'XGradCAM',
    'hirescam': 'HiResCAM',
    'layercam': 'LayerCAM',
    'eigengradcam': 'EigenGradCAM',
    'eigencam': 'EigenCAM',
}
CLASS_FREE = ('eigencam',)  # the map's first principal component, whatever the class


@dataclass
class Explained:
    """What a heat map explains.

    Attributes:
        network: Image (1, 3, H, W) to logits, the batch's dimension first.
        target: From the logits of the one image to y.
        title: In words.
        boxes: (n, 4), the detections in pixels of the image; empty for other tasks.
        labels, scores: (n,), theirs.
        mask: (H, W), bool: the pixels of the class, of a segmentor.
        divisor: What the network pads height and width to a multiple of.
    """

    network: nn.Module
    target: Callable[[Tensor], Tensor]
    title: str
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    mask: np.ndarray | None = None
    divisor: int = 1


class NothingFound(Exception):
    """The model finds nothing in the picture that could be explained; the message says what was looked for."""


def heat_map(
    explained: Explained, layer: nn.Module | Sequence[nn.Module], image: Tensor, method: str = 'gradcam'
) -> np.ndarray:
    """Where in the image y comes from, according to one layer's map, or to the mean over those of several.

    Args:
        explained: From :func:`explain`.
        layer: A module of the model that returns one map (1, C, h, w), or several.
        image: (1, 3, H, W), normalised.
        method: One of :data:`METHODS`.

    Returns:
        np.ndarray: (H, W), 0 to 1, the least and the greatest value; all 0 where nothing speaks for y.

    Raises:
        UserError: pytorch-grad-cam is not installed.
    """
    height, width = image.shape[2:]
    # Padded here, so that the layer's map lies on what it is scaled to. The gradient must reach it, also where all
    # before it is frozen.
    image = _padded(explained.divisor, image.detach()).clone().requires_grad_()
    layers = [layer] if isinstance(layer, nn.Module) else list(layer)
    cam = getattr(library(), METHODS[method])(model=explained.network, target_layers=layers)
    try:
        found = cam(input_tensor=image, targets=[explained.target])[0]
    finally:  # not its context manager, which would swallow an IndexError
        cam.activations_and_grads.release()
        explained.network.zero_grad(set_to_none=True)
    return np.asarray(found, np.float32)[:height, :width]


def explain(
    model: nn.Module,
    image: Tensor,
    classes: Sequence[str] | None = None,
    label: int | None = None,
    min_score: float = 0.3,
) -> Explained:
    """What to explain of an MM model's result on one image.

    Args:
        model: Classifier, segmentor or detector, in eval mode.
        image: (1, 3, H, W), normalised.
        classes: Names of the classes.
        label: The class. Default: of a classifier the predicted one; of a segmentor the one of most pixels, other than
            one named ``background``; of a detector every one that it found.
        min_score: Detections of at least this score count.

    Raises:
        NothingFound: There is no such pixel or detection.
        UserError: There is no such class, or no y for this kind of model.
    """
    kind = explained_kind(model)
    if kind == 'detector':
        return _explain_detector(model, image, classes, label, min_score)
    if kind == 'segmentor':
        return _explain_segmentor(model, image, classes, label)
    return _explain_classifier(model, image, classes, label)


def explained_kind(model: nn.Module) -> str:
    """``'detector'``, ``'segmentor'`` or ``'classifier'``.

    Raises:
        UserError: It is none for which there is a y.
    """
    if hasattr(model, 'roi_head'):
        return 'detector'
    if hasattr(getattr(model, 'decode_head', None), 'num_classes'):
        return 'segmentor'
    if hasattr(getattr(model, 'head', None), 'num_classes') and hasattr(model, 'extract_feat'):
        return 'classifier'
    raise UserError(
        f'{type(model).__name__}: heat maps are for classifiers, segmentors with one decode head, and '
        'detectors with an RoI head'
    )


def find_class(text: str | None, classes: Sequence[str] | None, count: int) -> int | None:
    """The number of a class given by name or number; None for None.

    Raises:
        UserError: There is no such class.
    """
    if text is None:
        return None
    if classes and text in classes:
        return list(classes).index(text)
    if text.isdigit() and int(text) < count:
        return int(text)
    known = f': {", ".join(classes[:12])}{" …" if len(classes) > 12 else ""}' if classes else ''
    raise UserError(f'--class {text} is neither the name of a class nor a number from 0 to {count - 1}{known}')


def count_classes(model: nn.Module) -> int:
    """How many classes a classifier, segmentor or detector tells apart."""
    heads = dict(detector=_bbox_head, segmentor=lambda m: m.decode_head, classifier=lambda m: m.head)
    return heads[explained_kind(model)](model).num_classes


class _Logits(nn.Module):
    """A classifier's logits (1, classes), or a segmentor's (1, classes, h, w)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image, mode='tensor')


class _BoxLogits(nn.Module):
    """A detector's class logits (1, n, classes + 1) of n given boxes (n, 4), in pixels of the image."""

    def __init__(self, model: nn.Module, boxes: Tensor) -> None:
        super().__init__()
        self.model = model
        self.boxes = boxes

    def forward(self, image: Tensor) -> Tensor:
        head = self.model.roi_head
        extractor, bbox_head = head.bbox_roi_extractor, _bbox_head(self.model)
        if isinstance(extractor, nn.ModuleList):
            extractor = extractor[-1]
        regions = torch.cat([self.boxes.new_zeros(len(self.boxes), 1), self.boxes], 1)  # the image's number first
        maps = self.model.extract_feat(_padded(_divisor(self.model), image))
        pooled = extractor(maps[: extractor.num_inputs], regions)
        if getattr(head, 'with_shared_head', False):
            pooled = head.shared_head(pooled)
        return bbox_head(pooled)[0][None]


def _explain_classifier(model: nn.Module, image: Tensor, classes: Sequence[str] | None, label: int | None) -> Explained:
    network = _Logits(model)
    with torch.no_grad():
        scores = network(image)[0].softmax(0)
    predicted = int(scores.argmax())
    label = predicted if label is None else label
    title = f'{_named(label, classes)}, probability {scores[label]:.2f}'
    if label != predicted:
        title += f'\n(predicted: {_named(predicted, classes)}, {scores[predicted]:.2f})'
    return Explained(network, lambda logits: logits[label], title)


def _explain_segmentor(model: nn.Module, image: Tensor, classes: Sequence[str] | None, label: int | None) -> Explained:
    network = _Logits(model)
    with torch.no_grad():
        logits = network(image)  # (1, K, h, w)
        predicted = logits[0].argmax(0)  # (h, w)
        full = F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=False)[0].argmax(0)
    if label is None:
        counts = torch.bincount(predicted.flatten(), minlength=logits.shape[1])
        for i, name in enumerate(classes or ()):
            if name == 'background':
                counts[i] = 0
        if not counts.any():
            raise NothingFound('the model sees nothing but background')
        label = int(counts.argmax())
    pixels = predicted == label
    if not pixels.any():
        raise NothingFound(f'the model gives no pixel to {_named(label, classes)}')
    mask = (full == label).cpu().numpy()
    return Explained(
        network,
        lambda logits: logits[label][pixels].mean(),
        f'{_named(label, classes)}: {100 * mask.mean():.1f} % of the pixels',
        mask=mask,
    )


def _explain_detector(
    model: nn.Module, image: Tensor, classes: Sequence[str] | None, label: int | None, min_score: float
) -> Explained:
    found = _detect(model, image)
    chosen = found.scores >= min_score
    if label is not None:
        chosen &= found.labels == label
    found = found[chosen]
    if not len(found):
        raise NothingFound(
            f'the model detects {"nothing" if label is None else f"no {_named(label, classes)}"} with a '
            f'score of at least {min_score}'
        )
    boxes, labels = found.bboxes.detach(), found.labels
    names = [_named(int(i), classes) for i in labels.unique()]
    title = (
        f'{len(found)} {"detection" if len(found) == 1 else "detections"}: '
        + ', '.join(names[:4])
        + (' …' if len(names) > 4 else '')
        + f'\nscore {found.scores.min():.2f}'
        + (f' to {found.scores.max():.2f}' if len(found) > 1 else '')
    )
    rows = torch.arange(len(found), device=labels.device)
    return Explained(
        _BoxLogits(model, boxes),
        lambda logits: logits[rows, labels].sum(),
        title,
        boxes.cpu().numpy(),
        labels.cpu().numpy(),
        found.scores.cpu().numpy(),
        divisor=_divisor(model),
    )


def _detect(model: nn.Module, image: Tensor) -> Any:
    """The detector's own instances, boxes in pixels of the image."""
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[2:])
    padded = _padded(_divisor(model), image)
    sample = DetDataSample(
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            scale_factor=(1.0, 1.0),
            batch_input_shape=tuple(padded.shape[2:]),
        )
    )
    with torch.no_grad():
        return model.predict(padded, [sample], rescale=False)[0].pred_instances


def _padded(divisor: int, image: Tensor) -> Tensor:
    """To the right and below, with the mean color, as MMDetection's preprocessor does it."""
    height, width = image.shape[2:]
    return F.pad(image, (0, -width % divisor, 0, -height % divisor))


def _divisor(model: nn.Module) -> int:
    return getattr(model.data_preprocessor, 'pad_size_divisor', 1)


def _bbox_head(model: nn.Module) -> nn.Module:
    head = model.roi_head.bbox_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _named(label: int, classes: Sequence[str] | None) -> str:
    return f'"{classes[label]}"' if classes else f'class {label}'


def library():
    """pytorch-grad-cam, imported.

    Raises:
        UserError: It is not installed.
    """
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise UserError(f'heat maps need pytorch-grad-cam: pip install grad-cam ({error})') from None
    return pytorch_grad_cam
