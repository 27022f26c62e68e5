"""Gradients of several batches that are added up when a checkpoint is written in between."""

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from ..weights.models import unwrap_model


def is_between_steps(runner: Runner) -> bool:
    """Whether gradients have been added up that the optimizer has not used yet (``accumulative_counts``)."""
    wrapper = runner.optim_wrapper
    return isinstance(wrapper, OptimWrapper) and not wrapper.should_update()


def gather_gradients(runner: Runner) -> dict[str, Tensor]:
    """The gradients by parameter, means over the processes; nothing where none wait. Every process must call it.

    torch averages the sums of the processes at the last batch of a step. Where each has the mean, that average is the
    same.
    """
    if not is_between_steps(runner):
        return {}
    parameters = dict(unwrap_model(runner.model).named_parameters())
    names = [name for name, parameter in parameters.items() if parameter.grad is not None]
    names = sorted({name for some in all_gather_object(names) for name in some})
    found = {}
    for name in names:
        given = parameters[name].grad
        found[name] = torch.zeros_like(parameters[name]) if given is None else given.detach().clone()
        if get_world_size() > 1:
            all_reduce(found[name], 'mean')
    return found


def restore_gradients(runner: Runner, gradients: dict[str, Tensor]) -> None:
    """Go on with the gradients of :func:`gather_gradients`."""
    for name, parameter in unwrap_model(runner.model).named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)
