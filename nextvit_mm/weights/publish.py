"""A checkpoint made ready to be handed over: its weights alone, with its config and classes, in one file."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import UserError, WeightsError
from ..utils.logs import read_scalars
from ..utils.metainfo import read_metainfo
from ..utils.new_style import read_file
from ..version import __version__
from .card import write_card
from .checkpoint import load_checkpoint, load_state, split_name
from .fetch import sha256
from .io import SUFFIXES, first_line
from .tensors import write_safetensors
from .zoo import HUB_FILE, ZOO

DIGITS = 8  # of the SHA-256, at least; with a letter among them, or they would read as a date
# Of a run and not of a model.
FORGOTTEN = dict(load_from=None, resume=False, work_dir=None, launcher='none')


def publish(
    checkpoint: str, out: str, config: str | None = None, push: str | None = None, private: bool = False
) -> Path:
    """Write a checkpoint's weights, config and classes as one ``.safetensors``; the flags of ``tools/publish.py``.

    Args:
        checkpoint: What a training wrote, or other weights with ``config``.
        out: A name that ends in ``.safetensors``, into which digits of the SHA-256 are put; or a folder.
        config: The model's config. Default: the one in the checkpoint.
        push: ``owner/name`` of a repository of the Hugging Face hub, which is made if there is none.
        private: Make it a private one.

    Returns:
        Path: The file.

    Raises:
        UserError: The checkpoint has no config, cannot be read, or cannot be written or pushed.
    """
    if push is not None and not re.fullmatch(r'[\w.-]+/[\w.-]+', push):
        raise UserError(f'--push {push} must be owner/name')
    loaded, state_dict = load_state(checkpoint)
    meta = (loaded.get('meta') if isinstance(loaded, Mapping) else None) or {}
    cfg = _read_config(config) if config else config_in(meta, checkpoint)
    own = dict(
        nextvit_mm=__version__,
        cfg=_config_text(cfg),
        dataset_meta={key: value for key, value in asdict(read_metainfo(cfg, loaded)).items() if value is not None},
        metrics=_metrics(checkpoint, meta),
        epoch=meta.get('epoch'),
        iter=meta.get('iter'),
    )
    stem = Path(config).stem if config else Path(meta.get('experiment_name') or Path(checkpoint).stem).name
    path = _write(Path(out), re.sub(r'_\d{8}_\d{6}$', '', stem), state_dict, own)
    print(f'written: {path} ({path.stat().st_size / 1e6:.1f} MB)')
    if push:
        print(f'pushed: {push_to_hub(path, push, own, private)}')
    return path


def embedded_config(path: str) -> Config:
    """The config in a checkpoint of MMEngine or of :func:`publish`.

    Raises:
        UserError: There is none.
    """
    loaded = load_checkpoint(path)
    return config_in((loaded.get('meta') if isinstance(loaded, Mapping) else None) or {}, path)


def config_in(meta: Mapping[str, Any], source: str) -> Config:
    text = meta.get('cfg')
    if not isinstance(text, str):
        raise UserError(f'{source} holds no config: give the config that it was trained with as well')
    try:
        cfg = Config.fromstring(text, '.py')
    except Exception as error:  # it is somebody's Python
        raise UserError(f'the config in {source} cannot be read: {type(error).__name__}: {error}') from None
    # As a name for messages; Config's own attributes are keys of its dict.
    object.__setattr__(cfg, '_filename', source)
    return cfg


def _read_config(path: str) -> Config:
    try:
        return read_file(path)
    except Exception as error:  # it is somebody's Python
        raise UserError(f'{path} cannot be read as a config: {type(error).__name__}: {first_line(error)}') from None


def is_weights_name(name: str) -> bool:
    """Whether a word of a command line names weights: a file by its ending, an address, or published ones."""
    name = split_name(name)[0]
    return name in ZOO or name.startswith('hf-hub:') or '://' in name or Path(name).suffix.lower() in SUFFIXES


def push_to_hub(path: Path, repo: str, meta: Mapping[str, Any], private: bool = False) -> str:
    """Put a published file and a model card into a repository of the Hugging Face hub.

    It is named ``model.safetensors`` there, so that ``hf-hub:owner/name`` finds it.

    Returns:
        str: Address of the commit.

    Raises:
        UserError: huggingface_hub is not installed, or the hub refuses.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ImportError:
        raise UserError('--push needs huggingface_hub: pip install huggingface_hub') from None
    api = HfApi()
    operations = [
        CommitOperationAdd(HUB_FILE, str(path)),
        CommitOperationAdd('README.md', write_card(repo, path.name, meta).encode()),
    ]
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)  # None: as the owner has it by default
        return str(api.create_commit(repo, operations, commit_message=f'{path.name}, by nextvit_mm').commit_url)
    except Exception as error:  # whatever the client or the network raises, the remedy is the same
        lines = str(error).strip().splitlines()
        raise UserError(
            f'{repo} could not be pushed ({type(error).__name__}: {lines[0] if lines else ""}). {path} is written. '
            'Log in with `hf auth login`, or set HF_TOKEN to a token that may write'
        ) from None


def _write(out: Path, stem: str, state_dict: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
    """Write beside the target and rename, so that the file is there whole or not at all."""
    if out.suffix == '.safetensors':
        folder, stem = out.parent, out.stem
    elif out.suffix in SUFFIXES:
        raise UserError(f'{out} must end in .safetensors, or be a folder')
    else:
        folder = out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix='.publish-') as inner:
            part = Path(inner, 'model.safetensors')
            write_safetensors(part, state_dict, meta)
            digest = sha256(part)
            count = next(n for n in range(DIGITS, 65) if re.search('[a-f]', digest[:n]) or n == 64)
            path = folder / f'{stem}-{digest[:count]}.safetensors'
            part.chmod(0o666 & ~_umask())
            os.replace(part, path)
    except OSError as error:
        raise WeightsError(f'{folder} cannot be written to: {error.strerror or error}') from None
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _config_text(cfg: Config) -> str:
    """The config without what belongs to one run, with folders of this machine named by their last part."""
    cfg = Config(cfg._cfg_dict.to_dict(), filename=None)
    for key, value in FORGOTTEN.items():
        if key in cfg:
            cfg[key] = value
    backbone = (cfg.get('model') or {}).get('backbone')
    if backbone is not None and 'init_cfg' in backbone:
        backbone['init_cfg'] = None  # its weights are in the file
    text = cfg.pretty_text
    for root in sorted(set(_absolute_roots(cfg._cfg_dict)), key=len, reverse=True):
        text = text.replace(root.rstrip('/'), f'data/{Path(root).name}')
    return text


def _absolute_roots(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        root = value.get('data_root')
        if isinstance(root, str) and os.path.isabs(root):
            yield root
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _absolute_roots(item)


def _metrics(checkpoint: str, meta: Mapping[str, Any]) -> dict[str, float]:
    """What the run measured of this very checkpoint, from the log beside it; nothing where there is no such record."""
    with contextlib.suppress(UserError, OSError):
        for record in reversed(read_scalars(Path(checkpoint).parent)[1]):
            if record.get('step') in (meta.get('epoch'), meta.get('iter')):
                return {
                    key: float(value)
                    for key, value in record.items()
                    if key != 'step' and isinstance(value, (int, float)) and 'time' not in key and value != -1
                }
    return {}
