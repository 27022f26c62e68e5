"""The page about the layout says what the imports and docstrings say."""

import runpy

from .conftest import ROOT

rooms = runpy.run_path(str(ROOT / 'docs' / 'rooms.py'))


def test_the_page_is_what_the_command_writes():
    written = (ROOT / 'docs' / 'layout.md').read_text(encoding='utf-8').partition(rooms['MARK'])[2]
    assert written.strip() == rooms['measured']().strip(), 'run: python docs/rooms.py'


def test_every_file_and_room_says_what_it_is():
    for file in (ROOT / 'nextvit_mm').glob('*/*.py'):
        assert len(rooms['first_line'](file)) > 10, file


def test_an_import_inside_a_function_is_an_arrow(tmp_path):
    for name, text in dict(a='def f():\n    from ..b import x\n', b='from ..errors import y\n').items():
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text('')
        (tmp_path / name / 'x.py').write_text(text)
    arrows = rooms['measure_arrows'](tmp_path)
    assert arrows == dict(a={'b'}, b=set()) and rooms['draw'](arrows) == 'flowchart TD\n    a --> b'


def test_every_change_of_the_mutants_can_still_be_made():
    from benchmarks.mutants import MUTANTS

    for mutant in MUTANTS:
        assert (ROOT / 'nextvit_mm' / mutant.file).read_text(encoding='utf-8').count(mutant.line) == 1, mutant
        assert all((ROOT / 'tests' / part).exists() for part in mutant.tests.split()), mutant
