"""The operators against mmcv's compiled ones: called beside them, or else against figures recorded from them."""

import platform
from types import SimpleNamespace

import numpy as np
import pytest
from mmcv.ops import RoIAlign

from nextvit_mm.ops import in_use, table

from .cases import CASES, operators, random, random_rois
from .record import RECORDED

OURS = SimpleNamespace(**{name: operator.function for name, operator in table.OPERATORS.items()})
EXACT = (
    'nms',
    'nms_match',
    'batched_nms',
    'bbox_overlaps',
    'psa_mask',
    'soft_nms naive',
    'soft_nms linear',
    'roi_align avg',
)
HALF = 0.01  # mmcv computes half precision in half precision, here it is float32


@pytest.fixture(scope='module')
def recorded():
    with np.load(RECORDED) as file:
        return dict(file)


def compare(name: str, ours: dict, compiled: dict) -> None:
    assert ours.keys() == compiled.keys()
    same_machine_code = platform.machine() in ('x86_64', 'AMD64')  # elsewhere a compiler may fuse multiply and add
    for key, theirs in compiled.items():
        mine = ours[key]
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype, key
        if mine.dtype.kind == 'i' or same_machine_code and name.startswith(EXACT) and 'half' not in name:
            np.testing.assert_array_equal(mine, theirs, key)
        elif theirs.size:
            limit = HALF if theirs.dtype == np.float16 else 1e-6 if theirs.dtype == np.float32 else 1e-14
            largest = np.abs(theirs).max()
            assert np.abs(mine.astype(float) - theirs).max() <= limit * largest, key


@pytest.mark.parametrize('name', CASES)
def test_equals_what_was_recorded(name, recorded):
    with operators(OURS):
        ours = CASES[name]()
    compare(name, ours, {key.split('/')[1]: value for key, value in recorded.items() if key.split('/')[0] == name})


@pytest.mark.skipif(bool(in_use()), reason='mmcv has no compiled operators here')
@pytest.mark.parametrize('name', CASES)
def test_equals_compiled(name):
    import mmcv._ext

    with operators(mmcv._ext):
        compiled = CASES[name]()
    with operators(OURS):
        compare(name, CASES[name](), compiled)


def test_half_precision_is_closer_to_the_truth_than_compiled(recorded):
    """The recorded output of half precision is further from that of float64 inputs than ours is."""
    name = 'roi_align avg, half precision'
    with operators(OURS):
        ours = CASES[name]()['output'].astype(float)
        truth = RoIAlign(2, 0.25, 2)(
            random(20, 2, 3, 12, 17, low=-1).half().double(), random_rois(21, 9, 2).half().double()
        ).numpy()
    assert np.abs(ours - truth).max() < np.abs(recorded[f'{name}/output'].astype(float) - truth).max()
