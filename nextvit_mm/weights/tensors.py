"""``.safetensors``: tensors, and for files of ``tools/publish.py`` what belongs to them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError

KEY = 'nextvit_mm'  # of the file's metadata, which holds strings only


def read_safetensors(path: Path, map_location: Any = None) -> dict[str, Any]:
    """The tensors by name; of a published file under ``state_dict``, with ``meta`` beside them, as MMEngine saves them.

    Args:
        path: The file.
        map_location: A device. What else ``torch.load`` takes is of pickles alone: tensors then stay on the CPU.

    Raises:
        WeightsError: safetensors is not installed, or the file is damaged.
    """
    try:
        from safetensors import safe_open
    except ImportError:
        raise WeightsError(f'{path}: reading .safetensors needs: pip install safetensors') from None
    device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        with safe_open(path, 'pt', device='cpu') as file:
            state_dict = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
            meta = (file.metadata() or {}).get(KEY)
        return state_dict if meta is None else dict(state_dict=state_dict, meta=json.loads(meta))
    except Exception as error:  # SafetensorError, and what damaged bytes lead to
        lines = str(error).strip().splitlines()
        raise WeightsError(
            f'{path} is not a safetensors file, or is damaged ({lines[0] if lines else type(error).__name__})'
        ) from None


def write_safetensors(path: Path, state_dict: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
    """Write what :func:`read_safetensors` reads.

    Args:
        path: The file, which is replaced.
        state_dict: Tensors by name. Those that share memory are written once each.
        meta: What JSON can hold.

    Raises:
        WeightsError: safetensors is not installed.
    """
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise WeightsError(f'{path}: writing .safetensors needs: pip install safetensors') from None
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state_dict.items()}
    save_file(tensors, path, metadata={'format': 'pt', KEY: json.dumps(meta)})
