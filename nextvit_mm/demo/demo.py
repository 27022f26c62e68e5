"""The demo: data, training, evaluation and pictures in one call."""

import itertools
import time
from pathlib import Path

import numpy as np
from mmengine.runner import Runner

from ..errors import UserError
from ..training.config import load_config
from ..training.launch import train
from ..utils.logs import read_scalars
from .digit_classes import DigitClassesConfig, make_digit_classes
from .digits import DigitsConfig, make_digits
from .figures import draw_classifications, draw_detections, draw_losses, draw_segmentations

# By library: where its data lie below the demo's, and which metrics are told, with what takes them to fractions.
DATA = dict(mmdet='coco', mmseg='ade', mmpretrain='imagenet')
METRICS = dict(
    mmdet={
        'box AP': ('coco/bbox_mAP', 1),
        'box AP50': ('coco/bbox_mAP_50', 1),
        'mask AP': ('coco/segm_mAP', 1),
        'mask AP50': ('coco/segm_mAP_50', 1),
    },
    mmseg={'mIoU': ('mIoU', 100), 'pixel accuracy': ('aAcc', 100)},
    mmpretrain={'top-1': ('accuracy/top1', 100)},
)


def run_demo(
    config: str,
    data_dir: str,
    work_dir: str,
    cfg_options: dict | None = None,
    digits: DigitsConfig | None = None,
    classes: DigitClassesConfig | None = None,
    verbose: bool = False,
) -> dict:
    """Make the digits, train a detector, segmentor or classifier on them, evaluate it, and draw what it does.

    Args:
        config: A config on the digits, one of ``configs/demo/``.
        data_dir: Where the data are, or are made.
        work_dir: Where checkpoint, log, ``predictions.png`` and ``losses.png`` go.
        cfg_options: Dotted keys and values merged into the config.
        digits, classes: The data to make, the latter for classifiers.
        verbose: As in :func:`nextvit_mm.training.launch.train`.

    Returns:
        dict: The last validation's metrics.

    Raises:
        UserError: ``data_dir`` holds something else.
    """
    start = time.monotonic()
    scope = load_config(config).get('default_scope')
    if scope not in DATA:
        raise UserError(f'{config} is not of {" or ".join(DATA)}: the demo has data for these')
    data_root = Path(data_dir, DATA[scope])
    try:
        made = make_digits(data_dir, digits or DigitsConfig())
        if scope == 'mmpretrain':
            made = make_digit_classes(data_root, classes or DigitClassesConfig()) or made
    except (FileExistsError, ValueError) as error:
        raise UserError(str(error)) from None
    print(f'{data_dir}: {"made" if made else "already there"}')
    runner = train(
        config, work_dir=work_dir, data_root=str(data_root), cfg_options=cfg_options, seed=0, verbose=verbose
    )
    metrics = read_scalars(work_dir)[1][-1]
    losses, predictions = Path(work_dir, 'losses.png'), Path(work_dir, 'predictions.png')
    draw_losses(work_dir, losses)
    dict(mmdet=draw_detector, mmseg=draw_segmentor, mmpretrain=draw_classifier)[scope](runner, predictions)
    minutes = (time.monotonic() - start) / 60
    print(
        '\n'.join(
            [
                f'validation after {runner.iter} iterations, {minutes:.1f} min: '
                + ', '.join(f'{name} {metrics[key] / whole:.3f}' for name, (key, whole) in METRICS[scope].items()),
                f'pictures: {predictions} (ground truth beside prediction), {losses}',
            ]
        )
    )
    return metrics


def draw_detector(runner: Runner, out_file: Path, pictures: int = 12, min_score: float = 0.5) -> None:
    """Draw the first validation pictures: ground truth beside what the runner's detector predicts."""
    images, truths, predictions = [], [], []
    for sample in _predictions(runner, pictures):
        predicted = sample.pred_instances[sample.pred_instances.scores >= min_score].cpu().numpy()
        truth = sample.gt_instances
        images.append(_read_rgb(sample.img_path))
        truths.append(
            dict(
                boxes=np.asarray(truth.bboxes.cpu()).reshape(-1, 4),
                labels=truth.labels.cpu().numpy(),
                masks=truth.masks.masks.astype(bool),
            )
        )
        predictions.append(
            dict(boxes=predicted.bboxes, labels=predicted.labels, masks=predicted.masks, scores=predicted.scores)
        )
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


def draw_classifier(runner: Runner, out_file: Path, pictures: int = 40) -> None:
    """Draw pictures from all over the validation set, with their classes and what the runner's classifier predicts."""
    samples = _predictions(runner, None)  # they lie sorted by class
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, min(pictures, len(samples))).round().astype(int)]
    draw_classifications(
        [_read_rgb(sample.img_path) for sample in chosen],
        [int(sample.gt_label) for sample in chosen],
        [int(sample.pred_label) for sample in chosen],
        [float(sample.pred_score.max()) for sample in chosen],
        runner.val_dataloader.dataset.metainfo['classes'],
        out_file,
        title=f'{len(chosen)} of {len(samples)} validation pictures',
    )


def _predictions(runner: Runner, pictures: int | None) -> list:
    """The validated data samples of the first pictures; None: of all."""
    model = runner.model.eval()
    batches = (model.val_step(batch) for batch in runner.val_dataloader)
    return list(itertools.islice(itertools.chain.from_iterable(batches), pictures))


def _read_rgb(path: str) -> np.ndarray:
    import mmcv

    return mmcv.imread(path, channel_order='rgb')
