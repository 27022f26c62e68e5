"""How Python finds ``mmcv._ext`` where mmcv has none."""
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Optional

NAME = 'mmcv._ext'
SWITCH = 'NEXTVIT_MM_OPS'  # '0': no operators from here


class OperatorFinder(MetaPathFinder, Loader):
    """Answers for ``mmcv._ext`` after every other finder has said no, so that compiled operators are never replaced."""

    def find_spec(self, name: str, path=None, target=None) -> Optional[ModuleSpec]:
        if name != NAME or os.environ.get(SWITCH) == '0':
            return None
        return spec_from_loader(NAME, self, origin='nextvit_mm.ops')

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from . import operators  # only now: it imports torchvision
        module.__getattr__ = operators.find


def install() -> None:
    """Let ``import mmcv._ext`` find this package's operators, once."""
    if not any(isinstance(finder, OperatorFinder) for finder in sys.meta_path):
        sys.meta_path.append(OperatorFinder())
