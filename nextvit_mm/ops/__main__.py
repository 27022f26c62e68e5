"""Run somebody else's script with these operators in place.

``python -m nextvit_mm.ops SCRIPT.py ARGUMENTS`` or ``python -m nextvit_mm.ops -m MODULE ARGUMENTS``. Running this
file imports ``nextvit_mm``, which installs the operators.
"""

import runpy
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Run a script or a module as Python itself would. Ends with 2 where there is none."""
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


def _usage(target: list[str]) -> int:
    reason = f'{target[0]} is no file' if target else 'what shall be run?'
    print(f'{reason}: python -m nextvit_mm.ops SCRIPT.py ARGUMENTS, or -m MODULE ARGUMENTS', file=sys.stderr)
    return 2


if __name__ == '__main__':
    main(sys.argv[1:])
