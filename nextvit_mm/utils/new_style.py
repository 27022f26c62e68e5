"""MMEngine's new-style configs (``with read_base():``, classes as types), read as those with names.

MMEngine reads the two styles in two ways that know nothing of each other. :func:`read_file` lets a config of one style
inherit from one of the other. It puts a class's registered name in its place, so that whatever reads the config
afterwards meets one style.
"""

import ast
import functools
import importlib.util
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import mmengine.registry
from mmengine.config import Config, ConfigDict, config as mmengine_config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import MODELS, Registry
from mmengine.utils import get_installed_path, import_modules_from_strings

BASE = '_base_'


def read_file(path: str) -> Config:
    """A config file of either style, with names in the places of classes; ``custom_imports`` are imported.

    A class that no registry has stays where it is. So does one whose name would be read as another class.
    """
    with _both_styles():
        cfg = Config.fromfile(path)
    values = cfg._to_lazy_dict()
    if _has_classes(values):
        cfg = Config(_named(values), cfg_text=cfg.text, filename=cfg.filename, env_variables=cfg.env_variables)
    if cfg.get('custom_imports'):  # MMEngine does so for configs of the older style alone
        import_modules_from_strings(**cfg.custom_imports)
    return cfg


@contextmanager
def _both_styles() -> Iterator[None]:
    """Let a config of either style inherit from either style, and new-style ones from ``PACKAGE.configs.…``."""
    is_new, parse, read = Config._is_lazy_import, Config._parse_lazy_import, Config._file2dict
    styles = ['older']  # of the files that are being read, the innermost last

    @contextmanager
    def style(name: str) -> Iterator[None]:
        styles.append(name)
        try:
            yield
        finally:
            styles.pop()

    def installed(package: str) -> str:
        return _folder_of_configs(package) if styles[-1] == 'new' else get_installed_path(package)

    def is_new_style(filename: str) -> bool:
        return not _names_bases(filename) and is_new(filename)

    def parse_any(filename: str) -> tuple[ConfigDict, set]:
        if is_new_style(filename) or not _names_bases(filename):
            with style('new'):
                return parse(filename)
        return Config._dict_to_config_dict_lazy(read_any(filename)[0]), set()

    def read_any(
        filename: str,
        use_predefined_variables: bool = True,
        use_environment_variables: bool = True,
        lazy_import: bool | None = None,
    ) -> tuple[dict, str, dict]:
        filename = os.path.abspath(os.path.expanduser(filename))
        if not os.path.isfile(filename) or not filename.endswith('.py') or not is_new_style(filename):
            with style('older'):
                values, text, variables = read(filename, use_predefined_variables, use_environment_variables, False)
            return _settings(values), text, variables
        usual, ConfigDict.lazy = ConfigDict.lazy, True
        try:
            values, imported = parse_any(filename)
        finally:
            ConfigDict.lazy = usual
        kept = {key: value for key, value in values._to_lazy_dict().items() if key not in imported}
        return _named(kept), Path(filename).read_text(encoding='utf-8'), {}

    with (
        mock.patch.object(Config, '_is_lazy_import', staticmethod(is_new_style)),
        mock.patch.object(Config, '_parse_lazy_import', staticmethod(parse_any)),
        mock.patch.object(Config, '_file2dict', staticmethod(read_any)),
        mock.patch.object(mmengine_config, 'get_installed_path', installed),
    ):
        yield


def _named(values: dict[str, Any]) -> dict[str, Any]:
    values = _settings(values)
    # Building all of them first registers what their modules have.
    for one in _classes(values):
        _built(one)
    if not values.get('default_scope'):
        module = getattr(_built((values.get('model') or {}).get('type')), '__module__', None) or ''
        if module.split('.')[0] in MODELS.children:
            values = dict(values, default_scope=module.split('.')[0])
    return _rename(values, _registered(), values.get('default_scope'))


def _rename(value: Any, registered: dict[int, list[tuple[Registry, str]]], scope: str | None) -> Any:
    if isinstance(value, dict):
        return {key: _rename(item, registered, scope) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_rename(item, registered, scope) for item in value)
    if not _is_class(value):
        return value
    built = _built(value)
    return _name(built, registered.get(id(built), []), scope) or value


def _name(built: Any, places: list[tuple[Registry, str]], scope: str | None) -> str | None:
    """The name under which a config of a scope finds an object, if it does."""
    for registry, name in sorted(places, key=lambda place: place[1] != built.__name__):
        root = registry._get_root_registry()
        reader = root.children.get(scope, root)
        for candidate in (name, f'{registry.scope}.{name}'):
            known = candidate == name and not _has(reader, name)
            if not known and reader.get(candidate) is built:
                return candidate
    # mmcv and MMDetection take `nms` and `RoIAlign` by their names there, and not by the dotted ones that MMEngine
    # would write into the work dir's config.
    is_operator = (getattr(built, '__module__', None) or '').startswith('mmcv.ops.')
    return built.__name__ if is_operator and not places else None


def _has(registry: Registry | None, name: str) -> bool:
    """Whether a bare name is found; to ask MMEngine for one that is not makes it warn."""
    while registry is not None:
        if name in registry.module_dict:
            return True
        registry = registry.parent
    return False


@functools.lru_cache(maxsize=1)
def _roots() -> list[Registry]:
    return [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]


def _registered() -> dict[int, list[tuple[Registry, str]]]:
    """Where each registered object is, by its identity."""
    found: dict[int, list[tuple[Registry, str]]] = {}
    waiting = list(_roots())
    while waiting:
        registry = waiting.pop()
        waiting += registry.children.values()
        for name, value in registry.module_dict.items():
            found.setdefault(id(value), []).append((registry, name))
    return found


def _is_class(value: Any) -> bool:
    return isinstance(value, (LazyObject, LazyAttr)) or inspect.isclass(value) or inspect.isroutine(value)


def _built(value: Any) -> Any:
    return value.build() if isinstance(value, (LazyObject, LazyAttr)) else value


def _classes(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _classes(item)
    elif _is_class(value):
        yield value


def _has_classes(values: Any) -> bool:
    return any(True for _ in _classes(values))


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """Without the classes and functions that a config has imported or defined."""
    return {key: value for key, value in values.items() if not (inspect.isclass(value) or inspect.isroutine(value))}


def _names_bases(filename: str) -> bool:
    """Whether a file has ``_base_ = …``, as configs of the older style do."""
    with open(filename, encoding='utf-8') as file:
        lines = ast.parse(file.read(), filename).body
    targets = [line.targets[0] for line in lines if isinstance(line, ast.Assign)]
    return any(isinstance(target, ast.Name) and target.id == BASE for target in targets)


def _folder_of_configs(package: str) -> str:
    """The folder below which a package has ``configs``: itself, what MIM installed, or the source tree around it."""
    spec = importlib.util.find_spec(package)
    root = Path(spec.origin).parent if spec and spec.origin else Path(get_installed_path(package))
    for folder in (root, root / '.mim', root.parent):
        if (folder / 'configs').is_dir():
            return str(folder)
    return str(root)
