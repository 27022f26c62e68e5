"""What an export prints, and the files that belong together."""

import os
import shutil
import time
from pathlib import Path

from ..predict.predictor import About, about_file


class Steps:
    """One line a step, with its time."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def run(self, title: str, work):
        self.done += 1
        print(f'[{self.done}/{self.total}] {title}', end=' … ', flush=True)
        start = time.monotonic()
        try:
            result = work()
        except BaseException:
            print('failed', flush=True)
            raise
        print(f'{time.monotonic() - start:.1f} s', flush=True)
        return result


def files_of(path: Path) -> list[Path]:
    """What belongs to an exported model, itself first."""
    return [path, *([path.with_suffix('.bin')] if path.suffix == '.xml' else []), about_file(path)]


def move(source: Path, target: Path) -> None:
    """Each file by one rename; the ``.json`` last, without which the predictor takes nothing."""
    about_file(target).unlink(missing_ok=True)
    for old, new in zip(files_of(source), files_of(target)):
        if new.is_dir():
            shutil.rmtree(new)
        os.replace(old, new)


def print_result(target: Path, about: About) -> None:
    compared = about['compared']
    if 'not_compared' in compared:
        print(
            f'not compared with PyTorch: {compared["not_compared"]}; the program has '
            f'{sum(compared["operations"].values())} operations of {len(compared["operations"])} kinds'
        )
    else:
        pictures = dict(
            given='given pictures',
            config="pictures of the config's test data",
            noise='noise, for want of pictures (--images)',
        )[about['pictures']['test']]
        figures = ', '.join(f'{name} {value:.6g}' for name, value in compared.items())
        print(f'against PyTorch, on {pictures}: {figures}')
    if any(step['do'] == 'canvas' for step in about['steps']):
        height, width = about['input']['size']
        print(f'pictures of another shape than {height}x{width} are resized to fit into it, and padded')
    if 'tensorrt' in about:
        unlisted = ', '.join(about['tensorrt']['unlisted'])
        print(f'operators that {about["tensorrt"]["list"]} does not list: {unlisted or "none"}')
    if about['exported']['int8'] and 'evaluated' not in about:
        print("what int8 costs in AP or mIoU was not measured: that needs the config's test data (--data-root DIR)")
    for name, metrics in about.get('evaluated', {}).items():
        print(f'{name}: ' + (', '.join(f'{key} {value:.4g}' for key, value in metrics.items()) or 'nothing found'))
    written = about['file']
    if 'ir_version' in written:
        opset = f'opset {written["opset"]}, ' if 'opset' in written else ''
        print(f'{written["name"]}: {opset}IR version {written["ir_version"]}')
    print('written: ' + ', '.join(str(path) for path in files_of(target)))
