"""The digits as somebody's own data: three folders in layouts of labelling tools, trained by the published recipes.

    python benchmarks/own_data.py work_dirs/own_data

The folders have names and classes that no recipe knows: YOLO boxes, pairs of pictures and class maps, and a folder for
each class. The pictures are small, so that two cores of a CPU will do. Every run is one command of ``tools/train.py``,
which is printed, with the defaults of ``--own-classes`` and the length that is stated. The detector and the classifier
begin with random weights, the segmentor with the detector's backbone, as others begin with published weights. The same
command once more goes on where it was stopped. The table has the last evaluation of each run, not the best.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nextvit_mm.benchmark.machine import describe_machine
from nextvit_mm.demo.digit_classes import DigitClassesConfig, draw_labelled
from nextvit_mm.demo.digits import DigitsConfig, draw_pictures
from nextvit_mm.utils.logs import read_scalars
from nextvit_mm.utils.tables import format_table

ROOT = Path(__file__).resolve().parents[1]
NAMES = ('nought', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


@dataclass(frozen=True)
class Case:
    """A folder of somebody's, and what is made of it.

    Attributes:
        layout: In words.
        write: Writes the folder, with this many pictures for training and validation.
        pictures: How many, for training and validation.
        size: Height and width of a picture, pixels.
        recipe: Below ``configs/``.
        epochs: How long it is trained.
        metric: As the log names it, in the table's words, and in full (1 or 100).
        goal: Least value of it.
        start: The case whose backbone it begins with, and the rate; None begins with random weights.
    """

    layout: str
    write: Callable[[Path, 'Case'], None]
    pictures: tuple[int, int]
    size: int
    recipe: str
    epochs: int
    metric: tuple[str, str, float]
    goal: float
    start: tuple[str, float] | None = None


def write_yolo(folder: Path, case: Case) -> None:
    """Boxes as shares of the picture, a text file for each picture."""
    for split, number, picture in _scenes(case):
        images, labels = folder / split / 'images', folder / split / 'labels'
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.image).save(images / f'scene {number}.jpg', quality=95)
        lines = [f'{label} {_shares(mask)}' for label, mask in zip(picture.labels, picture.masks)]
        (labels / f'scene {number}.txt').write_text('\n'.join(lines) + '\n')
    (folder / 'data.yaml').write_text(
        f'train: train/images\nval: valid/images\nnc: {len(NAMES)}\nnames: {list(NAMES)}\n'
    )


def write_maps(folder: Path, case: Case) -> None:
    """Pictures and class maps in two folders; 0 is the ground."""
    for split, number, picture in _scenes(case):
        classes = np.zeros(picture.image.shape[:2], np.uint8)
        for label, mask in zip(picture.labels, picture.masks):
            classes[mask] = label + 1
        for kind, array, suffix in (('images', picture.image, 'jpg'), ('masks', classes, 'png')):
            path = folder / kind / split / f'scene {number}.{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path, quality=95)
    (folder / 'classes.txt').write_text('\n'.join(['ground', *NAMES]) + '\n')


def write_folders(folder: Path, case: Case) -> None:
    """A folder for each class."""
    config = DigitClassesConfig(*case.pictures, size=case.size)
    for split, name in dict(train='train', val='valid').items():
        for number, picture in enumerate(draw_labelled(split, config)):
            path = folder / name / NAMES[picture.label] / f'{number}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.image).save(path, quality=95)


def _scenes(case: Case):
    """Split, number and picture of all."""
    config = DigitsConfig(*case.pictures, size=case.size)
    for split, name in dict(train='train', val='valid').items():
        for number, picture in enumerate(draw_pictures(split, config)):
            yield name, number, picture


def _shares(mask: np.ndarray) -> str:
    """YOLO's box of a mask (H, W): centre, width and height over those of the picture."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    height, width = mask.shape
    shares = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height)
    return ' '.join(f'{share:.6f}' for share in shares)


CASES = dict(
    detection=Case(
        'YOLO boxes',
        write_yolo,
        (500, 80),
        128,
        'detection/mask_rcnn_nextvit_s_1x',
        3,
        ('coco/bbox_mAP_50', 'box AP50', 1),
        0.80,
    ),
    segmentation=Case(
        'pictures and class maps',
        write_maps,
        (400, 80),
        128,
        'segmentation/semantic_fpn_nextvit_s_80k',
        9,
        ('mIoU', 'mIoU', 100),
        0.50,
        ('detection', 1e-3),  # the demo's; the recipe's rate, for another start and 80,000 iterations, is 7e-5
    ),
    classification=Case(
        'a folder for each class',
        write_folders,
        (1440, 360),
        32,
        'classification/nextvit_s_224',
        40,
        ('accuracy/top1', 'top-1', 100),
        0.95,
    ),
)


def run(name: str, case: Case, out: Path, epochs: int | None) -> list[str]:
    """Make the data and train, where that is not done yet. Returns the table's line."""
    data, work_dir, done = out / 'data' / name, out / name, out / name / 'minutes.txt'
    if not data.exists():
        case.write(data, case)
    epochs = epochs or case.epochs
    command = [
        *(sys.executable, 'tools/train.py', f'configs/{case.recipe}.py', '--data-root', data, '--own-classes'),
        *('--epochs', epochs, '--image-size', case.size, '--seed', 0, '--work-dir', work_dir),
        *_beginning(case, out),
        *(['--resume'] if work_dir.exists() else []),
    ]
    if not done.exists():
        words = [str(word) for word in command]
        print('$', shlex.join(['python', *words[1:]]), flush=True)
        start = time.monotonic()
        subprocess.run(words, cwd=ROOT, check=True)
        done.write_text(f'{(time.monotonic() - start) / 60:.0f}')  # of the last part, where it was stopped
    _, evaluations = read_scalars(work_dir)
    key, words, whole = case.metric
    value = evaluations[-1][key] / whole
    return [
        name,
        case.layout,
        f'{case.pictures[0]:,} of {case.size}²',
        case.start[0] if case.start else 'random',
        str(epochs),
        done.read_text(),
        f'{words} {value:.3f}',
        f'{case.goal:.2f}',
    ]


def _beginning(case: Case, out: Path) -> list[str]:
    if case.start is None:
        return ['--no-pretrained']
    name, rate = case.start
    pointer = out / name / 'last_checkpoint'
    if not pointer.is_file():
        raise SystemExit(f'{pointer} is missing: run --tasks {name} first')
    return ['--lr', str(rate), '--cfg-options', f'model.backbone.init_cfg.checkpoint={pointer.read_text().strip()}']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder for data and runs')
    parser.add_argument('--tasks', nargs='+', choices=CASES, default=list(CASES), help='only these')
    parser.add_argument('--epochs', type=int, help='instead of those that are stated')
    args = parser.parse_args()
    out = args.out.resolve()
    lines = [run(name, CASES[name], out, args.epochs) for name in args.tasks]
    header = ['task', 'data', 'pictures', 'weights', 'epochs', 'minutes', 'reached', 'goal']
    print(format_table(header, lines, 'markdown', left=(0, 1, 2, 3)))
    machine = describe_machine()
    print(f'{machine["date"]}; {machine["cpu"]}, {torch.get_num_threads()} threads; torch {torch.__version__}')


if __name__ == '__main__':
    main()
