"""Puts configs, tools and the model index where OpenMMLab's ``mim`` looks for them; all else is in pyproject.toml."""

import os
import shutil
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
# What OpenMMLab packages ship under <package>/.mim.
MIM_FILES = ('configs', 'tools', 'model-index.yml')


class BuildPyWithMim(build_py):
    """Fills ``nextvit_mm/.mim``: with links when editable, with copies where links cannot be made and otherwise."""

    def run(self) -> None:
        super().run()
        package = ROOT / 'nextvit_mm' if self.editable_mode else Path(self.build_lib, 'nextvit_mm').resolve()
        # Made beside and renamed, so that an interrupted installation leaves the old folder or the new one.
        with tempfile.TemporaryDirectory(prefix='.mim-', dir=package) as folder:
            made = Path(folder, '.mim')
            made.mkdir()
            for name in MIM_FILES:
                put(ROOT / name, made / name, package / '.mim', link=self.editable_mode)
            shutil.rmtree(package / '.mim', ignore_errors=True)
            made.rename(package / '.mim')


def put(source: Path, made: Path, parent: Path, link: bool) -> None:
    """A link to ``source``, as seen from ``parent``, the folder's later place; else a copy."""
    if link:
        try:
            made.symlink_to(os.path.relpath(source, parent))
            return
        except OSError:  # Windows without the right to make links
            print(f'{source.name} is copied, not linked: install again after you change it')
    if source.is_dir():
        shutil.copytree(source, made, ignore=shutil.ignore_patterns('__pycache__'))
    else:
        shutil.copyfile(source, made)


setup(cmdclass=dict(build_py=BuildPyWithMim))
