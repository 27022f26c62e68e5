"""Run somebody else's script with these operators in place.

``python -m nextvit_mm.ops SCRIPT.py ARGUMENTS`` or ``python -m nextvit_mm.ops -m MODULE ARGUMENTS``. Running this
file imports ``nextvit_mm``, which installs the operators. ``--install`` does so for every process of this environment.
"""

import runpy
import sys
from pathlib import Path

from ..errors import UserError
from .environment import install_everywhere, remove_everywhere


def main(arguments: list[str]) -> None:
    """Run a script or a module as Python itself would. Ends with 2 where there is none."""
    if arguments in (['--install'], ['--uninstall']):
        sys.exit(_everywhere(arguments == ['--install']))
    as_module = arguments[:1] == ['-m']
    target = arguments[as_module:][:1]
    if not target or not (as_module or Path(target[0]).is_file()):
        sys.exit(_usage(target))
    sys.argv = arguments[as_module:]
    if as_module:
        runpy.run_module(target[0], run_name='__main__', alter_sys=True)
    else:
        sys.path[0] = str(Path(target[0]).resolve().parent)
        runpy.run_path(target[0], run_name='__main__')


def _everywhere(installs: bool) -> int:
    try:
        if installs:
            print(f'every process of this environment finds the operators: {install_everywhere()}')
        else:
            remove_everywhere()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _usage(target: list[str]) -> int:
    reason = f'{target[0]} is no file' if target else 'what shall be run?'
    ways = 'SCRIPT.py ARGUMENTS, -m MODULE ARGUMENTS, --install or --uninstall'
    print(f'{reason}: python -m nextvit_mm.ops {ways}', file=sys.stderr)
    return 2


if __name__ == '__main__':
    main(sys.argv[1:])
