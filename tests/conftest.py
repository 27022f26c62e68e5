"""Helpers that several test files share."""

import contextlib
import copy
import gc
import io
import json
import os
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from torch.nn.modules.batchnorm import _BatchNorm

from nextvit_mm import NextViT
from nextvit_mm.demo import DigitsConfig, make_digits

# The workers of pytest-xdist, and the processes that tests start, share the machine's cores.
torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'
# A forked process has none of OpenVINO's threads. Tidying up after its parent's models, it waited for them for ever.
if hasattr(os, 'fork'):
    os.register_at_fork(after_in_child=gc.freeze)

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get('NEXTVIT_MM_SHARED', ROOT.parent / 'shared'))  # real samples and published curves
DETECTOR = str(ROOT / 'configs' / 'detection' / 'mask_rcnn_nextvit_s_1x.py')
RECIPES = sorted((ROOT / 'configs').glob('detection/*.py')) + sorted((ROOT / 'configs').glob('segmentation/*.py'))
DEMO = str(ROOT / 'configs' / 'demo' / 'mask_rcnn_nextvit_s_digits.py')

# A block a stage, of either kind: every kind of layer, and E-MHSA with its keys and values reduced and not. What a test
# takes grows with the blocks: steps, files, exports, even shapes.
TINY = dict(
    stem_channels=(16, 8, 16),
    stages=[
        dict(num_ncb=1, num_ntb=0, ncb_channels=32, sr_ratio=8, head_dim=16),
        dict(num_ncb=0, num_ntb=1, ncb_channels=32, ntb_channels=64, sr_ratio=4, head_dim=16),
        dict(num_ncb=1, num_ntb=0, ncb_channels=128, ntb_channels=128, sr_ratio=2, head_dim=16),
        dict(num_ncb=0, num_ntb=1, ncb_channels=96, ntb_channels=128, sr_ratio=1, head_dim=16),
    ],
)

# An NCB before the NTB in a stage, and twice so in another, for tests of names, depths and blocks; the same widths.
GROUPED = dict(
    TINY,
    stages=[
        TINY['stages'][0],
        dict(TINY['stages'][1], num_ncb=1),
        dict(TINY['stages'][2], ncb_channels=64, num_ntb=1, repeats=2),
        dict(TINY['stages'][3], num_ncb=1),
    ],
)
WIDTHS = [32, 64, 128, 128]  # of their stages


@cache
def _config(path: Path) -> Config:
    return Config.fromfile(path)


def load_config(path) -> Config:
    """A copy of a config; reading one takes MMEngine half a second. Skips the test where the base's library is not."""
    try:
        return copy.deepcopy(_config(Path(path)))
    except ModuleNotFoundError as error:
        if 'is not installed' not in str(error):  # what MMEngine says of a base's library
            raise
        pytest.skip(f'{Path(path).name}: {error}')


def shared(*parts: str) -> Path:
    """A path in the folder of reference material beside the project; skips the test where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f'{path} is not here: reference data lie outside the repository')
    return path


def randomise(model: torch.nn.Module, seed: int = 0, weights: bool = True) -> torch.nn.Module:
    """BN with statistics and affine parameters far from the identity and, unless told otherwise, random weights."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
        elif weights and isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.weight.data.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.1, generator=generator)
    return model


def fit_norms(model: torch.nn.Module, pictures: torch.Tensor) -> torch.nn.Module:
    """Give every BN the statistics of pictures, (B, 3, H, W), and put the model into eval mode.

    As in a trained network, what a BN takes in is then about as large as its statistics say. With any others the values
    of so many layers explode or vanish: no two ways of adding them up agree, or pictures are not told apart.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures)
    return model.eval()


def shrink(config: Config, backbone: bool = True) -> Config:
    """Give a config's model, in place, the smallest backbone and heads of a few channels; all else stays.

    Args:
        config: Of Mask R-CNN, Semantic FPN, UperNet or a classifier.
        backbone: Whether the backbone is made small too; without it, for tests of files of a published size.
    """
    model = config.model
    if backbone:
        model.backbone.arch = TINY
    if model.type == 'MaskRCNN':
        model.rpn_head.update(in_channels=32, feat_channels=32)
        for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
            model.roi_head[name].out_channels = 32
        model.roi_head.bbox_head.update(in_channels=32, fc_out_channels=64)
        model.roi_head.mask_head.update(in_channels=32, conv_out_channels=32)
    elif 'neck' in model and model.neck.type == 'FPN':
        model.decode_head.update(in_channels=[32] * 4, channels=32)
    elif 'auxiliary_head' in model:
        model.decode_head.update(channels=32)
        model.auxiliary_head.update(channels=16)
    if 'neck' in model and model.neck.type == 'FPN':
        model.neck.out_channels = 32
    if not backbone:
        return config
    if 'neck' in model and model.neck.type == 'FPN':
        model.neck.in_channels = WIDTHS
    elif 'auxiliary_head' in model:
        model.decode_head.in_channels = WIDTHS
        model.auxiliary_head.in_channels = WIDTHS[2]
    else:
        model.head.in_channels = WIDTHS[3]
    return config


def write_small(source: str | Path, folder: Path, backbone: bool = True) -> str:
    """The file of a config under the same name, with the model that :func:`shrink` leaves of it."""
    path = folder / Path(source).name
    shrink(load_config(source), backbone).dump(path)
    return str(path)


def on_meta(build, *args, **kwargs) -> torch.nn.Module:
    """A model on PyTorch's meta device, for its names and shapes.

    Its weights are not filled in: even of tensors without values that takes the most time.
    """
    steps = dict.fromkeys(['uniform_', 'erfinv_', 'mul_', 'add_', 'clamp_', 'normal_'], lambda self, *_, **__: self)
    with torch.device('meta'), mock.patch.multiple(torch.Tensor, **steps):
        return build(*args, **kwargs)


def empty(build, *args, **kwargs) -> torch.nn.Module:
    """A model whose weights nobody has filled in, for tests that load all of them."""
    return on_meta(build, *args, **kwargs).to_empty(device='cpu')


def hollow(state_dict: dict) -> dict:
    """The same names, shapes and types, of zeros that share one number: a file of kilobytes instead of 100 MB."""
    return {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in state_dict.items()}


def published_names(arch: str) -> dict:
    """The state dict of a backbone of a published size, hollow."""
    return hollow(on_meta(NextViT, arch).state_dict())


def tiny(arch: dict = TINY, **kwargs) -> NextViT:
    return randomise(NextViT(arch, **kwargs))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def forget_runs() -> None:
    """MMEngine's loggers, visualizers (each kind has a list of its own) and scope, as a new process has none."""
    for manager in (MMLogger, MessageHub, DefaultScope, Visualizer, *Visualizer.__subclasses__()):
        manager._instance_dict.clear()


