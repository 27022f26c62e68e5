from .drawing import draw_classifications, draw_detections, draw_losses, draw_segmentations
from .logs import read_scalars

__all__ = ['draw_classifications', 'draw_detections', 'draw_losses', 'draw_segmentations', 'read_scalars']
