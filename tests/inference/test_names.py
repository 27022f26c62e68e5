"""MM's own inferencers and init_detector, in a fresh process, with our configs by path and by name."""

import pytest

from ..conftest import ROOT

CODE = """
import sys, warnings
warnings.simplefilter('ignore')
task, config, checkpoint, picture = sys.argv[1:]
if task == 'detection':
    import nextvit_mm
    from mmdet.apis import DetInferencer
    found = DetInferencer(config, checkpoint, device='cpu')(picture)['predictions'][0]
    print('FOUND', len(found['scores']))
elif task == 'segmentation':
    import nextvit_mm
    from mmseg.apis import MMSegInferencer
    print('FOUND', MMSegInferencer(config, checkpoint, device='cpu')(picture)['predictions'].shape)
else:
    import nextvit_mm
    from mmpretrain import ImageClassificationInferencer
    print('FOUND', ImageClassificationInferencer(config, checkpoint, device='cpu')(picture)[0]['pred_class'])
"""
# By name the whole recipe is built, whose weights are not here: what is shown is that the name leads to it.
BY_NAME = """
import nextvit_mm
from mmengine.infer import BaseInferencer
from mmpretrain.apis.model import ModelHub
from mmpretrain import list_models
from mmdet.apis import DetInferencer
from mmseg.apis import MMSegInferencer
for inferencer, scope, name in ((DetInferencer, 'mmdet', 'mask_rcnn_nextvit_s_1x'),
                                (MMSegInferencer, 'mmseg', 'upernet_nextvit_b_160k')):
    self = inferencer.__new__(inferencer)
    self.scope = scope
    cfg, weights = self._load_model_from_metafile(name)
    print('NAME', name, cfg.model.backbone.arch, weights)
name = 'nextvit_l_384'
print('NAME', name, ModelHub.get(name).config.model.backbone.arch, name in list_models())
print('OTHERS', 'resnet50_8xb32_in1k' in list_models(), len(self.list_models('mmseg', 'fcn_r50')) > 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize('task', ['detection', 'segmentation', 'classification'])
def test_an_inferencer_of_mm_with_a_config_by_path(task, made, digits, run_fresh):
    model = made(task)
    picture = next((digits / 'coco' / 'val2017').glob('*.jpg'))
    result = run_fresh(CODE, task, model.config, model.checkpoint, picture)
    assert 'FOUND' in result.stdout


@pytest.mark.slow
def test_an_inferencer_of_mm_finds_recipes_by_name(run_fresh):
    for library in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(library)
    lines = run_fresh(BY_NAME).stdout.splitlines()
    assert 'OTHERS True True' in lines
    named = [line.split()[1:] for line in lines if line.startswith('NAME')]
    assert [row[1] for row in named] == ['small', 'base', 'large'] and named[2][2] == 'True'
    assert all(row[2].startswith('nextvit_mm-page:https://drive.google.com') for row in named[:2])


OWN = """
_base_ = '{root}/configs/demo/mask_rcnn_nextvit_s_digits.py'
custom_imports = dict(imports=['my_own_data'])
train_dataloader = dict(dataset=dict(type='MyOwnData'))
"""
MODULE = """
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
@DATASETS.register_module()
class MyOwnData(CocoDataset):
    pass
"""


@pytest.fixture
def own_config(tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'x.py').write_text(OWN.format(root=ROOT))
    (tmp_path / 'my_own_data.py').write_text(MODULE)
    return tmp_path / 'x.py'


def test_custom_imports_beside_the_config(own_config, monkeypatch):
    """The tools find a module of one's own in the config's folder, wherever they are called."""
    import sys

    from nextvit_mm.errors import UserError
    from nextvit_mm.training.config import load_config

    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.delitem(sys.modules, 'my_own_data', raising=False)
    assert load_config(str(own_config)).train_dataloader.dataset.type == 'MyOwnData'
    assert 'my_own_data' in sys.modules
    own_config.write_text(OWN.format(root=ROOT).replace('my_own_data', 'nowhere_at_all'))
    with pytest.raises(UserError, match='nowhere_at_all'):
        load_config(str(own_config))


@pytest.mark.slow
def test_custom_imports_of_ones_own_leave_the_backbone_found(own_config, run_fresh):
    """Not named any more in custom_imports, the package is imported by the backbone's own name."""
    own_config.write_text(OWN.format(root=ROOT).replace('my_own_data', 'colorsys'))
    code = (
        'import sys, warnings; warnings.simplefilter("ignore")\n'
        'from mmengine.config import Config\nfrom mmengine.registry import MODELS\n'
        'backbone = Config.fromfile("x.py").model.backbone\nassert "nextvit_mm" not in sys.modules\n'
        'print("BUILT", type(MODELS.build(backbone)).__name__)'
    )
    result = run_fresh(code, cwd=own_config.parent, PYTHONPATH=str(ROOT))
    assert 'BUILT NextViT' in result.stdout
