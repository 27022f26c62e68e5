"""Which network is exported of a model."""

from torch import nn

from ..errors import UserError
from .detectors import DetectorGraph, NonMaxSuppression
from .graph import BackboneGraph, ClassifierGraph, Graph
from .segmentors import ExportableAdaptiveAvgPool2d, SegmentorGraph

__all__ = ['ExportableAdaptiveAvgPool2d', 'Graph', 'NonMaxSuppression', 'make_graph']


def make_graph(model: nn.Module, what: str) -> Graph:
    """The network that is exported of a (folded) MM model.

    Args:
        model: Detector, segmentor, classifier, or a backbone.
        what: ``'backbone'`` or ``'model'``.

    Raises:
        UserError: There is no export for this kind of model.
    """
    if what == 'backbone':
        return BackboneGraph(getattr(model, 'backbone', model)).eval()
    if hasattr(model, 'roi_head') or hasattr(model, 'bbox_head'):
        return DetectorGraph(model).eval()
    if hasattr(model, 'decode_head'):
        return SegmentorGraph(model).eval()
    if hasattr(model, 'head'):
        return ClassifierGraph(model).eval()
    raise UserError(f'{type(model).__name__} cannot be exported whole: take --what backbone')
