"""Five upstream models with Next-ViT-S, trained from scratch on the demo's digits by the tool that users run.

``python -m benchmarks.sweep.digits work_dirs/swapped`` makes the data, trains 100 iterations each, and prints a table.
The same model is tested untrained too: what it reaches is chance. Finished runs are skipped.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

import nextvit_mm.adapt  # noqa: F401  (NextViT is registered)
from nextvit_mm.demo import DigitsConfig, make_digits

ROOT = Path(__file__).resolve().parents[2]
METRICS = dict(coco='coco/bbox_mAP_50', ade='mIoU')
SIDE, BATCH = 128, 4


@dataclass
class Model:
    """What is trained.

    Attributes:
        config: As ``tools/train.py`` takes it.
        data: The folder of the digits.
        lr: The rate, for batches of 4 from scratch.
        options: For ``--cfg-options``.
    """

    config: str
    data: str = 'coco'
    lr: str = '4e-4'
    options: tuple[str, ...] = ()


SWAPPED = {
    'RetinaNet': Model('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'),
    'Faster R-CNN': Model('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
    'Cascade Mask R-CNN': Model('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'),
    'DeepLabV3+': Model('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py', 'ade'),
    'DINO (a DETR)': Model(
        'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        options=('model.num_queries=100', 'model.dn_cfg.group_cfg.num_dn_queries=20', 'model.test_cfg.max_per_img=100'),
    ),
}


def train(model: Model, data: Path, out: Path, iterations: int) -> None:
    """Train as a user would, and test the model as it was before."""
    options = ['default_hooks.logger.interval=5', *model.options]
    words = [
        *('tools/train.py', model.config, '--backbone', 'small', '--recipe', 'published', '--no-pretrained'),
        *('--own-classes', '--data-root', str(data / model.data), '--work-dir', str(out), '--iters', str(iterations)),
        *('--image-size', str(SIDE), '--batch-size', str(BATCH), '--lr', model.lr, '--seed', '0'),
    ]
    run(*words, '--cfg-options', *options)
    config = next(out.glob('*.py'))
    save_untrained(config, out / 'untrained.pth')
    run('tools/test.py', str(config), str(out / 'untrained.pth'), '--work-dir', str(out / 'untrained'))
    (out / 'done').touch()


def run(*words: str) -> None:
    print('python', ' '.join(words), flush=True)
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT)


def save_untrained(config: Path, file: Path) -> None:
    """The weights that the model of a run begins with; another draw of them."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), file)


def log_of(folder: Path) -> list[dict]:
    """The lines of a training's log."""
    file = max(folder.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime)
    return [json.loads(line) for line in file.read_text().splitlines()]


def tested(folder: Path) -> dict:
    """What a test wrote."""
    return json.loads(max(folder.glob('*/*.json'), key=lambda path: path.stat().st_mtime).read_text())


def constant(folder: Path) -> float:
    """The mIoU in per cent of one class for every pixel, of the best class."""
    maps = [np.asarray(Image.open(path)) for path in sorted(folder.glob('*.png'))]
    counts = np.bincount(np.concatenate([one.ravel() for one in maps]))
    return 100 * counts.max() / counts.sum() / (counts > 0).sum()


def table(out: Path, data: Path) -> Iterator[str]:
    yield '| model | loss, first and last 10 iterations | metric | untrained | seconds a step | flags of its own |'
    yield '|---|---|---|---|---|---|'
    for name, model in SWAPPED.items():
        folder = out / slug(name)
        if not (folder / 'done').exists():
            continue
        lines = log_of(folder)
        steps = [line for line in lines if 'loss' in line]
        metric = METRICS[model.data]
        value = next(line[metric] for line in reversed(lines) if metric in line)
        chance = tested(folder / 'untrained').get(metric, 0.0)  # a detector that finds nothing has none
        if model.data == 'ade':
            chance = max(chance, constant(data / 'ade' / 'annotations' / 'validation'))
        first, last = (statistics.mean(one['loss'] for one in part) for part in (steps[:2], steps[-2:]))
        seconds = statistics.median(one['time'] for one in steps)
        yield (
            f'| {name} | {first:.2f} to {last:.2f} | {metric.split("/")[-1]} {value:.3g} | {chance:.3g} | '
            f'{seconds:.1f} | `{" ".join(("--lr", model.lr, *model.options))}` |'
        )


def slug(name: str) -> str:
    return ''.join(letter if letter.isalnum() else '_' for letter in name.lower())


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.sweep.digits', description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='where the runs are kept')
    parser.add_argument('--data', type=Path, default=Path('data/digits_swapped'))
    parser.add_argument('--iters', type=int, default=100)
    parser.add_argument('--only', default='', metavar='WORD', help='only models with this in their names')
    args = parser.parse_args()
    folder, data = args.folder.resolve(), args.data.resolve()
    make_digits(data, DigitsConfig(train=args.iters * BATCH))  # detectors count epochs: this is one
    (data / 'ade' / 'classes.txt').write_text('\n'.join(['ground', *'0123456789']) + '\n')
    for name, model in SWAPPED.items():
        if args.only in name and not (folder / slug(name) / 'done').exists():
            train(model, data, folder / slug(name), args.iters)
    print('\n'.join(table(folder, data)))


if __name__ == '__main__':
    main()
