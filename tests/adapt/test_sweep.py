"""A sample of the sweep of upstream's models: a training step and a test step with a tiny Next-ViT."""

import pytest

from ..conftest import TINY

# Quick ones, of as many kinds of models, necks and heads as a minute holds; `python -m benchmarks.sweep` runs all.
SAMPLE = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    'mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'mmdet::solo/decoupled-solo-light_r50_fpn_3x_coco.py',
    'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py',
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
    'mmseg::ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
    'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
    'mmseg::point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py',
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    'mmpretrain::simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k.py',
    'mmpretrain::mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py',
]


@pytest.fixture(scope='module')
def network(tmp_path_factory) -> str:
    """A config with a tiny Next-ViT, for ``--backbone``."""
    path = tmp_path_factory.mktemp('network') / 'tiny.py'
    path.write_text(f"model = dict(backbone=dict(type='NextViT', arch={TINY!r}))\n")
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize('name', SAMPLE, ids=[name.split('/')[-1][:-3] for name in SAMPLE])
def test_a_model_trains_and_tests_a_step(name, network):
    for package in ('mmdet', 'mmseg', 'mmpretrain'):  # the sweep makes data for all of them
        pytest.importorskip(package)
    from benchmarks.sweep.step import attempt

    row = attempt(name, network, sides=(64,))
    assert row['outcome'] == 'passes', row
    assert row['loss'] > 0 or name.startswith('mmpretrain::simsiam')  # minus a cosine