def call_tool(tool, *args, cwd=ROOT, check=True, **env) -> subprocess.CompletedProcess:
    """Run a file of tools/ in this process, as ``__main__``; what it prints through Python is captured.

    MMEngine's loggers, visualizers and scope are fresh, and the environment, the folder and torch's number of threads
    are restored. An error other than ``SystemExit`` goes on to the test.
    """
    forget_runs()
    argv, out, err = [str(tool), *map(str, args)], io.StringIO(), io.StringIO()
    threads, folder, status = torch.get_num_threads(), os.getcwd(), 0
    with (
        mock.patch.dict(os.environ, env),
        mock.patch.object(sys, 'argv', argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            os.chdir(cwd)
            runpy.run_path(str(tool), run_name='__main__')
        except SystemExit as end:
            if isinstance(end.code, str):  # as Python itself does
                print(end.code, file=err)
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            os.chdir(folder)
            torch.set_num_threads(threads)
    result = subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())
    return _checked(result) if check else result


def _checked(result: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    if result.returncode:
        raise AssertionError(
            f'{result.args} ended with {result.returncode}:\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}'
        )
    return result


# Waits for a line of JSON on its input, runs the code of it in a fork of its own, and answers with another.
_HATCHERY = """
import json, os, sys, traceback
import cv2, mmengine.runner, torch._dynamo
def run(order):
    os.chdir(order['cwd'])
    os.environ.update(order['env'])
    sys.path[1:1] = order['env'].get('PYTHONPATH', '').split(os.pathsep)
    sys.argv = ['-c', *order['argv']]
    for number, name in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    status = 0
    try:
        exec(compile(order['code'], '<code>', 'exec'), dict(__name__='__main__'))
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
for line in sys.stdin:
    child = os.fork()
    if not child:
        run(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def pytest_collection_finish():
    """All that is imported stays: to look through it for what may go takes a twenty-fifth of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope='session')
def run_fresh(tmp_path_factory):
    """A function that runs code with arguments in a process of its own, as ``python -c`` does.

    Torch (with Dynamo, which torchvision takes a second for) and mmengine are imported already, which takes most of the
    time of so short a process. Of this package, mmcv and the MM libraries nothing is.
    """
    folder = tmp_path_factory.mktemp('fresh')
    paths = dict(out=str(folder / 'out'), err=str(folder / 'err'))
    with subprocess.Popen(
        [sys.executable, '-c', _HATCHERY], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as hatchery:

        def run(code: str, *args, cwd=ROOT, check=True, **env) -> subprocess.CompletedProcess:
            order = dict(code=code, argv=[str(arg) for arg in args], cwd=str(cwd), env={**os.environ, **env}, **paths)
            hatchery.stdin.write(json.dumps(order) + '\n')
            hatchery.stdin.flush()
            status = int(hatchery.stdout.readline())
            out, err = (Path(paths[name]).read_text() for name in ('out', 'err'))
            result = subprocess.CompletedProcess(order['argv'], status, out, err)
            return _checked(result) if check else result

        yield run
        # Processes that tests have forked since may hold its input too, so that it would wait for more.
        hatchery.terminate()


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Half of a tiny run's time: yapf lays out the config's text again and again, and a data set tidies memory up.

    The text is Python either way, and the processes that tests start lay it out as usual.
    """
    patch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
    patch.setattr('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=lambda: 0))


@pytest.fixture(scope='session', autouse=True)
def quick_runs():
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        yield


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers for a test, whatever ran before it in its worker."""
    torch.default_generator.manual_seed(0)


@pytest.fixture(scope='session')
def digits(tmp_path_factory) -> Path:
    """A handful of the demo's pictures: 8 for training, 4 for validation."""
    folder = tmp_path_factory.mktemp('data') / 'digits'
    make_digits(folder, DigitsConfig(train=8, val=4, size=64))
    return folder


@pytest.fixture(scope='module')
def small_kernels():
    """The machine's limit by products of a millionth of the work: a second a call in bfloat16 on one core otherwise."""
    from nextvit_mm.benchmark import machine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, 'GEMM', 32)
        patch.setattr(machine, 'CONV', dict(batch=1, channels=16, side=8))
        yield
