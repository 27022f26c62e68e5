"""Networks to look at, as a command line names them, and pictures as each of them takes them."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from ..adapt.network import is_nextvit
from ..deploy.info import describe_input, find_pictures
from ..deploy.steps import plan
from ..errors import UserError
from ..predict.predictor import About, Input, as_rgb, place
from ..training.channels import USUAL, channels_of, fit_channels
from ..training.config import load_config, set_data_root
from ..training.loading import load_model
from ..training.preflight import check_checkpoint
from ..utils.metainfo import Metainfo, read_metainfo
from ..utils.norms import batch_norms, new_statistics
from ..utils.optional import need
from ..weights.models import load_exactly
from ..weights.zoo import ZOO

RANDOM = 'random weights'
CONFIG = re.compile(r'^(?P<config>.+?\.py)(?::(?P<checkpoint>.+))?$')
BATCH = 8  # pictures that BN take their statistics from at once


@dataclass
class Network:
    """A network to look at.

    Attributes:
        name: Of the network.
        weights: Where its weights are from, or :data:`RANDOM`.
        model: The whole MM model, or the backbone alone.
        backbone: Image (B, C, H, W) to feature maps; a part of ``model``.
        about: How a picture becomes its input, as :func:`nextvit_mm.predict.predictor.place` takes it.
        classes: Names of the classes, where there are any.
        channels_last: Whether its maps come as (B, h, w, C).
    """

    name: str
    weights: str
    model: nn.Module
    backbone: nn.Module
    about: About
    classes: list[str] | None = None
    channels_last: bool = False

    @property
    def title(self) -> str:
        return f'{self.name}, {self.weights}'

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def prepare(self, picture: np.ndarray) -> Tensor:
        """A picture (H, W, C), uint8, as the network's input (1, C, H', W')."""
        return torch.from_numpy(place(picture, self.about).tensor).to(self.device)

    def shown(self, picture: np.ndarray) -> np.ndarray:
        """The part of a picture that the network sees, RGB (H', W', 3), uint8, at the size of its input."""
        plain: About = {**self.about, 'input': {**self.about['input'], 'color': 'RGB', 'mean': [0], 'std': [1]}}
        seen = place(picture, plain).tensor[0].transpose(1, 2, 0).clip(0, 255).round().astype(np.uint8)
        return as_rgb(seen)


def read_config(config: str, data_root: str | None = None, cfg_options: dict | None = None) -> Config:
    """A config file with the changes of the command line, or one of a library, as ``mmdet::folder/name.py``."""
    if '::' in config:
        from mmengine.hub import get_config

        need(config.split('::')[0], config)  # MMEngine would install it by itself
        try:
            cfg = get_config(config)
        except Exception as error:  # whatever MMEngine raises: the library or its config is not there
            raise UserError(f'{config} cannot be read as a config: {type(error).__name__}: {error}') from None
        cfg.merge_from_dict(cfg_options or {})
    else:
        cfg = load_config(config, cfg_options)
    if 'backbone' not in cfg.get('model', {}):
        raise UserError(f'{config} has no model with a backbone')
    if data_root:
        set_data_root(cfg, data_root)
    fit_channels(cfg, ('test',))
    return cfg


