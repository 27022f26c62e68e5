"""Focal loss (arXiv 1708.02002), in the form of mmcv's CUDA kernels; mmcv compiles none for the CPU."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .precision import wide

TINY = torch.finfo(torch.float32).tiny  # logarithms are taken of no less


def _log(probability: Tensor) -> Tensor:
    return probability.clamp(min=TINY).log()


def _weighted(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Times the weight of each row's class; an empty weight is none."""
    if not weight.numel():
        return values
    rows = wide(weight)[target]
    return values * rows.view(-1, *[1] * (values.dim() - 1))


def _is_class(input: Tensor, target: Tensor) -> Tensor:
    """(N, C), true where a column is its row's class; a target of C, the background, is none."""
    return target[:, None] == torch.arange(input.size(1), device=input.device)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the loss of logits (N, C) for targets (N,) in 0…C, of which C is the background."""
    p = wide(input).sigmoid()
    loss = torch.where(
        _is_class(input, target), -alpha * (1 - p) ** gamma * _log(p), -(1 - alpha) * p**gamma * _log(1 - p)
    )
    output.copy_(_weighted(loss, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of each loss by its own logit."""
    p = wide(input).sigmoid()
    gradient = torch.where(
        _is_class(input, target),
        -alpha * (1 - p) ** gamma * (1 - p - gamma * p * _log(p)),
        -(1 - alpha) * p**gamma * (gamma * (1 - p) * _log(1 - p) - p),
    )
    grad_input.copy_(_weighted(gradient, target, weight))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N,) with the loss of probabilities (N, C); a row whose target is negative has none."""
    label = target.clamp(min=0)
    p = wide(input).gather(1, label[:, None])[:, 0]
    loss = -alpha * (1 - p) ** gamma * _log(p)
    output.copy_(_weighted(loss, label, weight).masked_fill(target < 0, 0))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative by the logits, and ``buff`` (N,) with its factor for each row."""
    label = target.clamp(min=0)
    softmax = wide(input)
    p = softmax.gather(1, label[:, None])[:, 0]
    factor = alpha * (-((1 - p) ** gamma) + gamma * (1 - p) ** (gamma - 1) * p * _log(p))
    factor = _weighted(factor, label, weight).masked_fill(target < 0, 0)
    buff.copy_(factor)
    grad_input.copy_(factor[:, None] * (one_hot(label, input.size(1)) - softmax))
