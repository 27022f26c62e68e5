"""An exported model in the place of an MM model, for the config's own data and metrics."""

import sys
import tempfile
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
    config: str, file: Path, data_root: str | None = None, cfg_options: dict | None = None, backbone: str | None = None
) -> dict[str, float]:
    """Metrics of an exported model on the config's test data, measured by a process of its own.

    So that it finds what a user's own process will, and leaves nothing behind in the exporter's.

    Args:
        config, data_root, cfg_options, backbone: As in :func:`nextvit_mm.training.launch.evaluate`.
        file: The exported model.

    Raises:
        UserError: The evaluation fails.
    """
    with tempfile.TemporaryDirectory() as work_dir:
        return run_apart(
            _evaluate_here,
            'the evaluation failed',
            show_progress=True,
            config=str(config),
            checkpoint=str(file),
            data_root=data_root,
            backbone=backbone,
            work_dir=work_dir,
            cfg_options=dict(cfg_options or {}, log_level='WARNING', custom_hooks=[dict(type='CountHook')]),
        )


def _evaluate_here(**arguments: Any) -> dict[str, float]:
    return {key: float(value) for key, value in evaluate(**arguments).items()}
