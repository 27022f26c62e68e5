"""Write what compiled operators give for every case: ``python -m tests.ops.record``, where they are installed."""

import sys
from pathlib import Path

import numpy as np
import torch

from nextvit_mm.ops import in_use

from .cases import CASES, operators

RECORDED = Path(__file__).parent / 'data' / 'compiled.npz'


def main() -> None:
    import mmcv._ext

    if in_use():
        sys.exit(f'mmcv {mmcv.__version__} has no compiled operators here: there is nothing to record')
    with operators(mmcv._ext):
        arrays = {f'{name}/{key}': value for name, run in CASES.items() for key, value in run().items()}
    np.savez_compressed(RECORDED, made_with=f'mmcv {mmcv.__version__}, torch {torch.__version__}', **arrays)
    print(f'{RECORDED}: {len(CASES)} cases, {RECORDED.stat().st_size} bytes')


if __name__ == '__main__':
    main()
