"""What an export can be told: one list, from which the command line is made."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from ..utils.command import BACKBONE, option
from .backends import SUFFIXES

WITH_INT8 = ('onnx', 'openvino')
DYNAMIC = ('batch', 'size')


@dataclass(frozen=True)
class ExportOptions:
    """The options of :func:`.export.export` and of ``tools/export.py``, with the same names.

    The text of each is what ``python tools/export.py --help`` prints.

    Raises:
        UserError: Two of them do not go together.
    """

    to: str = option('onnx', help='format', choices=tuple(SUFFIXES))
    what: str = option('model', help='from the image to results, or to the feature maps', choices=('model', 'backbone'))
    size: Sequence[int] | None = option(
        None,
        help="height and width in pixels, or one number for both (default: from the config's test pipeline)",
        metavar='N',
    )
    dynamic: Sequence[str] | None = option(
        None,
        help='what may differ at run time (default: the size, of a detector without --size to onnx or openvino whose '
        'test pipeline gives pictures of many shapes; else nothing)',
        choices=DYNAMIC,
    )
    out: str | None = option(None, help='the file to write (default: work_dirs/<config>/export/…)', metavar='FILE')
    overwrite: bool = option(False, help='replace a file that is there')
    images: str | None = option(
        None, help="a picture or a folder to verify with (default: the config's test data)", metavar='PATH'
    )
    image_count: int = option(4, help='how many at most', metavar='N')
    normalize_inside: bool = option(
        False, help='put mean and standard deviation into the network, which then takes colors from 0 to 255'
    )
    int8: bool = option(
        False, help='quantise after training (onnx, openvino); its differences are reported and not limited'
    )
    calibration_images: str | None = option(
        None, help="pictures to calibrate with (default: the config's training data)", metavar='DIR'
    )
    calibration_count: int = option(64, help='how many at most', metavar='N')
    evaluate: bool | None = option(
        None,
        help="measure the checkpoint and the exported model on the config's test data (default: for --int8, where the "
        'data are there)',
        action=argparse.BooleanOptionalAction,
    )
    random_weights: bool = option(False, help='load no weights: for measuring speed only')
    data_root: str | None = option(None, help="folder of the data, instead of the config's", metavar='DIR')
    cfg_options: dict | None = option(None, help='override settings of the config')
    backbone: str | None = option(None, **BACKBONE)

    def __post_init__(self) -> None:
        if self.int8 and self.to not in WITH_INT8:
            raise UserError(f'--int8 is for {" and ".join(WITH_INT8)}, not for {self.to}')
        if min(self.image_count, self.calibration_count) < 1:
            raise UserError('--image-count and --calibration-count must be at least 1')
