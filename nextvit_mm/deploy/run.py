"""An exported file's outputs, in whichever runtime it is for."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..predict.predictor import open_session
from ..utils.optional import need
from ..utils.subprocess import run_apart
from . import backends
from .apart import run_openvino


def outputs_of(path: Path, to: str, images: Sequence[np.ndarray]) -> list[list[np.ndarray]] | None:
    """The file's outputs for each image, or None where the format cannot be run here."""
    if to == 'coreml' and sys.platform != 'darwin':
        return None
    if to == 'openvino':
        return _openvino_outputs(path, images)
    if to == 'torch-export':
        module = torch.export.load(str(path)).module()
        with torch.no_grad():
            results = [module(torch.from_numpy(image)) for image in images]
        return [[o.numpy() for o in (r if isinstance(r, (tuple, list)) else (r,))] for r in results]
    if to == 'coreml':
        program = need('coremltools', 'Core ML').models.MLModel(str(path))
        names = [output.name for output in program.get_spec().description.output]
        return [[program.predict({backends.INPUT: image})[name] for name in names] for image in images]
    need('onnxruntime', 'running ONNX')
    session = open_session(path, device='cpu')
    return [session(image) for image in images]


def _openvino_outputs(path: Path, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """By a process of its own, for the reason given at :func:`.backends.write_openvino`."""
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            np.save(Path(folder, f'{i}.npy'), image)
        run_apart(
            run_openvino,
            f'OpenVINO cannot run {path.name}',
            bare=True,
            path=str(path),
            folder=folder,
            count=len(images),
        )
        results = []
        for i in range(len(images)):
            with np.load(Path(folder, f'{i}.npz')) as arrays:
                results.append([arrays[f'arr_{j}'] for j in range(len(arrays.files))])
        return results
