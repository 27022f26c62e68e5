"""One list of options: signature, command line and help are made from it."""

import argparse
import dataclasses

import pytest

from nextvit_mm.deploy.export import export
from nextvit_mm.deploy.options import ExportOptions
from nextvit_mm.deploy.quantize import has_vnni
from nextvit_mm.errors import UserError
from nextvit_mm.utils.command import add_options, take_options


def test_the_command_line_has_every_option_with_its_default():
    parser = argparse.ArgumentParser()
    add_options(parser, ExportOptions)
    assert take_options(ExportOptions, vars(parser.parse_args([]))) == ExportOptions()
    given = parser.parse_args(['--to', 'openvino', '--size', '64', '96', '--no-evaluate', '--int8'])
    options = take_options(ExportOptions, vars(given))
    assert (options.to, options.size, options.evaluate, options.int8) == ('openvino', [64, 96], False, True)
    assert all(field.metadata['help'] for field in dataclasses.fields(ExportOptions))


def test_options_that_do_not_go_together_or_are_not_there():
    with pytest.raises(UserError, match='--int8 is for onnx and openvino, not for coreml'):
        export('config.py', to='coreml', int8=True)
    with pytest.raises(TypeError, match='colour'):
        export('config.py', colour=True)


def test_int8_keeps_to_seven_bits_where_the_cpu_would_overflow(tmp_path, monkeypatch):
    monkeypatch.setattr('platform.machine', lambda: 'x86_64')
    for flags, expected in (
        ('flags : avx2 avx512_vnni', True),
        ('flags : avx2 avx_vnni', True),
        ('flags : avx2', False),
    ):
        (tmp_path / 'cpuinfo').write_text(flags)
        assert has_vnni(tmp_path / 'cpuinfo') == expected
    assert not has_vnni(tmp_path / 'missing')
    monkeypatch.setattr('platform.machine', lambda: 'arm64')
    assert has_vnni(tmp_path / 'missing')
