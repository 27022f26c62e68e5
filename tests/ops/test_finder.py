"""How mmcv, MMDetection and their tools find the operators.

Each case has a process of its own, in which nothing of this package, of mmcv's operators or of MMDetection was imported
before. All are copies of one that has imported what comes without them.
"""

import importlib
import importlib.util
import json
import pkgutil
import sys

import mmcv._ext
import pytest
import torch
from mmcv.ops import nms_rotated, three_nn
from mmcv.utils import collect_env
from mmcv.utils.ext_loader import check_ops_exist

from nextvit_mm.errors import UserError
from nextvit_mm.ops import in_use
from nextvit_mm.ops.environment import install_everywhere, remove_everywhere

from ..conftest import DEMO, ROOT

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
AS_MODULE = "import runpy; runpy.run_module('nextvit_mm.ops', run_name='__main__', alter_sys=True)"

CASES = {
    'without': WITHOUT.format(names={'torchvision', 'mmdet', 'mmseg', 'mmpretrain'})
    + """
try:
    import mmcv.ops
except ModuleNotFoundError as error:
    print('SAID', error)
""",
    'off and on': """
import os
os.environ['NEXTVIT_MM_OPS'] = '0'
import nextvit_mm
try:
    import mmdet.models
except ModuleNotFoundError as error:
    print('SAID', error)
del os.environ['NEXTVIT_MM_OPS']
import mmdet.models
from mmcv.ops import nms
""",
    'own script': 'import nextvit_mm\n' + DETECT,
    'stranger': """
import sys
from pathlib import Path
Path('beside').mkdir()
Path('beside/helper.py').write_text('NAME = "beside"')
Path('beside/script.py').write_text(
    'import sys\\nfrom helper import NAME\\nfrom mmdet.apis import init_detector\\nprint(NAME, sys.argv[1:], __name__)'
)
sys.argv = ['ops', 'beside/script.py', '--a', 'b']
"""
    + AS_MODULE,
    'environment': """
import site, sys
site.addsitedir('site')
assert 'nextvit_mm' not in sys.modules
from mmdet.apis import init_detector
print('found', sys.modules['mmcv._ext'].__spec__.origin)
""",
    'custom imports': f"""
import sys
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
assert 'mmcv.ops' not in sys.modules and 'nextvit_mm' not in sys.modules
Config.fromfile({DEMO!r})
import mmdet.models
print('whole')
""",
}
FORKS = """
import json, os, sys, traceback
import matplotlib.pyplot, scipy.stats, sklearn.gaussian_process, sklearn.mixture
# As in an environment without what `make` installs.
sys.meta_path[:] = [finder for finder in sys.meta_path if finder.__module__ != '_nextvit_mm_operators']
sys.modules.pop('_nextvit_mm_operators', None)
for name, code in json.load(open('cases.json')).items():
    assert not {'nextvit_mm', 'mmcv.ops', 'mmdet', 'torchvision'} & set(sys.modules)
    process = os.fork()
    if not process:
        with open(f'{name}.txt', 'w') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                exec(compile(code, name, 'exec'), {'__name__': '__main__'})
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
        os._exit(0)
    os.waitpid(process, 0)
"""


@pytest.fixture(scope='module')
def said(tmp_path_factory, run_fresh):
    """What each case printed."""
    folder = tmp_path_factory.mktemp('finder')
    (folder / 'cases.json').write_text(json.dumps(CASES))
    (folder / 'site').mkdir()
    install_everywhere(folder / 'site')
    run_fresh(FORKS, cwd=folder, PYTHONPATH=str(ROOT))
    return {name: (folder / f'{name}.txt').read_text() for name in CASES}


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


@pytest.mark.slow
def test_without_torchvision_and_the_mm_libraries(said):
    """The package imports; mmcv.ops says in one line what is missing, as the error that MMSegmentation catches."""
    assert 'SAID this mmcv has no compiled operators' in said['without']
    assert 'install the torchvision of this torch' in said['without'] and 'Traceback' not in said['without']


@pytest.mark.slow
def test_switched_off_and_on_again(said):
    """Nothing remains of a failed import: with the operators back, the same process goes on."""
    assert "SAID No module named 'mmcv._ext'" in said['off and on'] and 'Traceback' not in said['off and on']


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


@pytest.mark.slow
def test_own_script(said):
    """import nextvit_mm, before anything of MMDetection."""
    assert 'detector ' in said['own script'] and 'Traceback' not in said['own script']
    assert "inferencer ['bboxes', 'labels', 'masks', 'scores']" in said['own script']


@pytest.mark.slow
def test_script_that_knows_nothing_of_this_package(said, run_fresh):
    """python -m nextvit_mm.ops SCRIPT.py ARGUMENTS."""
    assert said['stranger'].splitlines()[-1] == "beside ['--a', 'b'] __main__" and 'Traceback' not in said['stranger']
    wrong = run_fresh(AS_MODULE, 'none.py', check=False, PYTHONPATH=str(ROOT))
    assert wrong.returncode == 2 and wrong.stderr.splitlines()[-1].startswith('none.py is no file: python -m')


@pytest.mark.slow
def test_every_script_of_an_environment(said):
    """python -m nextvit_mm.ops --install; the script imports MMDetection alone."""
    assert said['environment'].splitlines()[-1] == 'found nextvit_mm.ops' and 'Traceback' not in said['environment']


def test_an_environment_is_left_as_it_was(tmp_path):
    (tmp_path / 'theirs.pth').write_text('')
    install_everywhere(tmp_path)
    install_everywhere(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    remove_everywhere(tmp_path)
    remove_everywhere(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['theirs.pth']
    with pytest.raises(UserError, match='nowhere.* cannot be written: No such file'):
        install_everywhere(tmp_path / 'nowhere')


@pytest.mark.slow
def test_mmdetections_own_tool_by_custom_imports(said):
    """A config that imports this package is enough for a tool that reads it first, as MMDetection's train.py does."""
    assert said['custom imports'].splitlines()[-1] == 'whole' and 'Traceback' not in said['custom imports']