def load_network(
    cfg: Config,
    checkpoint: str | None = None,
    random_weights: bool = False,
    task: str | None = None,
    size: Sequence[int] | None = None,
    exact: bool = False,
    pictures_of: Config | None = None,
    device: str = 'cpu',
) -> Network:
    """The model of a config.

    Args:
        cfg: A config of MMDetection, MMSegmentation or MMPretrain.
        checkpoint: Its weights. Default, for a backbone alone: those that the config names.
        random_weights: Initialise it instead; seed 0.
        task: ``'backbone'`` needs no weights for the rest, and has no classes. Default: the whole model.
        size: Height and width. Default: what the config's test pipeline makes of a picture.
        exact: Whether pictures become just that size; else they are resized to fit, their ratio kept.
        pictures_of: A config whose test pipeline sizes the pictures instead of this one's.
        device: Where to.

    Raises:
        UserError: Something is missing or does not fit.
    """
    if is_nextvit(cfg.model.backbone):
        if not checkpoint and not random_weights and 'Pretrained' not in str(cfg.model.backbone.get('init_cfg')):
            raise UserError(f'{_stem(cfg)} needs its weights: give a CHECKPOINT after the config, or --random-weights')
        if not checkpoint and not random_weights and task != 'backbone':
            raise UserError('a whole model needs its weights: give a CHECKPOINT after the config, or --random-weights')
        model, info = load_model(
            cfg, checkpoint, 'backbone' if task == 'backbone' and not checkpoint else 'model', random_weights
        )
        weights = RANDOM if random_weights else _weights_of(checkpoint or _pretrained(cfg))
    else:
        model, info = _load_other(cfg, checkpoint)
        weights = _weights_of(checkpoint) if checkpoint else RANDOM
    about = describe_pictures(pictures_of or cfg, model, task, size)
    if exact and size:
        first = next((step for step in about['steps'] if step['do'] == 'resize'), dict(library='cv2'))
        usual = dict(do='resize', interpolation='bilinear')
        about['steps'] = [{**usual, **first, 'to': dict(exact=list(size))}]
    classes = None if task == 'backbone' else info.classes
    return Network(_stem(cfg), weights, model.to(device), model.backbone, about, classes)


def describe_pictures(
    cfg: Config, model: nn.Module, task: str | None = None, size: Sequence[int] | None = None
) -> About:
    """How a picture becomes a model's input: :attr:`Network.about`; the arguments are those of :func:`load_network`.

    Raises:
        UserError: The config's test pipeline does what is not understood.
    """
    # Of no task that is exported: a classifier's pictures need not have one size here.
    dynamic = ('size',)
    return describe_input(cfg, model, plan(cfg, task or 'whole', size, dynamic), dynamic)


def load_beside(text: str, own: Config, like: Network, size: tuple[int, int], device: str = 'cpu') -> Network:
    """A network of ``--beside``, for pictures as another network takes them, normalised in its own way.

    Args:
        text: ``random``: that of ``own`` with random weights. ``timm:NAME``, with random weights, or
            ``timm:NAME@pretrained``. ``CONFIG.py`` or ``CONFIG.py:CHECKPOINT`` of an MM library; without a checkpoint
            with random weights.
        own: The config of the network that it is put beside.
        like: That network.
        size: Height and width that the pictures will have, for networks that are built for one.
        device: Where to.

    Raises:
        UserError: There is no such network, or it does not take that size.
    """
    if text == 'random':
        network = load_network(own, random_weights=True, task='backbone', device=device)
        return _sized_as(network, like)
    if channels_of(own) != USUAL:
        raise UserError(f'{own.filename} has in_channels={channels_of(own)}: only --beside random takes as many')
    if text.startswith('timm:'):
        return _sized_as(_load_timm(text, size, device), like)
    match = CONFIG.match(text)
    if not match:
        raise UserError(
            f'--beside {text}: take random, timm:NAME, timm:NAME@pretrained, CONFIG.py or CONFIG.py:CHECKPOINT'
        )
    config, checkpoint = match['config'], match['checkpoint']
    cfg = read_config(config)
    network = load_network(
        cfg, checkpoint, random_weights=not checkpoint, task='backbone', pictures_of=own, device=device
    )
    return _sized_as(network, like)


def take_pictures(cfg: Config, images: str | None, count: int) -> list[np.ndarray]:
    """Up to ``count`` pictures of a file or folder, else of the config's test data, as its test pipeline reads them.

    Raises:
        UserError: There are none.
    """
    if count < 1:
        raise UserError(f'--count {count} must be at least 1')
    init_default_scope(cfg.get('default_scope', 'mmengine'))  # of the library whose data set it may be
    pictures, source = find_pictures(cfg, images, count)
    if source == 'noise':
        raise UserError(f'the test data of {_stem(cfg)} are not here: give --images FILE or DIR, or --data-root DIR')
    return pictures


