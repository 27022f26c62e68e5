"""An exported model in the place of an MM model, for a config's own data and metrics."""

from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from ..errors import UserError
from .predictor import About, Predictor


@MODELS.register_module()
class ExportedModel(BaseModel):
    """Runs an exported file on the picture of each data sample, and hands its results to MM's metrics.

    The picture is read from its file and prepared by :class:`.predictor.Predictor`. What is measured is thus what is
    shipped, preprocessing included. The config's test pipeline only brings the ground truth.

    Args:
        path: ``.onnx`` or ``.xml``, its ``.json`` beside it.
        data_preprocessor: As of any MM model; not used.
    """

    def __init__(self, path: str, data_preprocessor: Any = None) -> None:
        super().__init__()
        try:
            self.predictor = Predictor(path)
        except (OSError, ValueError, ImportError) as error:
            raise UserError(str(error)) from None
        if self.predictor.about['task'] == 'backbone':
            raise UserError(f'{path} is a backbone, whose feature maps no metric measures: export --what model')

    def forward(self, inputs: Any, data_samples: list, mode: str = 'predict') -> list:
        if mode != 'predict':
            raise UserError('an exported model can only be tested')
        for sample in data_samples:
            try:
                fill(sample, self.predictor.about, self.predictor(sample.img_path))
            except (OSError, ValueError) as error:
                raise UserError(f'{sample.img_path}: {error}') from None
        return data_samples

    def test_step(self, data: dict) -> list:
        return self.forward(data['inputs'], data['data_samples'])

    val_step = test_step


def fill(sample, about: About, result: dict) -> None:
    """Write a Predictor's result into an MM data sample."""
    if about['task'] == 'classification':
        scores = torch.from_numpy(result['scores'])
        found = torch.from_numpy(result['labels'].copy())
        sample.set_pred_score(scores).set_pred_label(found if about.get('multi_label') else found[:1])
    elif about['task'] == 'segmentation':
        from mmengine.structures import PixelData

        sample.pred_sem_seg = PixelData(data=torch.from_numpy(result['class_map'])[None])
    else:
        from mmengine.structures import InstanceData

        named = dict(bboxes='boxes', scores='scores', labels='labels', masks='masks')
        sample.pred_instances = InstanceData(
            **{ours: torch.from_numpy(result[theirs]) for ours, theirs in named.items() if theirs in result}
        )
