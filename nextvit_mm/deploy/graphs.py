"""Which network is exported of a model."""

from torch import nn

from ..errors import UserError
from .boxes import NonMaxSuppression
from .graph import BackboneGraph, ClassifierGraph, Graph
from .one_stage import OneStageGraph
from .segmentors import ExportableAdaptiveAvgPool2d, SegmentorGraph
from .two_stage import TwoStageGraph

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
    if hasattr(model, 'roi_head'):
        return TwoStageGraph(model).eval()
    if hasattr(model, 'bbox_head'):
        return OneStageGraph(model).eval()
    if hasattr(model, 'decode_head'):
        return SegmentorGraph(model).eval()
    if hasattr(model, 'head'):
        return ClassifierGraph(model).eval()
    raise UserError(f'{type(model).__name__} cannot be exported whole: take --what backbone')
