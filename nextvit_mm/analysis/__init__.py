from .drawing import draw_detections, draw_losses, read_scalars

__all__ = ['draw_detections', 'draw_losses', 'read_scalars']
