"""The project's configs by name, also for MM's own inferencers."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

INDEX = 'model-index.yml'
NAME = __name__.split('.')[0]
MODEL_HUB = 'mmpretrain.apis.model'
PAGE = 'nextvit_mm-page:'  # before the address of weights that no tool can fetch; nextvit_mm.weights says so


@dataclass(frozen=True)
class Recipe:
    """A config of the project.

    Attributes:
        name: As in the metafiles, such as ``mask_rcnn_nextvit_s_1x``.
        config: Its file.
        weights: Address of the published weights, None where there are none to be fetched.
        page: Address of the page from which a person downloads them with a browser, None where there is none.
    """

    name: str
    config: Path
    weights: str | None
    page: str | None = None


@cache
def list_recipes() -> dict[str, Recipe]:
    """All recipes by name; none where neither a source tree nor an installed package has the index."""
    from mmengine.fileio import load

    root = find_root()
    if root is None:
        return {}
    models = [model for file in load(root / INDEX)['Import'] for model in load(root / file)['Models']]
    return {
        m['Name']: Recipe(
            m['Name'], root / m['Config'], m.get('Weights'), (m.get('Converted From') or {}).get('Weights')
        )
        for m in models
    }


def find_recipe(name: str) -> Recipe | None:
    return list_recipes().get(name.lower())


def find_root() -> Path | None:
    """The folder that holds ``model-index.yml`` and ``configs``: of a source tree, or of the installed package."""
    package = Path(__file__).resolve().parents[1]
    return next((root for root in (package.parent, package / '.mim') if (root / INDEX).is_file()), None)


def add_to_configs() -> None:
    """Let ``_base_ = 'nextvit_mm::detection/….py'`` find our configs, in any script that has imported this package.

    MMEngine looks below the folder that pip tells, which an editable installation does not have. For a base of an MM
    library it first reads all the metafiles of that library, for up to a second a base, and then takes the file of that
    name. Where there is that file, it is taken at once.
    """
    from mmengine.config import Config

    usual = Config._get_cfg_path
    if getattr(usual, 'with_nextvit', False):
        return

    @wraps(usual)
    def with_ours(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, mark, inner = cfg_path.partition('::')
        if (package, mark) != (NAME, '::'):
            shipped = _shipped(package, inner) if mark else None
            return (str(shipped), package) if shipped else usual(cfg_path, filename)
        path = (find_root() or Path(NAME)) / 'configs' / (inner if inner.endswith('.py') else f'{inner}.py')
        if not path.is_file():
            raise FileNotFoundError(f'{cfg_path} is none of the configs of {NAME}: there is no {path}')
        return str(path), None

    vars(with_ours)['with_nextvit'] = True
    Config._get_cfg_path = staticmethod(with_ours)


def _shipped(package: str, inner: str) -> Path | None:
    """A config that an installed MM library has; None where MMEngine is to look for it, or to say what is missing."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # a name with a dot, a module made by hand
        return None
    path = Path(spec.origin).parent / '.mim' / 'configs' / inner if spec and spec.origin else None
    return path if path and path.is_file() else None


def add_to_inferencers() -> None:
    """Let ``DetInferencer``, ``MMSegInferencer`` and ``ImageClassificationInferencer`` find the recipes by name.

    They look into the model index of their own package alone. MMPretrain's is read when it is first imported.
    """
    from mmengine.infer import BaseInferencer

    original = BaseInferencer._get_models_from_metafile
    if getattr(original, 'with_nextvit', False):
        return

    def with_ours(folder: str) -> Iterator[dict[str, Any]]:
        yield from original(folder)
        # An absolute path stays what it is when MMEngine joins it to its own folder.
        for recipe in list_recipes().values():
            # Without weights an inferencer would go on with random ones, and warn.
            weights = recipe.weights or PAGE + (recipe.page or '')
            yield dict(Name=recipe.name, Config=str(recipe.config), Weights=weights)

    vars(with_ours)['with_nextvit'] = True
    BaseInferencer._get_models_from_metafile = staticmethod(with_ours)
    if MODEL_HUB in sys.modules:
        _register(sys.modules[MODEL_HUB])
    else:
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported(MetaPathFinder):
    """Adds the recipes to MMPretrain's hub once that is imported, which takes seconds and is left to others."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != MODEL_HUB:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: Any) -> None:
            run(module)
            _register(module)

        vars(spec.loader)['exec_module'] = run_and_register  # of this loader alone
        return spec


def _register(module: Any) -> None:
    root = find_root()
    if root is None or any(name in module.ModelHub._models_dict for name in list_recipes()):
        return
    module.ModelHub.register_model_index(str(root / INDEX), config_prefix=str(root))
