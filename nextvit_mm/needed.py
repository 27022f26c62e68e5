"""A look at the MM packages when this one is imported: one line instead of a traceback where one is missing or too old.

They are no requirements that pip reads. Their continuations under other distribution names (onedl-mmengine, mmcv-lite)
are the same modules, and pip would install the one that it knows over the one that is there.
"""

import importlib
import re
import warnings

# Module: the oldest version that is known to work (a row of `make matrix`), and how to get one where none is.
NEEDED: dict[str, tuple[str, str]] = dict(
    mmengine=('0.10.3', "pip install 'mmengine>=0.10.3,<1'"),
    mmcv=('2.0.0', 'pip install mmcv-lite==2.1.0, with --no-deps beside onedl-mmengine'),
)


def check() -> None:
    """Import what is needed.

    Raises:
        ImportError: A module is missing or older than :data:`NEEDED` says; the message has the command that mends it.
    """
    for name, (oldest, command) in NEEDED.items():
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # MMEngine's; see utils/silence.py
                found = importlib.import_module(name).__version__
        except ModuleNotFoundError as error:
            if error.name != name:  # it is there, and lacks something of its own
                raise
            raise ImportError(f'nextvit_mm needs {name} {oldest} or later, and there is none: {command}') from None
        if _numbers(found) < _numbers(oldest):
            raise ImportError(f'nextvit_mm needs {name} {oldest} or later, and {found} is installed: {command}')


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r'\d+', version)[:3])


check()
