"""What the commands take; ``tools/visualize.py`` makes its flags of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..utils.command import option
from .cam import METHODS


@dataclass
class ViewOptions:
    """What every command takes: the flags of ``tools/visualize.py``, by their names."""

    config: str = option(help='config file of a detector, segmentor or classifier')
    checkpoint: str | None = option(
        None,
        help='its weights (default: where they will do, the published ones that the config names for its backbone)',
        nargs='?',
    )
    images: str | None = option(None, help="a picture or a folder (default: the config's test data)", metavar='PATH')
    size: Sequence[int] | None = option(
        None,
        help="height and width of the input, or one number for both (default: as the config's test pipeline does)",
        metavar='N',
    )
    out: str | None = option(
        None,
        help='the picture to write (default: work_dirs/<config>/visualize/, under the name of the command)',
        metavar='FILE.png',
    )
    device: str = option('cpu', help='where it runs, such as cuda')
    data_root: str | None = option(None, help="folder of the data, instead of the config's", metavar='DIR')
    cfg_options: dict | None = option(None, help='override settings of the config')


@dataclass
class SpectrumOptions(ViewOptions):
    """Flags of ``spectrum``; pictures are resized to just ``size``."""

    beside: Sequence[str] = option(
        (),
        help='networks to put beside it: random (the same with random weights), timm:NAME (random weights), '
        'timm:NAME@pretrained, CONFIG.py:CHECKPOINT, or CONFIG.py (random weights), also as mmdet::FOLDER/NAME.py '
        '(default: none)',
        metavar='NETWORK',
    )
    branches: bool = option(False, help='the E-MHSA and MHCA branches of every NTB apart, instead of stages and blocks')
    count: int = option(16, help='pictures at most', metavar='N')
    random_weights: bool = option(False, help='load no weights; the title says so')


@dataclass
class HeatmapOptions(ViewOptions):
    """Flags of ``heatmap``; pictures are resized to fit into ``size``."""

    count: int = option(4, help='pictures at most', metavar='N')
    stages: Sequence[int] | None = option(
        None,
        help='stages whose maps are weighed, from 1 (default: of a classifier the last one, of others all)',
        metavar='N',
    )
    method: str | None = option(  # y of others comes from some places: Grad-CAM's weights are means over all of them
        None,
        help="how a map's channels are weighed (default: gradcam for classifiers, layercam for others)",
        choices=tuple(METHODS),
    )
    class_name: str | None = option(
        None,
        help='name or number of the class to explain (default: what the model finds)',
        flag='--class',
        metavar='NAME',
    )
    min_score: float = option(0.3, help='detections of at least this score count', metavar='X')


@dataclass
class FeaturesOptions(ViewOptions):
    """Flags of ``features``; the first picture is taken, and resized to fit into ``size``."""

    channels: int = option(4, help='strongest channels to show of each stage', metavar='N')
    random_weights: bool = option(False, help='load no weights; the title says so')
