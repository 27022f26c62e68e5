"""The demo: data, training, evaluation and pictures in one call."""
import itertools
import time
from pathlib import Path
from typing import List, Optional

import numpy as np
from mmengine.runner import Runner

from ..analysis import draw_detections, draw_losses, read_scalars
from ..datasets import DigitsConfig, make_digits
from ..errors import UserError
from .launch import train

METRICS = {'box AP': 'coco/bbox_mAP', 'box AP50': 'coco/bbox_mAP_50', 'mask AP': 'coco/segm_mAP',
           'mask AP50': 'coco/segm_mAP_50'}


def run_demo(config: str, data_dir: str, work_dir: str, cfg_options: Optional[dict] = None,
             digits: DigitsConfig = DigitsConfig()) -> dict:
    """Make the digits, train a detector on them, evaluate it with COCO's metric, and draw what it does.

    Args:
        config: A config on the digits, such as ``configs/demo/mask_rcnn_nextvit_s_digits.py``.
        data_dir: Where the data are, or are made.
        work_dir: Where checkpoint, log, ``predictions.png`` and ``losses.png`` go.
        cfg_options: Dotted keys and values merged into the config.
        digits: The data to make.

    Returns:
        dict: The last validation's metrics.

    Raises:
        UserError: ``data_dir`` holds something else.
    """
    start = time.monotonic()
    try:
        made = make_digits(data_dir, digits)
    except (FileExistsError, ValueError) as error:
        raise UserError(str(error)) from None
    print(f'{data_dir}: {"made" if made else "already there"}')
    runner = train(config, work_dir=work_dir, data_root=str(Path(data_dir, 'coco')), cfg_options=cfg_options, seed=0)
    metrics = read_scalars(work_dir)[1][-1]
    losses, predictions = Path(work_dir, 'losses.png'), Path(work_dir, 'predictions.png')
    draw_losses(work_dir, losses)
    draw_validation(runner, predictions)
    minutes = (time.monotonic() - start) / 60
    print('\n'.join([
        f'validation after {runner.iter} iterations, {minutes:.1f} min: '
        + ', '.join(f'{name} {metrics[key]:.3f}' for name, key in METRICS.items()),
        f'pictures: {predictions} (ground truth beside prediction), {losses}'
    ]))
    return metrics


def draw_validation(runner: Runner, out_file: Path, pictures: int = 12, min_score: float = 0.5) -> None:
    """Draw the first validation pictures: ground truth beside what the runner's detector predicts."""
    import mmcv
    model = runner.model.eval()
    batches = (model.val_step(batch) for batch in runner.val_dataloader)
    samples: List = list(itertools.islice(itertools.chain.from_iterable(batches), pictures))
    images, truths, predictions = [], [], []
    for sample in samples:
        predicted = sample.pred_instances[sample.pred_instances.scores >= min_score].cpu().numpy()
        truth = sample.gt_instances
        images.append(mmcv.imread(sample.img_path, channel_order='rgb'))
        truths.append(dict(boxes=np.asarray(truth.bboxes.cpu()).reshape(-1, 4), labels=truth.labels.cpu().numpy(),
                           masks=truth.masks.masks.astype(bool)))
        predictions.append(dict(boxes=predicted.bboxes, labels=predicted.labels, masks=predicted.masks,
                                scores=predicted.scores))
    draw_detections(images, truths, predictions, runner.val_dataloader.dataset.metainfo['classes'], out_file)
