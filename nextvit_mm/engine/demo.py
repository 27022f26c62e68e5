"""The demo: data, training, evaluation and pictures in one call."""
import itertools
import time
from pathlib import Path
from typing import List, Optional

import numpy as np
from mmengine.runner import Runner

from ..analysis import draw_detections, draw_losses, draw_segmentations, read_scalars
from ..datasets import DigitsConfig, make_digits
from ..errors import UserError
from .config import load_config
from .launch import train

# By library: where its data lie below the demo's, and which metrics are told, with what takes them to fractions.
DATA = dict(mmdet='coco', mmseg='ade')
METRICS = dict(
    mmdet={'box AP': ('coco/bbox_mAP', 1), 'box AP50': ('coco/bbox_mAP_50', 1), 'mask AP': ('coco/segm_mAP', 1),
           'mask AP50': ('coco/segm_mAP_50', 1)},
    mmseg={'mIoU': ('mIoU', 100), 'pixel accuracy': ('aAcc', 100)})


def run_demo(config: str, data_dir: str, work_dir: str, cfg_options: Optional[dict] = None,
             digits: DigitsConfig = DigitsConfig()) -> dict:
    """Make the digits, train a detector or segmentor on them, evaluate it, and draw what it does.

    Args:
        config: A config on the digits, one of ``configs/demo/``.
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
    scope = load_config(config).get('default_scope')
    if scope not in DATA:
        raise UserError(f'{config} is not of {" or ".join(DATA)}: the demo has data for these')
    try:
        made = make_digits(data_dir, digits)
    except (FileExistsError, ValueError) as error:
        raise UserError(str(error)) from None
    print(f'{data_dir}: {"made" if made else "already there"}')
    runner = train(config, work_dir=work_dir, data_root=str(Path(data_dir, DATA[scope])), cfg_options=cfg_options,
                   seed=0)
    metrics = read_scalars(work_dir)[1][-1]
    losses, predictions = Path(work_dir, 'losses.png'), Path(work_dir, 'predictions.png')
    draw_losses(work_dir, losses)
    (draw_detector if scope == 'mmdet' else draw_segmentor)(runner, predictions)
    minutes = (time.monotonic() - start) / 60
    print('\n'.join([
        f'validation after {runner.iter} iterations, {minutes:.1f} min: '
        + ', '.join(f'{name} {metrics[key] / whole:.3f}' for name, (key, whole) in METRICS[scope].items()),
        f'pictures: {predictions} (ground truth beside prediction), {losses}'
    ]))
    return metrics


def draw_detector(runner: Runner, out_file: Path, pictures: int = 12, min_score: float = 0.5) -> None:
    """Draw the first validation pictures: ground truth beside what the runner's detector predicts."""
    images, truths, predictions = [], [], []
    for sample in _predictions(runner, pictures):
        predicted = sample.pred_instances[sample.pred_instances.scores >= min_score].cpu().numpy()
        truth = sample.gt_instances
        images.append(_read_rgb(sample.img_path))
        truths.append(dict(boxes=np.asarray(truth.bboxes.cpu()).reshape(-1, 4), labels=truth.labels.cpu().numpy(),
                           masks=truth.masks.masks.astype(bool)))
        predictions.append(dict(boxes=predicted.bboxes, labels=predicted.labels, masks=predicted.masks,
                                scores=predicted.scores))
    draw_detections(images, truths, predictions, runner.val_dataloader.dataset.metainfo['classes'], out_file)


def draw_segmentor(runner: Runner, out_file: Path, pictures: int = 12) -> None:
    """Draw the first validation pictures: ground truth beside what the runner's segmentor predicts."""
    images, truths, predictions = [], [], []
    for sample in _predictions(runner, pictures):
        images.append(_read_rgb(sample.img_path))
        truths.append(sample.gt_sem_seg.data[0].cpu().numpy())
        predictions.append(sample.pred_sem_seg.data[0].cpu().numpy())
    info = runner.val_dataloader.dataset.metainfo
    draw_segmentations(images, truths, predictions, info['classes'], info['palette'], out_file)


def _predictions(runner: Runner, pictures: int) -> List:
    """The validated data samples of the first pictures."""
    model = runner.model.eval()
    batches = (model.val_step(batch) for batch in runner.val_dataloader)
    return list(itertools.islice(itertools.chain.from_iterable(batches), pictures))


def _read_rgb(path: str) -> np.ndarray:
    import mmcv
    return mmcv.imread(path, channel_order='rgb')
