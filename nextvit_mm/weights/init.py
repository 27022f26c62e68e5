"""Initialising a backbone from published or own weights: everything arrives, or training does not start."""
import re
from typing import List, Optional

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader
from torch import nn

from ..errors import WeightsError
from .io import unwrap
from .keys import to_ours

# What a classifier's or detector's file has and a backbone need not take.
LEFTOVERS = r'(head|proj_head|norm\d+|extra_norm_list\.\d+)\.'
# What a backbone may have and a classifier's file does not: the norms that dense models add after stages.
ADDED = r'norm\d+\.'


@WEIGHT_INITIALIZERS.register_module()
class NextViTPretrained:
    """What ``init_cfg=dict(type='Pretrained', checkpoint=…)`` of a :class:`NextViT` does.

    Args:
        checkpoint: A file, or the name of published weights (:func:`nextvit_mm.weights.list_models`), with the
            authors', timm's or our names.
        prefix: Where the backbone lies in the file, such as ``'backbone.'`` for a detector's. Default None.
        map_location: As ``torch.load`` takes it. Default ``'cpu'``.

    Raises:
        WeightsError: The file lacks a parameter of the backbone, holds one that the backbone has not, or one of
            another shape, except classifier heads and output norms, which come and go with the use.
    """

    def __init__(self, checkpoint: str, prefix: Optional[str] = None, map_location: str = 'cpu') -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        state_dict = unwrap(CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location), self.checkpoint)
        if self.prefix:
            state_dict = {k[len(self.prefix):]: v for k, v in state_dict.items() if k.startswith(self.prefix)}
        state_dict = to_ours(state_dict, [len(stage.blocks) for stage in module.arch.stages])
        own = module.state_dict()

        missing = [k for k in own if k not in state_dict and not re.match(ADDED, k)]
        built = len(module.stages)
        unexpected = [k for k in state_dict
                      if k not in own and not re.match(LEFTOVERS, k) and not _beyond(k, built, len(module.arch.stages))]
        misshapen = [f'{k} {tuple(state_dict[k].shape)} for {tuple(own[k].shape)}'
                     for k in own if k in state_dict and state_dict[k].shape != own[k].shape]
        if missing or unexpected or misshapen:
            raise WeightsError(f'{self.checkpoint} does not fit the backbone, and nothing was loaded: '
                               f'{_some("missing in the file", missing)}; {_some("not in the model", unexpected)}; '
                               f'{_some("of another shape", misshapen)}. Is it another size, or another network? '
                               "In a detector's or segmentor's file the backbone's names start with 'backbone.': give init_cfg "
                               "prefix='backbone.' (--no-pretrained trains from scratch)")
        loaded = {k: v for k, v in state_dict.items() if k in own}
        module.load_state_dict({**own, **loaded})
        left = sorted({k.split('.')[0] for k in state_dict if k not in own})
        fresh = sorted({k.split('.')[0] for k in own if k not in loaded})
        print_log(f'{self.checkpoint}: {len(loaded)} of {len(own)} tensors of the backbone loaded; left in the file: '
                  f'{", ".join(left) or "nothing"}; not in the file: {", ".join(fresh) or "nothing"}', 'current')


def _beyond(name: str, built: int, num_stages: int) -> bool:
    """Whether the name belongs to a stage of the architecture that ``out_indices`` leaves out."""
    match = re.match(r'stages\.(\d+)\.', name)
    return bool(match) and built <= int(match[1]) < num_stages


def _some(what: str, names: List[str], most: int = 3) -> str:
    shown = ', '.join(names[:most]) + (', …' if len(names) > most else '')
    return f'{len(names)} {what}' + (f' ({shown})' if names else '')
