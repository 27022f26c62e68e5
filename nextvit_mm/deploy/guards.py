"""Around exporters and runtimes: without their chatter, and with one line where they fail."""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence

from ..errors import UserError
from ..utils.memory import describe_memory_error


@contextlib.contextmanager
def failing_clearly(to: str, what: str, dynamic: Sequence[str] = ()) -> Iterator[None]:
    """Have what an exporter or a runtime cannot do with a network say so in one line.

    Raises:
        UserError: Something went wrong in them, of whatever class; too little memory stays what it is.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise UserError(f'the file cannot be written: {error.strerror or error}') from error
    except Exception as error:
        if isinstance(error, RuntimeError) and describe_memory_error(error):
            raise
        cause = re.split(r'\n|\.+ ', str(error).strip())[0] or type(error).__name__
        ways = ['one --size H W without --dynamic'] if 'size' in dynamic else []
        ways += ['--what backbone, without neck and head'] if what == 'model' else []
        instead = f' (to try: {", or ".join(ways)})' if ways else ''
        raise UserError(f'this network cannot be exported --to {to}: {cause[:300]}{instead}') from error


@contextlib.contextmanager
def _silent_output() -> Iterator[None]:
    """Without what libraries print past Python: torch prints a graph of thousands of lines where it cannot trace."""
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    try:
        with open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def quiet(stderr: bool = False) -> Iterator[None]:
    """Without the exporters' warnings and chatter; what goes wrong is still raised."""
    with warnings.catch_warnings(), _silent_output(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        with contextlib.redirect_stderr(io.StringIO()) if stderr else contextlib.nullcontext():
            yield
