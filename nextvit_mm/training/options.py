"""What a training and an evaluation can be told: one list each, from which the command lines are made."""

from dataclasses import dataclass, fields
from typing import Any

from ..data.length import Length
from ..errors import UserError
from ..utils.command import BACKBONE, VERBOSE, option

NOT_REPEATED = ('launcher', 'verbose', 'resume', 'allow_changes', 'dry_run', 'seed', 'bad_pictures')
OWN_DATA = 'your own data'


@dataclass
class RunOptions:
    """What both take. The text of each is what ``--help`` of the tools prints."""

    backbone: str | None = option(None, **BACKBONE)
    verbose: bool = option(False, help=VERBOSE)
    launcher: str = option(
        'none', help='how the processes of a distributed run were started', choices=('none', 'pytorch', 'slurm', 'mpi')
    )


@dataclass
class TrainOptions(RunOptions, Length):
    """Of :func:`.launch.train`, with the names of the flags of ``tools/train.py``.

    Raises:
        UserError: Two of them do not go together.
    """

    resume: str | None = option(
        None,
        help='go on from CKPT, or from the latest checkpoint of the work dir, with the flags of the start',
        flag='--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
    )
    allow_changes: bool = option(False, help='--resume with another network, data, classes, precision and so on')
    no_pretrained: bool = option(False, help='train from scratch: no pretrained weights, nothing frozen')
    recipe: str | None = option(
        None, help='with --backbone: optimizer, rate and freezing of the published runs', choices=('published',)
    )
    dry_run: bool = option(False, help='print what --backbone changes, and train nothing')
    amp: bool = option(False, help='automatic mixed precision: on a GPU, or in bfloat16 on a CPU with units for it')
    auto_scale_lr: bool = option(False, help='scale the rate with the batch size')
    own_classes: bool = option(
        False,
        help='take classes and splits from the folder of --data-root: COCO, YOLO, Pascal VOC, class maps, folders',
        group=OWN_DATA,
    )
    boxes_only: bool = option(False, help='train a detector without its mask branch', group=OWN_DATA)
    seed: int | None = option(None, help='seed of Python, NumPy and torch')
    bad_pictures: str = option(
        'stop',
        help='what to do at a picture that cannot be read: stop, or leave it out and list it in the work dir',
        choices=('stop', 'skip'),
    )

    def repeated(self) -> dict[str, Any]:
        """The flags that a resumed run repeats, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in NOT_REPEATED}


@dataclass
class EvaluateOptions(RunOptions):
    """Of :func:`.launch.evaluate`, with the names of the flags of ``tools/test.py``.

    Raises:
        UserError: Two of them do not go together.
    """

    out: str | None = option(None, help='write all predictions to a pickle', metavar='FILE.pkl')
    show_dir: str | None = option(None, help='draw every prediction into this folder', metavar='DIR')
    tta: bool = option(
        False, help='test-time augmentation of the config (several scales, flipped); metrics are named ms/…'
    )
    pipeline: str | None = option(
        None, help="test with the config's NAME_test_pipeline, such as timm of the classifiers", metavar='NAME'
    )

    def __post_init__(self) -> None:
        if self.out and not self.out.endswith(('.pkl', '.pickle')):
            raise UserError(f'--out {self.out} must end in .pkl or .pickle')
        if self.tta and self.pipeline:
            raise UserError('--tta and --pipeline both say how to test: give one of them')