def settle_statistics(network: Network, pictures: Sequence[np.ndarray]) -> None:
    """Give every BN of a network with random weights the statistics of the pictures, which training would have given.

    With the statistics that it is built with, a BN normalises nothing, and a network of many random layers can make
    little but zeros or infinities of a picture.
    """
    if not batch_norms(network.backbone) or network.weights != RANDOM:
        return
    inputs = [network.prepare(picture) for picture in pictures]
    try:
        with torch.no_grad(), new_statistics(network.backbone):
            for start in range(0, len(inputs), BATCH):
                for shape in {tuple(x.shape) for x in inputs[start : start + BATCH]}:
                    network.backbone(torch.cat([x for x in inputs[start : start + BATCH] if tuple(x.shape) == shape]))
    except ValueError as error:  # one value a channel has no variance
        raise UserError(
            f'{network.name}: the pictures are too small, or too few, for a network with random weights: {error}'
        ) from None


def _pretrained(cfg: Config) -> str:
    """The weights that the config's backbone begins with."""
    init_cfg = cfg.model.backbone.init_cfg
    found = [init for init in (init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]) if 'checkpoint' in init]
    return found[0]['checkpoint']


def _weights_of(checkpoint: str) -> str:
    return f'published weights {checkpoint}' if checkpoint in ZOO else f'weights of {Path(checkpoint).name}'


def _sized_as(network: Network, like: Network) -> Network:
    network.about = {**network.about, 'steps': like.about['steps']}
    return network


def _load_other(cfg: Config, checkpoint: str | None) -> tuple[nn.Module, Metainfo]:
    """A model with another backbone than Next-ViT; without a checkpoint with random weights."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model_cfg = copy.deepcopy(cfg.model)
    model_cfg.pop('pretrained', None)
    model_cfg.backbone.pop('init_cfg', None)
    if cfg.get('data_preprocessor'):
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    if checkpoint:
        check_checkpoint(checkpoint)
    torch.manual_seed(0)
    try:
        model = MODELS.build(model_cfg)
    except KeyError as error:
        raise UserError(f'{_stem(cfg)} cannot be built: {error}') from None
    if not checkpoint:
        model.init_weights()
        return model.eval(), read_metainfo(cfg)
    loaded = load_exactly(model, checkpoint, _stem(cfg))
    return model.eval(), read_metainfo(cfg, loaded)


def _load_timm(text: str, size: tuple[int, int], device: str) -> Network:
    timm = need('timm', 'a network of timm')
    name, _, suffix = text[len('timm:') :].partition('@')
    if suffix not in ('', 'pretrained'):
        raise UserError(f'--beside {text}: timm:NAME or timm:NAME@pretrained, not @{suffix}')
    if not timm.is_model(name):
        similar = ', '.join(timm.list_models(f'*{name}*')[:8])
        raise UserError(f'--beside {text}: timm has no {name}' + (f'; similar: {similar}' if similar else ''))
    torch.manual_seed(0)
    try:
        about = timm.get_pretrained_cfg(name)
        keywords = dict(img_size=tuple(size)) if about.fixed_input_size else {}
        model = timm.create_model(name, pretrained=bool(suffix), features_only=True, **keywords)
    except Exception as error:  # whatever a network of timm's raises: it cannot be had so
        raise UserError(f'timm cannot build {text[len("timm:") :]} for {size[0]}×{size[1]}: {error}') from None
    pixels = Input(
        color='RGB',
        mean=[255 * value for value in about.mean],
        std=[255 * value for value in about.std],
        normalized_inside=False,
    )
    layout = getattr(model, 'output_fmt', 'NCHW')
    return Network(
        f'timm {name}',
        "timm's pretrained weights" if suffix else RANDOM,
        model.eval().to(device),
        model,
        About(input=pixels),
        channels_last=str(getattr(layout, 'value', layout)) == 'NHWC',
    )


def _stem(cfg: Config) -> str:
    return Path(cfg.filename).stem if cfg.filename else 'the config'
