"""What an export can be told: one list, from which the command line is made."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import DictAction

from ..errors import UserError
from .backends import SUFFIXES

WITH_INT8 = ('onnx', 'openvino')
DYNAMIC = ('batch', 'size')


def _option(default: Any, text: str, **argument: Any) -> Any:
    """A field with its default, its words, and what argparse needs besides."""
    return dataclasses.field(default=default, metadata=dict(help=text, **argument))


@dataclass(frozen=True)
class ExportOptions:
    """The options of :func:`.export.export` and of ``tools/export.py``, with the same names.

    The text of each is what ``python tools/export.py --help`` prints.

    Raises:
        UserError: Two of them do not go together.
    """

    to: str = _option('onnx', 'format (default: onnx)', choices=tuple(SUFFIXES))
    what: str = _option(
        'model', 'from the image to results, or to the feature maps (default: model)', choices=('model', 'backbone')
    )
    size: Sequence[int] | None = _option(
        None,
        "height and width in pixels, or one number for both (default: from the config's test pipeline)",
        type=int,
        nargs='+',
        metavar='N',
    )
    dynamic: Sequence[str] | None = _option(
        None,
        'what may differ at run time (default: the size, of a detector without --size to onnx or openvino whose test '
        'pipeline gives pictures of many shapes; else nothing)',
        nargs='+',
        choices=DYNAMIC,
    )
    out: str | None = _option(None, 'the file to write (default: work_dirs/<config>/export/…)', metavar='FILE')
    overwrite: bool = _option(False, 'replace a file that is there', action='store_true')
    images: str | None = _option(
        None, "a picture or a folder to verify with (default: the config's test data)", metavar='PATH'
    )
    image_count: int = _option(4, 'how many at most (default: 4)', type=int, metavar='N')
    normalize_inside: bool = _option(
        False,
        'put mean and standard deviation into the network, which then takes colors from 0 to 255',
        action='store_true',
    )
    int8: bool = _option(
        False,
        'quantise after training (onnx, openvino); its differences are reported and not limited',
        action='store_true',
    )
    calibration_images: str | None = _option(
        None, "pictures to calibrate with (default: the config's training data)", metavar='DIR'
    )
    calibration_count: int = _option(64, 'how many at most (default: 64)', type=int, metavar='N')
    evaluate: bool | None = _option(
        None,
        "measure the checkpoint and the exported model on the config's test data (default: for --int8, where the data "
        'are there)',
        action=argparse.BooleanOptionalAction,
    )
    random_weights: bool = _option(False, 'load no weights: for measuring speed only', action='store_true')
    data_root: str | None = _option(None, "folder of the data, instead of the config's", metavar='DIR')
    cfg_options: dict | None = _option(
        None, 'override settings of the config', nargs='+', action=DictAction, metavar='KEY=VALUE'
    )
    backbone: str | None = _option(
        None,
        "put this Next-ViT, or that of a config, in the place of the config's backbone",
        metavar='small|base|large|CONFIG',
    )

    def __post_init__(self) -> None:
        if self.int8 and self.to not in WITH_INT8:
            raise UserError(f'--int8 is for {" and ".join(WITH_INT8)}, not for {self.to}')
        if min(self.image_count, self.calibration_count) < 1:
            raise UserError('--image-count and --calibration-count must be at least 1')

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """A flag for each option, as ``--image-count`` for ``image_count``."""
        for field in dataclasses.fields(ExportOptions):
            argument = dict(field.metadata)
            parser.add_argument('--' + field.name.replace('_', '-'), default=field.default, **argument)
