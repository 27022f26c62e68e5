"""The loss of a segmentor whose classes differ much in their numbers of pixels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ClassWeightedCrossEntropy(nn.Module):
    """Cross entropy with weights of classes, for ``loss_decode`` of MMSegmentation's heads.

    With the label y_i and the cross entropy l_i of pixel i, over all pixels that are not ignored:

        Σ w(y_i) l_i / Σ w(y_i)

    MMSegmentation's own ``CrossEntropyLoss`` cannot take weights of classes beside ignored pixels: it looks up the
    weight of label 255.

    Args:
        class_weight: A weight for each class.
        loss_weight: Of the whole. Default 1.
        loss_name: In the log; what begins with ``loss`` is learned from. Default ``'loss_ce'``.
    """

    def __init__(self, class_weight: Sequence[float], loss_weight: float = 1.0, loss_name: str = 'loss_ce') -> None:
        super().__init__()
        self.register_buffer('class_weight', torch.tensor(class_weight, dtype=torch.float32), persistent=False)
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = 255) -> Tensor:
        """The loss of logits (B, C, H, W) for labels (B, H, W); 0 where all pixels are ignored.

        ``weight`` (B, H, W) is that of each pixel, such as a sampler's.
        """
        weights = self.class_weight  # of float32: in half precision the sum over a batch would be infinite
        losses = F.cross_entropy(pred.float(), target, weights, ignore_index=ignore_index, reduction='none')
        taken = weights[target.clamp(0, len(weights) - 1)] * (target != ignore_index)
        if weight is not None:
            losses, taken = losses * weight, taken * weight
        return self.loss_weight * losses.sum() / taken.sum().clamp(min=torch.finfo(taken.dtype).tiny)
