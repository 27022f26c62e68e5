"""What the tools share: flags, and errors of one line."""

import argparse
import collections.abc
import dataclasses
import io
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mmengine.config import DictAction

from ..errors import INTERRUPTED, UserError
from .memory import clear_memory_errors
from .processes import first_says, together
from .silence import silence_python_warnings

Options = TypeVar('Options')


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
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes the flag instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


BACKBONE = dict(
    metavar='small|base|large|CONFIG',
    help="put this Next-ViT, or that of a config, in the place of the config's backbone",
)
VERBOSE = "print all of MMEngine's log, which goes into a file"


def option(default: Any = dataclasses.MISSING, **keywords: Any) -> Any:
    """A field of an options dataclass, of which :func:`add_options` makes an argument.

    Args:
        default: The field's default; a field without one is a positional argument, and so is one of ``nargs='?'``
            without a ``flag``.
        keywords: What ``ArgumentParser.add_argument`` takes (``help``, ``choices``, ``metavar`` …), ``flag``: the
            flag's name where it is not the field's, and ``group``: the heading that it stands under in the help.
    """
    return dataclasses.field(default=default, metadata=keywords)


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add an argument for each field of a dataclass made with :func:`option`; other fields are left out.

    The annotation says what a flag takes: ``bool`` nothing (``--no-NAME`` where the default is True), ``dict``
    KEY=VALUE pairs, a sequence one value or more, other types one value; ``| None`` changes nothing. A flag that is
    not given is absent from the parsed arguments, so that the dataclass fills in its default
    (:func:`take_options`). The help ends in the default, unless the help says it itself.
    """
    hints = typing.get_type_hints(options)
    groups: dict[str | None, Any] = {None: parser}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]  # typeshed has no type for "a dataclass"
        if 'help' not in field.metadata:
            continue
        keywords = {**_argument(hints[field.name], field.default), **field.metadata}
        title = keywords.pop('group', None)
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        is_positional = field.default is dataclasses.MISSING or (
            keywords.get('nargs') == '?' and 'flag' not in keywords
        )
        flag = keywords.pop('flag', f'--{"no-" * (field.default is True)}{field.name.replace("_", "-")}')
        if field.default is not dataclasses.MISSING:
            keywords['help'] += _told_default(field.default, keywords['help'])
            keywords['default'] = argparse.SUPPRESS
        if is_positional:
            groups[title].add_argument(field.name, **keywords)
        else:
            groups[title].add_argument(flag, dest=field.name, **keywords)


def take_options(options: type[Options], args: dict[str, Any], base: Options | None = None) -> Options:
    """Take a dataclass's fields out of parsed arguments; those that are absent are of ``base``, or the defaults."""
    names = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]  # as above
    given = {name: args.pop(name) for name in names if name in args}
    return options(**given) if base is None else dataclasses.replace(base, **given)  # type: ignore[type-var]


def _argument(annotation: Any, default: Any) -> dict[str, Any]:
    """What a field's type says about its argument."""
    if isinstance(annotation, types.UnionType):  # X | None
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    origin = typing.get_origin(annotation) or annotation
    if origin is bool:
        return dict(action='store_false' if default is True else 'store_true')
    if issubclass(origin, Mapping):
        return dict(nargs='+', action=DictAction, metavar='KEY=VALUE')
    if issubclass(origin, collections.abc.Sequence) and origin is not str:
        return dict(nargs='+', type=(typing.get_args(annotation) or (str,))[0])
    return dict(type=origin)


def _told_default(default: Any, help_text: str) -> str:
    if default is None or isinstance(default, bool) or '(default' in help_text:
        return ''
    return f' (default: {" ".join(map(str, default)) if isinstance(default, (tuple, list)) else default})'


def print_anywhere() -> None:
    """Let stdout and stderr print ``?`` for what their encoding lacks: Windows' cp1252, of pipes, has no ``≥``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == 'strict':
            stream.reconfigure(errors='replace')


def run_command(command: Callable, parser: argparse.ArgumentParser) -> None:
    """Parse and run a tool; an error that the user can mend is printed as it is, with its exit status, which is 2."""
    print_anywhere()  # the help, too
    with first_says():  # wrong flags are the same in every process of a run
        try:
            args = vars(parser.parse_args())
        except ValueError as error:  # from MMEngine's DictAction
            parser.error(f'--cfg-options takes KEY=VALUE … ({error})')
    if not args.get('verbose'):
        silence_python_warnings()
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank', 0)))
    try:
        with together(args.get('launcher')), clear_memory_errors():
            command(**args)
        sys.stdout.flush()
    except UserError as error:
        sys.stdout.flush()
        if args.get('verbose') and error.__cause__:  # what a config's author, who wrote the class that failed, wants
            traceback.print_exception(error.__cause__)
        print(f'{parser.prog}: {error}', file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print(f'\n{parser.prog}: interrupted', file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever reads, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
