"""The classes of a model: one reading for exports, predictions, drawings and published files."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from nextvit_mm.utils.metainfo import Metainfo, read_metainfo

CAT, DOG = [1, 2, 3], [4, 5, 250]


class Animals(BaseDataset):
    METAINFO = dict(classes=('cat', 'dog'), palette=[tuple(CAT), tuple(DOG)])


@pytest.fixture(autouse=True)
def registered():
    with DATASETS.switch_scope_and_registry('mmengine') as registry:
        registry.register_module(module=Animals, force=True)
        yield
        registry.module_dict.pop('Animals')


def config(**dataset) -> Config:
    return Config(dict(default_scope='mmengine', test_dataloader=dict(dataset=dict(type='Animals', **dataset))))


@pytest.mark.parametrize(
    'meta',
    [
        dict(dataset_meta=dict(classes=('cat', 'dog'), palette=[CAT, DOG])),
        dict(dataset_meta=dict(CLASSES=['cat', 'dog'], PALETTE=np.array([CAT, DOG], np.uint8))),
        dict(CLASSES=('cat', 'dog'), PALETTE=[CAT, DOG]),  # mmcv 1.x
    ],
)
def test_a_checkpoint_says_its_classes_in_any_form(meta):
    other = config(metainfo=dict(classes=('cow',)))
    assert read_metainfo(other, dict(meta=meta)) == Metainfo(['cat', 'dog'], [CAT, DOG])


@pytest.mark.parametrize('checkpoint', [None, {}, dict(meta={}), dict(meta=dict(dataset_meta=dict(classes=())))])
def test_else_the_config_does(checkpoint):
    assert read_metainfo(config(), checkpoint) == Metainfo(['cat', 'dog'], [CAT, DOG])
    assert read_metainfo(config(metainfo=dict(classes=('cow',), palette=[DOG])), checkpoint) == Metainfo(['cow'], [DOG])
    joined = Config(dict(test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[dict(type=Animals)]))))
    assert read_metainfo(joined, checkpoint).classes == ['cat', 'dog']


@pytest.mark.parametrize('palette', ['random', [CAT], None])
def test_a_palette_that_does_not_color_every_class_is_none(palette):
    checkpoint = dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'), palette=palette)))
    assert read_metainfo(config(), checkpoint) == Metainfo(['cat', 'dog'])


def test_where_nothing_says_the_classes_there_are_none():
    assert read_metainfo(Config(), dict(state_dict={})) == Metainfo()
