"""How Python finds ``mmcv._ext`` where mmcv has none."""

import os
import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

NAME = 'mmcv._ext'
SWITCH = 'NEXTVIT_MM_OPS'  # '0': no operators from here


class OperatorFinder(MetaPathFinder, Loader):
    """Answers for ``mmcv._ext`` after every other finder has said no, so that compiled operators are never replaced.

    A compiled module that does not load with this torch is found by Python's own finder, and stays an ImportError.
    """

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name != NAME or os.environ.get(SWITCH) == '0':
            return None
        return spec_from_loader(NAME, self, origin='nextvit_mm.ops')

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module. Raises ModuleNotFoundError, which MM libraries expect of an mmcv without operators."""
        try:
            table = import_module('nextvit_mm.ops.table')  # only now: it imports torchvision
        except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: a torchvision made for another torch
            raise ModuleNotFoundError(
                f'this mmcv has no compiled operators, and nextvit_mm cannot take them from torchvision '
                f'({str(error).splitlines()[0]}): install the torchvision of this torch',
                name=NAME,
            ) from error
        for name, operator in table.OPERATORS.items():
            setattr(module, name, operator.function)
        sources = {name: operator.source for name, operator in table.OPERATORS.items()}
        vars(module).update(SOURCES=sources, __getattr__=table.missing)


def install() -> None:
    """Let ``import mmcv._ext`` find this package's operators, once."""
    if not any(isinstance(finder, OperatorFinder) for finder in sys.meta_path):
        sys.meta_path.append(OperatorFinder())


def in_use() -> dict[str, str]:
    """Where mmcv's operators come from: a name to 'torchvision' or 'torch'; empty where mmcv's compiled ones are used.

    Raises ImportError where mmcv has none that can be loaded.
    """
    return dict(getattr(import_module(NAME), 'SOURCES', {}))
