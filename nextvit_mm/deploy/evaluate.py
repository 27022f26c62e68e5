"""An exported model in the place of an MM model, for the config's own data and metrics."""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..training.launch import evaluate
from ..utils.subprocess import run_apart


@HOOKS.register_module()
class CountHook(Hook):
    """Counts the tested batches on a terminal's stderr, where the log is silent."""

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if sys.stderr.isatty():
            total = len(runner.test_dataloader)
            print(f'\r{batch_idx + 1}/{total}', end='\r' if batch_idx + 1 < total else '\r\033[K', file=sys.stderr)


def evaluate_apart(
    config: str,
    files: Mapping[str, str | Path],
    data_root: str | None = None,
    cfg_options: dict | None = None,
    backbone: str | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics of models on the config's test data, measured by a process of its own.

    So that it finds what a user's own process will, and leaves nothing behind in the exporter's. All have the one,
    because to import everything takes seconds.

    Args:
        config, data_root, cfg_options, backbone: As in :func:`nextvit_mm.training.launch.evaluate`.
        files: Checkpoints and exported models, by the names that their metrics get. Checkpoints come first, whose
            loading processes must not be forked beside OpenVINO's threads.

    Raises:
        UserError: An evaluation fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        return run_apart(
            _evaluate_here,
            'the evaluation failed',
            show_progress=True,
            files={name: str(file) for name, file in files.items()},
            folder=folder,
            config=str(config),
            data_root=data_root,
            backbone=backbone,
            cfg_options=dict(cfg_options or {}, log_level='WARNING', custom_hooks=[dict(type='CountHook')]),
        )


def _evaluate_here(files: dict[str, str], folder: str, **arguments: Any) -> dict[str, dict[str, float]]:
    return {
        name: {
            key: float(value)
            for key, value in evaluate(checkpoint=file, work_dir=str(Path(folder, name)), **arguments).items()
        }
        for name, file in files.items()
    }
