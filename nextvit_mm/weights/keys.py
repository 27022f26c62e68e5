"""Names of parameters: the authors' and timm's turned into ours.

Ours are timm's for the stem and the stages (``stages.{i}.blocks.{j}.…``); the authors number all blocks in one row
(``features.{n}.…``) and call an MLP's layers ``conv1`` and ``conv2``. An output norm of ours is ``norm{stage}``.
"""
import re
from typing import Dict, Mapping, Sequence, TypeVar

T = TypeVar('T')


def to_ours(state_dict: Mapping[str, T], depths: Sequence[int]) -> Dict[str, T]:
    """A backbone's or classifier's state dict in our names; names that are not Next-ViT's are kept as they are.

    Args:
        state_dict: Official, timm's or our names, without a prefix.
        depths: Blocks per stage of the model that will take them.

    Returns:
        dict: The same values. The norm before a classifier (``norm``) becomes that of the last stage; the
        authors' segmentors' ``extra_norm_list.{i}`` become that of stage i, except the last, which they never use.
    """
    return {new: value for new, value in ((_to_ours(name, depths), value) for name, value in state_dict.items())}


def _to_ours(name: str, depths: Sequence[int]) -> str:
    match = re.match(r'features\.(\d+)\.(.*)', name)
    if match:
        stage, block = _locate(int(match[1]), depths)
        rest = re.sub(r'^mlp\.conv([12])\.', r'mlp.fc\1.', match[2])
        return f'stages.{stage}.blocks.{block}.{rest}'
    match = re.match(r'norm\.(.*)', name)
    if match:
        return f'norm{len(depths) - 1}.{match[1]}'
    match = re.match(r'extra_norm_list\.(\d+)\.(.*)', name)
    if match and int(match[1]) < len(depths) - 1:
        return f'norm{match[1]}.{match[2]}'
    return name


def _locate(number: int, depths: Sequence[int]) -> tuple:
    """(stage, block) of the block that the authors number ``number``; past the end it lands in a stage too many."""
    for stage, depth in enumerate(depths):
        if number < depth:
            return stage, number
        number -= depth
    return len(depths), number
