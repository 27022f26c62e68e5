"""One line of progress on stderr."""

import sys


def say(text: str) -> None:
    """Progress, on stderr: one line that is written over on a terminal."""
    terminal = sys.stderr.isatty()
    print(f'\r\033[K{text}' if terminal else text, end='' if terminal else '\n', file=sys.stderr, flush=True)


def hush() -> None:
    """Take the line of :func:`say` off a terminal."""
    if sys.stderr.isatty():
        print('\r\033[K', end='', file=sys.stderr, flush=True)
