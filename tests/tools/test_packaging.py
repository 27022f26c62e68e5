import importlib
import importlib.metadata
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools

from ..conftest import ROOT


@pytest.mark.slow
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
        assert f'nextvit_mm/published/data/{name}' in names
    assert not [n for n in names if n.startswith('tests/') or '__pycache__' in n]


def test_where_no_link_can_be_made_an_editable_installation_copies(tmp_path, monkeypatch, capsys):
    """As on Windows without the right to make links."""
    monkeypatch.setattr(setuptools, 'setup', lambda **_: None)
    put = runpy.run_path(str(ROOT / 'setup.py'))['put']
    put(ROOT / 'configs', tmp_path / 'linked', tmp_path, link=True)
    assert (tmp_path / 'linked').is_symlink() and (tmp_path / 'linked' / 'detection').is_dir()

    def refuse(*_):
        raise OSError('A required privilege is not held by the client')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    put(ROOT / 'configs', tmp_path / 'configs', tmp_path, link=True)
    put(ROOT / 'model-index.yml', tmp_path / 'model-index.yml', tmp_path, link=True)
    assert not (tmp_path / 'configs').is_symlink()
    assert (tmp_path / 'configs/detection/mask_rcnn_nextvit_s_1x.py').is_file()
    assert (tmp_path / 'model-index.yml').read_bytes() == (ROOT / 'model-index.yml').read_bytes()
    assert capsys.readouterr().out.count('is copied, not linked') == 2


def test_check_install_names_a_transformers_that_is_too_new(monkeypatch):
    """MMPretrain 1.2.0 takes what it imports in vain for None, and derives from it."""
    check = runpy.run_path(str(ROOT / 'tools' / 'check_install.py'))['check_models']
    code = compile("raise TypeError('NoneType takes no arguments')", 'mmpretrain/models/multimodal/blip.py', 'exec')
    monkeypatch.setattr(importlib, 'import_module', lambda name: exec(code))
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: '5.17.0')
    (problem,) = check()
    assert 'transformers 5.17.0 is too new' in problem and 'transformers==4.46.3' in problem
    monkeypatch.setattr(importlib, 'import_module', lambda name: None)
    assert check() == []


@pytest.mark.slow
def test_check_install_passes_here(run_fresh):
    tool = ROOT / 'tools' / 'check_install.py'
    result = run_fresh(f'import runpy; runpy.run_path({str(tool)!r}, run_name="__main__")', check=False)
    assert result.returncode == 0 and 'nextvit_mm' in result.stdout, result.stdout
