"""Which upstream detectors train and test a step here, and which of mmcv's operators they call.

One config of each folder of MMDetection, the first with a ResNet-50 or else the first with a model, without pretrained
weights, on two random pictures of 128 by 128 pixels. Each runs in a process of its own. Finished folders are skipped:
``python benchmarks/sweep.py work_dirs/sweep.json`` goes on where it was stopped, and prints the table at the end.
"""

import argparse
import json
import multiprocessing
import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mmdet
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict

import nextvit_mm  # noqa: F401, I001  (before MMDetection: mmcv's operators)
from nextvit_mm.ops import in_use
from tests.ops.cases import operators

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
SIZE = 128
SECONDS = 90  # of one folder
LIMITS = dict(num=16, max_per_img=32, nms_pre=100, nms_post=32)  # sampled regions, boxes before and after NMS


class Watched:
    """mmcv's operators, which remember what was called."""

    def __init__(self, module) -> None:
        self.module, self.called = module, set()  # type: Tuple[object, Set[str]]

    def __getattr__(self, name: str):
        def call(*args, **kwargs):
            self.called.add(name)
            return getattr(self.module, name)(*args, **kwargs)

        return call


def choose(folder: Path) -> Path | None:
    """The config of a folder that is tried. Some of upstream's name a base that does not exist: those are passed by."""
    for path in sorted(folder.glob('*.py'), key=lambda path: ('r50' not in path.stem, path.name)):
        try:
            if 'model' in Config.fromfile(path):
                return path
        except (OSError, ImportError, SyntaxError, KeyError):
            continue
    return None


def small(node):
    """A config that fetches nothing, and trains on few boxes: what is called does not depend on how many."""
    if isinstance(node, dict):
        if 'checkpoint' in (node.get('init_cfg') or {}):
            node['init_cfg'] = None
        if isinstance(node.get('teacher_ckpt'), str):
            node['teacher_ckpt'] = None
        for key, most in LIMITS.items():
            if isinstance(node.get(key), int) and node[key] > most and (key != 'num' or 'pos_fraction' in node):
                node[key] = most
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        small(value)
    return node


def step(model_config: ConfigDict) -> None:
    """Train and test one step; raises what goes wrong."""
    torch.manual_seed(0)
    np.random.seed(0)
    model = MODELS.build(small(model_config))
    shapes = [(3, SIZE, SIZE)] * 2
    inputs = demo_mm_inputs(2, shapes, num_items=[3, 2], num_classes=4, with_mask=True, with_semantic=True)
    data = model.data_preprocessor(inputs, True)
    losses = model.train()(**data, mode='loss')
    model.parse_losses(losses)[0].backward()
    with torch.no_grad():
        model.eval()(**model.data_preprocessor(inputs, False), mode='predict')


def attempt(path: Path, queue) -> None:
    import mmcv._ext

    watched = Watched(mmcv._ext)
    error = ''
    signal.alarm(SECONDS)
    try:
        config = Config.fromfile(path)
        register_all_modules()
        with operators(watched):
            step(config.model)
    except BaseException as failure:  # the point of a sweep is to go on
        error = f'{type(failure).__name__}: {(str(failure).splitlines() or [""])[0][:160]}'
        traceback.print_exc()
    queue.put(dict(config=path.name, operators=sorted(watched.called), error=error))


def sweep(file: Path, names: list[str]) -> dict[str, dict]:
    results = json.loads(file.read_text()) if file.exists() else {}
    context = multiprocessing.get_context('fork')  # importing the libraries again would take longer than a step
    for folder in [CONFIGS / name for name in names] or sorted(CONFIGS.iterdir()):
        if folder.name in results or not folder.is_dir() or folder.name == '_base_':
            continue
        path = choose(folder)
        if path is None:
            continue
        queue = context.SimpleQueue()
        process = context.Process(target=attempt, args=(path, queue))
        process.start()
        process.join()
        results[folder.name] = (
            queue.get()
            if process.exitcode == 0 and not queue.empty()
            else dict(config=path.name, operators=[], error=f'ended with {process.exitcode}')
        )
        file.write_text(json.dumps(results, indent=1))
        print(folder.name, results[folder.name], flush=True)
    return results


def table(results: dict[str, dict]) -> Iterator[str]:
    yield '| operators called | folders that run |'
    yield '|---|---|'
    good = Counter(tuple(row['operators']) for row in results.values() if not row['error'])
    for names, count in good.most_common():
        yield f'| {", ".join(names) or "none"} | {count} |'
    yield ''
    yield '| folder that does not | why |'
    yield '|---|---|'
    for name, row in results.items():
        if row['error']:
            yield f'| {name} | {row["error"]} |'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('json', type=Path, help='where the results are kept')
    parser.add_argument('folders', nargs='*', help='only these')
    args = parser.parse_args()
    file = args.json
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = sweep(file, args.folders)
    print(f'operators: {"torchvision and torch" if in_use() else "mmcv, compiled"}; torch {torch.__version__}')
    print(f'{sum(not row["error"] for row in results.values())} of {len(results)} folders run')
    print('\n'.join(table(results)))


if __name__ == '__main__':
    main()
