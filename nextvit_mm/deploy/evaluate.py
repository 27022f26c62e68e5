"""An exported model in the place of an MM model, for the config's own data and metrics."""
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS

from ..errors import UserError
from .apart import run_apart
from .runner import Runner


@MODELS.register_module()
class ExportedModel(BaseModel):
    """Runs an exported file on the picture of each data sample, and hands its results to MM's metrics.

    The picture is read from its file and prepared by the :class:`nextvit_mm.deploy.runner.Runner`, so that what is
    measured is what is shipped, preprocessing included; the config's test pipeline only brings the ground truth.

    Args:
        path: ``.onnx`` or ``.xml``, its ``.json`` beside it.
        data_preprocessor: As of any MM model; not used.
    """

    def __init__(self, path: str, data_preprocessor: Any = None) -> None:
        super().__init__()
        try:
            self.runner = Runner(path)
        except (OSError, ValueError, ImportError) as error:
            raise UserError(str(error)) from None
        if self.runner.about['task'] == 'backbone':
            raise UserError(f'{path} is a backbone, whose feature maps no metric measures: export --what model')

    def forward(self, inputs: Any, data_samples: List, mode: str = 'predict') -> List:
        if mode != 'predict':
            raise UserError('an exported model can only be tested')
        for sample in data_samples:
            fill(sample, self.runner.about['task'], self.runner(sample.img_path))
        return data_samples

    def test_step(self, data: dict) -> List:
        return self.forward(data['inputs'], data['data_samples'])

    val_step = test_step


@HOOKS.register_module()
class CountHook(Hook):
    """Counts the tested batches on a terminal's stderr, where the log is silent."""

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if sys.stderr.isatty():
            total = len(runner.test_dataloader)
            print(f'\r{batch_idx + 1}/{total}', end='\r' if batch_idx + 1 < total else '\r\033[K', file=sys.stderr)


def fill(sample, task: str, result: dict) -> None:
    """Write a runner's result into an MM data sample."""
    if task == 'classification':
        scores = torch.from_numpy(result['scores'])
        sample.set_pred_score(scores).set_pred_label(scores.argmax(0, keepdim=True))
    elif task == 'segmentation':
        from mmengine.structures import PixelData
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(result['class_map'])[None])
    else:
        from mmengine.structures import InstanceData
        named = dict(bboxes='boxes', scores='scores', labels='labels', masks='masks')
        sample.pred_instances = InstanceData(**{ours: torch.from_numpy(result[theirs])
                                                for ours, theirs in named.items() if theirs in result})


def evaluate_apart(config: str, file: Path, data_root: Optional[str] = None, cfg_options: Optional[dict] = None
                   ) -> Dict[str, float]:
    """Metrics of an exported model on the config's test data, measured by a process of its own.

    So that it finds what a user's own process will, and leaves nothing behind in the exporter's.

    Args:
        config, data_root, cfg_options: As in :func:`nextvit_mm.engine.test`.
        file: The exported model.

    Raises:
        UserError: The evaluation fails.
    """
    with tempfile.TemporaryDirectory() as work_dir:
        return run_apart(_evaluate_here, 'the evaluation failed', show_progress=True, config=str(config),
                         checkpoint=str(file), data_root=data_root, work_dir=work_dir,
                         cfg_options=dict(cfg_options or {}, log_level='WARNING',
                                          custom_hooks=[dict(type='CountHook')]))


def _evaluate_here(**arguments: Any) -> Dict[str, float]:
    from ..engine.launch import test
    return {key: float(value) for key, value in test(**arguments).items()}
