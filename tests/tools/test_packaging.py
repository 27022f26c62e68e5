import subprocess
import sys
import zipfile

from ..conftest import ROOT


def test_a_wheel_ships_configs_tools_and_model_index(tmp_path):
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '-w', tmp_path, ROOT],
        check=True,
    )
    names = zipfile.ZipFile(next(tmp_path.glob('*.whl'))).namelist()
    for name in (
        'configs/detection/mask_rcnn_nextvit_s_1x.py',
        'configs/_base_/models/mask_rcnn_nextvit.py',
        'tools/train.py',
        'tools/dist_train.sh',
        'model-index.yml',
    ):
        assert f'nextvit_mm/.mim/{name}' in names
    assert 'nextvit_mm/models/nextvit.py' in names
    for name in ('table6.csv', 'errata.csv', 'runs/mask_rcnn_1x_nextvit_small.json'):
        assert f'nextvit_mm/reproduction/data/{name}' in names
    assert not [n for n in names if n.startswith('tests/') or '__pycache__' in n]


def test_check_install_passes_here():
    result = subprocess.run([sys.executable, ROOT / 'tools' / 'check_install.py'], capture_output=True, text=True)
    assert result.returncode == 0 and 'nextvit_mm' in result.stdout, result.stdout
