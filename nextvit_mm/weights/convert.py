"""Writing a weights file in another dialect."""

import os
import tempfile
from pathlib import Path

import torch

from ..errors import WeightsError
from .checkpoint import load_state, unwrap
from .io import read_weights
from .keys import convert, describe_weights, detect_prefix, is_folded

OUTPUTS = ('.safetensors', '.pth')


def convert_file(source: str, target: str | Path, to: str) -> str:
    """Convert a weights file to another dialect's names; the tensors stay as they are.

    Args:
        source: A file, an address, ``hf-hub:…`` or the name of published weights.
        target: ``.safetensors``, or ``.pth``, which wraps the tensors as the dialect's own files do: under
            ``state_dict`` for ``'mm'``, under ``model`` for ``'official'``.
        to: ``'mm'``, ``'timm'`` or ``'official'``.

    Returns:
        str: A report: what the source is, what was written, which names stayed as they were.

    Raises:
        WeightsError: The source cannot be read or is no Next-ViT of a published size, or the target exists or
            cannot be written; then nothing is written.
    """
    target = Path(target)
    if target.suffix not in OUTPUTS:
        raise WeightsError(f'{target} must end in {" or ".join(OUTPUTS)}')
    if target.exists():
        raise WeightsError(f'{target} exists already, and is not overwritten')
    if not target.parent.is_dir():
        raise WeightsError(f'{target.parent} is not a folder')
    _, state_dict = load_state(source)
    prefix = detect_prefix(state_dict)
    if is_folded(name[len(prefix) :] for name in state_dict if name.startswith(prefix)):
        raise WeightsError(f'{source}: its BN are folded into the convolutions; only unfolded weights have a dialect')
    try:
        converted = convert(state_dict, to)
    except ValueError as error:
        raise WeightsError(f'{source} holds {error}') from None
    try:
        _write(converted, target, to)
    except OSError as error:
        raise WeightsError(f'{target} cannot be written: {error.strerror or error}') from None
    changed = len(set(converted) - set(state_dict))
    return '\n'.join(
        [
            f'{source}: {describe_weights(state_dict)}, {len(state_dict)} tensors',
            f'{target}: {to} names, {len(converted)} tensors, {changed} of them renamed',
            'other parts: '
            + (
                ', '.join(
                    sorted(
                        {
                            name.split('.')[0]
                            for name in converted
                            if not name.startswith(('stem.', 'stages.', 'features.', 'backbone.'))
                        }
                    )
                )
                or 'none'
            ),
        ]
    )


def _write(state_dict: dict[str, torch.Tensor], target: Path, to: str) -> None:
    """Write beside the target, read back, and move into place."""
    # A copy each: .safetensors takes no tensors that share memory.
    state_dict = {name: tensor.clone().contiguous() for name, tensor in state_dict.items()}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix='.convert-') as folder:
        part = Path(folder) / target.name
        if target.suffix == '.safetensors':
            from safetensors.torch import save_file

            save_file(state_dict, part)
        else:
            wrapper = dict(mm='state_dict', official='model').get(to)
            torch.save({wrapper: state_dict} if wrapper else state_dict, part)
        written = unwrap(read_weights(part), str(target))
        if set(written) != set(state_dict) or not all(_same(written[n], t) for n, t in state_dict.items()):
            raise WeightsError(f'{target} did not read back as it was written; the disk may be full or failing')
        os.replace(part, target)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are the same, NaN included."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    )
