"""nextvit_mm.utils: files that are whole or not there, tables, sizes, and BN statistics."""

import io
import json

import pytest
import torch
from torch import nn

from nextvit_mm.errors import UserError
from nextvit_mm.utils.files import write_json, write_text
from nextvit_mm.utils.norms import new_statistics
from nextvit_mm.utils.sizes import parse_size
from nextvit_mm.utils.tables import format_table, print_table, write_csv

HEADER, LINES = ['method', 'AP: paper', 'ours'], [['a [0] ≥', '1.0', ''], ['b', '12.5', '13']]


def test_json_has_null_for_infinity_and_its_folder(tmp_path):
    path = tmp_path / 'a' / 'b.json'
    write_json(path, dict(x=float('inf'), y=[1, (2.5, '≥')]))
    assert json.loads(path.read_text(encoding='utf-8')) == dict(x=None, y=[1, [2.5, '≥']])
    assert [file.name for file in path.parent.iterdir()] == ['b.json']


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / 'run.json'
    write_text(path, 'old')
    monkeypatch.setattr('pathlib.Path.replace', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left')))
    with pytest.raises(UserError, match=r'run\.json cannot be written: No space left'):
        write_text(path, 'new')
    assert path.read_text() == 'old' and len(list(tmp_path.iterdir())) == 1


def test_a_table_in_text_and_markdown_keeps_brackets_and_aligns():
    text = format_table(HEADER, LINES, caption='Table 1').splitlines()
    assert 'Table 1' in text[0] and text[1].split() == ['AP:'] and text[2].split() == ['method', 'paper', 'ours']
    assert text[4].split() == ['a', '[0]', '≥', '1.0'] and text[4].index('1.0') == text[5].index('12.5') + 1
    markdown = format_table(HEADER, LINES, 'markdown', caption='Table 1').splitlines()
    assert len(markdown) == 4 and {line.count('|') for line in markdown} == {4} and '[0]' in markdown[2]
    assert [rule.endswith(':') for rule in markdown[1].strip('|').split('|')] == [False, True, True]


def test_csv_names_every_column_of_a_group():
    file = io.StringIO()
    print_table(HEADER, LINES, 'csv', file, 'unused', ['unused'])
    assert file.getvalue() == 'method,AP: paper,AP: ours\na [0] ≥,1.0,\nb,12.5,13\n'


def test_notes_stand_below_as_they_are():
    file = io.StringIO()
    print_table(HEADER, LINES, 'markdown', file, 'unused', ['see [1]'])
    assert file.getvalue().endswith('|\n\n- see [1]\n')


@pytest.mark.parametrize(
    ('given', 'wanted'), [(None, None), (64, [64, 64]), ([64], [64, 64]), ((48, 64), [48, 64])], ids=str
)
def test_sizes(given, wanted):
    assert parse_size(given) == wanted


@pytest.mark.parametrize('given', [[], [1, 2, 3], [0], 0, [1.5], ['64']], ids=str)
def test_what_is_no_size(given):
    with pytest.raises(UserError, match='--size is one or two whole numbers of pixels, not'):
        parse_size(given, '--size')


def test_norms_take_the_mean_over_all_batches_and_all_else_stays_in_eval_mode():
    norm, dropout = nn.BatchNorm2d(2), nn.Dropout(0.5)
    model = nn.Sequential(norm, dropout).eval()
    norm.running_mean.fill_(99)
    batches = [torch.rand(3, 2, 4, 4) + i for i in range(3)]
    with torch.no_grad(), new_statistics(model):
        for batch in batches:
            assert torch.equal(model(batch) == 0, torch.zeros(3, 2, 4, 4, dtype=torch.bool))
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    assert norm.momentum == 0.1 and not norm.training and not dropout.training


def test_brackets_in_a_table_are_no_markup():
    assert '[bold]x[/bold]' in format_table(['a'], [['[bold]x[/bold]']], 'text')


def test_the_columns_of_a_group_have_its_name_and_those_of_the_paper_begin_none():
    file = io.StringIO()
    write_csv(['row', 'AP: here', 'paper: ms', 'ours'], [['a', '1', '2', '3']], file)
    assert file.getvalue() == 'row,AP: here,paper: ms,AP: ours\na,1,2,3\n'
