"""Reading JSON, with and without orjson."""

import json
import math

import pytest

from nextvit_mm.data import coco, files
from nextvit_mm.errors import UserError

from . import layouts


@pytest.fixture(params=['orjson', 'json'])
def parser(request, monkeypatch):
    if request.param == 'json':
        monkeypatch.setattr(files, 'orjson', None)
    elif files.orjson is None:
        pytest.skip('orjson is not installed')


def test_json_is_read_alike(parser, tmp_path):
    file = tmp_path / 'x.json'
    file.write_text('{"a": [1, 2.5, NaN], "b": "\\u00e9"}')
    found = files.read_json(file)
    assert found['a'][:2] == [1, 2.5] and math.isnan(found['a'][2]) and found['b'] == 'é'
    file.write_text('{"a": [1, 2.5}')
    with pytest.raises(UserError, match=r"x.json is not JSON: Expecting ',' delimiter: line 1"):
        files.read_json(file)


def test_whole_annotations_are_passed_by_and_others_are_not(tmp_path):
    found = layouts.coco('train')
    plain = json.loads(json.dumps(found))
    assert coco.complete(found, tmp_path) == [] and found == plain
    first = found['annotations'][0]
    for key, value in (
        ('area', None),
        ('iscrowd', None),
        ('bbox', []),
        ('segmentation', [first['segmentation'][0][:4]]),
    ):
        changed = json.loads(json.dumps(plain))
        changed['annotations'][0][key] = value
        assert coco.complete(changed, tmp_path), key
    for key, value in (('bbox', [1, 2, math.nan, 4]), ('segmentation', [[1, 2, 3, 4, 5, math.inf]])):
        changed = json.loads(json.dumps(plain))
        changed['annotations'][0][key] = value
        with pytest.raises(UserError, match='annotation 1'):
            coco.complete(changed, tmp_path)
