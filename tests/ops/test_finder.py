"""How mmcv, MMDetection and their tools find the operators, each in a fresh process."""

import importlib
import importlib.util
import pkgutil
import subprocess
import sys

import mmcv._ext
import pytest
import torch
from mmcv.ops import nms_rotated, three_nn
from mmcv.utils import collect_env
from mmcv.utils.ext_loader import check_ops_exist

from nextvit_mm.errors import UserError
from nextvit_mm.ops import in_use

from ..conftest import DEMO, ROOT, run_tool

pytestmark = pytest.mark.skipif(not in_use(), reason="mmcv's compiled operators are in use")

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {names}:
            raise ModuleNotFoundError(f'No module named {{name!r}}')
sys.meta_path.insert(0, Absent())
import nextvit_mm
"""
# Random weights of a small network: what is tested is that MMDetection's own functions get to their operators.
DETECT = f"""
import numpy as np
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from tests.conftest import TINY
config = Config.fromfile({DEMO!r})
config.model.backbone.update(arch=TINY, init_cfg=None)
config.model.neck.in_channels = [32, 64, 128, 128]
config.test_pipeline[1].scale = config.test_dataloader.dataset.pipeline[1].scale = (64, 64)
config.dump('config.py')
picture = np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)
model = init_detector(config, device='cpu', palette='random')
print('detector', len(inference_detector(model, picture).pred_instances.bboxes))
inferencer = DetInferencer('config.py', device='cpu', palette='random', show_progress=False)
print('inferencer', sorted(inferencer(picture, no_save_pred=True)['predictions'][0]))
"""


def python(code: str, check: bool = True, cwd=ROOT, **env: str) -> subprocess.CompletedProcess:
    return run_tool('-c', code, check=check, cwd=cwd, PYTHONPATH=str(ROOT), **env)


def test_module_looks_like_any_other():
    assert importlib.util.find_spec('mmcv._ext').origin == 'nextvit_mm.ops'
    assert pkgutil.find_loader('mmcv._ext') is not None
    assert check_ops_exist() and 'torchvision' in collect_env()['MMCV Compiler']
    with pytest.raises(AttributeError):
        getattr(mmcv._ext, '_private')  # noqa: B009  (the statement alone would be one without effect)


def test_missing_operator_names_itself_its_caller_and_the_way_out():
    with pytest.raises(UserError, match=r'operator nms_rotated, which mmcv\.ops\.nms\.nms_rotated calls.*mim install'):
        nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5)
    with pytest.raises(
        UserError, match=r'three_nn_forward, which mmcv\.ops\.three_nn\.ThreeNN.*COMPILED_OPS=1'
    ) as error:
        three_nn(torch.rand(1, 4, 3), torch.rand(1, 4, 3))
    assert '\n' not in str(error.value)


def test_without_torchvision_and_the_mm_libraries():
    """The package imports; mmcv.ops says in one line what is missing, as the error that MMSegmentation catches."""
    code = (
        WITHOUT.format(names={'torchvision', 'mmdet', 'mmseg', 'mmpretrain'})
        + """
try:
    import mmcv.ops
except ModuleNotFoundError as error:
    print('SAID', error)
"""
    )
    said = python(code).stdout
    assert 'SAID this mmcv has no compiled operators' in said and 'install the torchvision of this torch' in said


def test_switched_off_and_on_again():
    """Nothing remains of a failed import: with the operators back, the same process goes on."""
    code = """
import os, nextvit_mm
try:
    import mmdet.models
except ModuleNotFoundError as error:
    print('SAID', error)
del os.environ['NEXTVIT_MM_OPS']
import mmdet.models
from mmcv.ops import nms
"""
    assert "SAID No module named 'mmcv._ext'" in python(code, NEXTVIT_MM_OPS='0').stdout


def test_compiled_operators_are_never_replaced(tmp_path, monkeypatch):
    """Neither those that load nor, in silence, those that do not."""
    monkeypatch.setattr(mmcv, '_ext', mmcv._ext)  # what is put back after the test
    monkeypatch.setattr(mmcv, '__path__', [*mmcv.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    (tmp_path / '_ext.py').write_text('raise ImportError("undefined symbol")')
    importlib.invalidate_caches()
    with pytest.raises(ImportError, match='undefined symbol'):
        in_use()
    (tmp_path / '_ext.py').write_text('mine = 7')
    assert in_use() == {} and sys.modules['mmcv._ext'].mine == 7


def test_own_script(tmp_path):
    """import nextvit_mm, before anything of MMDetection."""
    said = python('import nextvit_mm\n' + DETECT, cwd=tmp_path).stdout
    assert 'detector ' in said and "inferencer ['bboxes', 'labels', 'masks', 'scores']" in said


def test_script_that_knows_nothing_of_this_package(tmp_path):
    """python -m nextvit_mm.ops SCRIPT.py ARGUMENTS."""
    (tmp_path / 'helper.py').write_text('NAME = "beside"')
    (tmp_path / 'script.py').write_text(
        'import sys\nfrom helper import NAME\nfrom mmdet.apis import init_detector\nprint(NAME, sys.argv[1:], __name__)'
    )
    said = run_tool('-m', 'nextvit_mm.ops', tmp_path / 'script.py', '--a', 'b', PYTHONPATH=str(ROOT)).stdout
    assert said == "beside ['--a', 'b'] __main__\n"
    wrong = run_tool('-m', 'nextvit_mm.ops', 'none.py', check=False)
    assert wrong.returncode == 2 and wrong.stderr.splitlines()[-1].startswith('none.py is no file: python -m')


def test_mmdetections_own_tool_by_custom_imports():
    """A config that imports this package is enough for a tool that reads it first, as MMDetection's train.py does."""
    python(f"""
import sys
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
assert 'mmcv.ops' not in sys.modules and 'nextvit_mm' not in sys.modules
Config.fromfile({DEMO!r})
import mmdet.models
""")
