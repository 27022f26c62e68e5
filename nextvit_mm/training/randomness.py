"""The states of Python's, NumPy's and torch's random numbers, kept in checkpoints."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size


def own_state() -> dict[str, Any]:
    """This process's, as tensors and numbers, which can be read without running code."""
    _, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state()
    _, keys, position, has_gauss, cached = numpy_state
    state: dict[str, Any] = dict(
        python=torch.tensor(words, dtype=torch.int64),
        python_gauss=gauss,
        numpy=torch.from_numpy(keys.astype(np.int64)),
        numpy_rest=[int(position), int(has_gauss), float(cached)],
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_own_state(state: dict[str, Any]) -> None:
    """Go on with the random numbers of :func:`own_state`."""
    random.setstate((3, tuple(state['python'].tolist()), state['python_gauss']))
    position, has_gauss, cached = state['numpy_rest']
    np.random.set_state(
        ('MT19937', state['numpy'].cpu().numpy().astype(np.uint32), int(position), int(has_gauss), float(cached))
    )
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def gather_states(state: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Those of every process, in the order of ranks; every process must call it."""
    return all_gather_object(state or own_state())


def restore_states(states: list[dict[str, Any]]) -> bool:
    """Set this process's of :func:`gather_states`; False where there were more or fewer processes."""
    if len(states) != get_world_size():
        return False
    set_own_state(states[get_rank()])
    return True
