"""What the tools share: flags, and errors of one line."""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from io import StringIO

from mmengine.config import DictAction

from ..errors import UserError
from .processes import is_first, together
from .silence import silence_python_warnings


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that training and testing share."""
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help="folder for logs and checkpoints (default: the config's, or work_dirs/<config name>)",
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help="folder of the data, instead of the config's, for every dataset and evaluator",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, such as train_dataloader.batch_size=4; lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument('--verbose', action='store_true', help="print all of MMEngine's log, which goes into a file")
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='how the processes of a distributed run were started',
    )
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes the flag instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def run_command(command: Callable, parser: argparse.ArgumentParser) -> None:
    """Parse and run a tool; an error that the user can mend is printed as it is, with its exit status, which is 2."""
    try:
        # Wrong flags are the same in every process of a run: one says so.
        with nullcontext() if is_first() else redirect_stderr(StringIO()):
            args = vars(parser.parse_args())
    except ValueError as error:  # from MMEngine's DictAction
        parser.error(f'--cfg-options takes KEY=VALUE … ({error})')
    if not args.get('verbose'):
        silence_python_warnings()
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank', 0)))
    try:
        with together(args.get('launcher')):
            command(**args)
        sys.stdout.flush()
    except UserError as error:
        sys.stdout.flush()
        print(f'{parser.prog}: {error}', file=sys.stderr)
        sys.exit(error.status)
    except BrokenPipeError:  # whoever reads, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
