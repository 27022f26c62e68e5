"""A config's model with its weights, ready to be used."""

import copy

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..errors import UserError
from ..models import NextViT
from ..utils.metainfo import Metainfo, read_metainfo
from ..weights.models import load_exactly
from .building import clear_config_errors
from .preflight import check_checkpoint, check_pretrained


def load_model(
    cfg: Config, checkpoint: str | None, what: str, random_weights: bool = False
) -> tuple[nn.Module, Metainfo]:
    """Build the config's model with its weights, in eval mode; its classes are the checkpoint's or the config's."""
    if checkpoint and random_weights:
        raise UserError('a checkpoint and --random-weights exclude each other')
    if not checkpoint and what == 'model' and not random_weights:
        raise UserError(
            'a whole model needs its weights: give a CHECKPOINT after the config (or --random-weights, to '
            'measure speed only, or --what backbone)'
        )
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    cfg = copy.deepcopy(cfg)
    if cfg.get('data_preprocessor'):  # where MMPretrain's configs have it; MMEngine's Runner does the same
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    backbone = cfg.model.get('backbone', {})
    if checkpoint:
        check_checkpoint(checkpoint)
    elif not random_weights:
        if 'Pretrained' not in str(backbone.get('init_cfg')):
            raise UserError(
                f'the backbone of {cfg.filename} names no pretrained weights: give a CHECKPOINT after the '
                'config (or --random-weights, to measure speed only)'
            )
        check_pretrained(cfg)
    if checkpoint or random_weights:
        backbone['init_cfg'] = None
    with clear_config_errors(cfg):
        model = MODELS.build(cfg.model)
    if not isinstance(getattr(model, 'backbone', None), NextViT):
        raise UserError(f'{cfg.filename} has no Next-ViT as backbone')
    loaded = None
    if checkpoint:
        loaded = load_exactly(model, checkpoint, cfg.filename)
    else:
        torch.manual_seed(0)
        (model.backbone if what == 'backbone' else model).init_weights()
    return model.eval(), read_metainfo(cfg, loaded)
