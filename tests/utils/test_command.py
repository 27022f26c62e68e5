"""nextvit_mm.utils.command: arguments made of a dataclass, and output that any encoding can print."""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.utils.command import add_options, option, run_command, take_options


@dataclass
class Options:
    config: str = option(help='a config')
    checkpoint: str | None = option(None, help='its weights', nargs='?')
    size: Sequence[int] | None = option(None, help='height and width', metavar='N')
    names: tuple[str, ...] = option(('a', 'b'), help='of a, b, c', choices=('a', 'b', 'c'))
    rounds: int = option(10, help='how many')
    min_time: float = option(0.2, help='seconds (default: short)')
    memory: bool = option(True, help='leave out memory')
    quick: bool = option(False, help='be quick')
    cfg_options: dict | None = option(None, help='override settings')
    shape: str = option('8x224', help='a shape', flag='--form')
    internal: int = 3


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser, Options)
    return vars(parser.parse_args(arguments))


def test_what_is_not_given_is_the_dataclass_default():
    assert take_options(Options, parse('c.py')) == Options('c.py')


def test_every_kind_of_field():
    flags = ['--size', '3', '4', '--names', 'b', 'c', '--rounds', '2', '--min-time', '1.5', '--form', '1x32']
    args = parse('c.py', *flags, '--no-memory', '--quick', '--cfg-options', 'a.b=1', 'c=[2,3]')
    wanted = Options('c.py', None, [3, 4], ['b', 'c'], 2, 1.5, False, True, {'a.b': 1, 'c': [2, 3]}, '1x32')
    assert take_options(Options, args) == wanted


def test_an_optional_positional_argument():
    assert take_options(Options, parse('c.py', 'w.pth', '--quick')) == Options('c.py', 'w.pth', quick=True)


def test_a_flag_with_or_without_a_value_under_a_heading():
    @dataclass
    class Resuming:
        resume: str | None = option(None, help='go on', flag='--resume', nargs='?', const='auto', group='going on')
        again: bool = option(False, help='once more', group='going on')

    parser = argparse.ArgumentParser()
    add_options(parser, Resuming)
    for arguments, wanted in ((), None), (('--resume',), 'auto'), (('--resume', 'x.pth'), 'x.pth'):
        assert take_options(Resuming, vars(parser.parse_args(arguments))) == Resuming(wanted)
    assert parser.format_help().count('going on:') == 1


def test_a_base_gives_what_is_not_given_and_other_arguments_stay():
    base = Options('base.py', rounds=5, quick=True)
    args = dict(parse('c.py', '--rounds', '7'), png='x.png')
    assert take_options(Options, args, base) == replace(base, config='c.py', rounds=7)
    assert args == dict(png='x.png')


@pytest.mark.parametrize('wrong', ('c.py --names d', 'c.py --rounds x', 'c.py --internal 1', ''))
def test_argparse_refuses_what_a_field_does_not_take(wrong):
    with pytest.raises(SystemExit):
        parse(*wrong.split())


def test_help_ends_in_the_default():
    parser = argparse.ArgumentParser(prog='tool')
    add_options(parser, Options)
    text = ' '.join(parser.format_help().split())
    assert 'of a, b, c (default: a b)' in text and 'how many (default: 10)' in text
    assert 'seconds (default: short)' in text and text.count('(default') == 4


@pytest.mark.parametrize('encoding', ('cp1252', 'ascii', 'utf-8'))
def test_output_in_an_encoding_without_the_character(encoding, monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ('stdout', 'stderr')}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, 'argv', ['tool'])

    def command():
        print('IoU ≥ 0.5, π, \udcff')  # the last: a byte of a file's name that is no text
        raise UserError('size ≥ 32')

    with pytest.raises(SystemExit):
        run_command(command, argparse.ArgumentParser(prog='tool'))
    for stream in streams.values():
        stream.flush()
    printed, error = (stream.buffer.getvalue().decode(encoding) for stream in streams.values())
    sign, pi = ('≥', 'π') if encoding == 'utf-8' else '??'
    assert printed.splitlines() == [f'IoU {sign} 0.5, {pi}, ?']
    assert error.splitlines() == [f'tool: size {sign} 32']


@pytest.mark.parametrize('flags', [[], ['--verbose']])
def test_a_cause_of_the_users_own_is_printed_where_all_is_wanted(flags, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['tool', *flags])

    def command(verbose):
        try:
            raise KeyError('mine')
        except KeyError as error:
            raise UserError('it failed') from error

    parser = argparse.ArgumentParser(prog='tool')
    parser.add_argument('--verbose', action='store_true')
    with pytest.raises(SystemExit):
        run_command(command, parser)
    *trace, last = capsys.readouterr().err.splitlines()
    assert last == 'tool: it failed' and bool(trace) == bool(flags)
    assert not flags or trace[-1] == "KeyError: 'mine'"


def test_help_in_an_encoding_without_the_character(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding='cp1252')
    monkeypatch.setattr(sys, 'stdout', stream)
    monkeypatch.setattr(sys, 'argv', ['tool', '--help'])
    with pytest.raises(SystemExit):
        run_command(print, argparse.ArgumentParser(description='heights ≥ 32'))
    stream.flush()
    assert b'heights ? 32' in stream.buffer.getvalue()


@pytest.mark.parametrize(
    'error, status, told',
    [
        (KeyboardInterrupt(), 130, 'tool: interrupted'),
        (RuntimeError('CUDA out of memory. Tried'), 2, 'tool: out of memory: CUDA out of memory. Tried. Take fewer'),
    ],
)
def test_ctrl_c_and_want_of_memory_are_one_line(error, status, told, monkeypatch, capsys):
    def command():
        raise error

    monkeypatch.setattr(sys, 'argv', ['tool'])
    with pytest.raises(SystemExit) as end:
        run_command(command, argparse.ArgumentParser('tool'))
    assert end.value.code == status
    assert capsys.readouterr().err.strip().startswith(told)
