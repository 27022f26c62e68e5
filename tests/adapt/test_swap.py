"""Upstream configs of every kind with Next-ViT: widths, pictures, weights; on shapes alone."""

import copy
import math

import pytest
from mmengine.config import Config

from nextvit_mm.adapt import read_config, use_nextvit
from nextvit_mm.adapt.look import Map
from nextvit_mm.adapt.network import names_weights, network_of
from nextvit_mm.adapt.pictures import PIXELS, set_pixels
from nextvit_mm.adapt.read import differences
from nextvit_mm.adapt.swap import choose_stages
from nextvit_mm.adapt.widths import Pair, change_widths
from nextvit_mm.errors import UserError
from nextvit_mm.training.config import use_tta
from nextvit_mm.training.preflight import check_data
from nextvit_mm.weights import get_model
from tests.conftest import TINY

FOUR = [96, 256, 512, 1024]
# Config, and what some of its keys become.
SWAPS = [
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', {'neck.in_channels': FOUR}),
    ('mmdet::faster_rcnn/faster-rcnn_r50-caffe_fpn_1x_coco.py', {'neck.in_channels': FOUR}),
    (
        'mmdet::ssd/ssd300_coco.py',
        {'neck.in_channels': (256, 512), 'bbox_head.in_channels': (256, 512, 512, 256, 256, 256)},
    ),
    ('mmdet::detr/detr_r50_8xb2-150e_coco.py', {'neck.in_channels': [1024], 'backbone.out_indices': (3,)}),
    ('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py', {'neck.in_channels': [1024, 512, 256]}),
    (
        'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
        {'neck.in_channels': [512], 'neck.out_channels': 1024, 'rpn_head.in_channels': 1024},
    ),
    (
        'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
        {'decode_head.in_channels': 1024, 'decode_head.c1_in_channels': 96, 'auxiliary_head.in_channels': 512},
    ),
    # A cascade of heads, whose maps had one stride; regions of the maps themselves; a classifier in the old backbone;
    # a vector of eight places of a map; BN whose eps was the old weights'.
    (
        'mmseg::ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        {'decode_head.0.in_index': 3, 'decode_head.0.in_channels': 1024, 'decode_head.1.in_channels': 1024},
    ),
    (
        'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py',
        {'rpn_head.in_channels': 512, 'roi_head.bbox_roi_extractor.out_channels': 512},
    ),
    (
        'mmpretrain::vgg/vgg11_8xb32_in1k.py',
        {'head.type': 'LinearClsHead', 'head.in_channels': 1024, 'head.num_classes': 1000},
    ),
    ('mmdet::reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20.py', {'head.in_channels': 1024}),
    (
        'mmdet::nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py',
        {'backbone.norm_cfg': dict(type='BN', requires_grad=False), 'backbone.norm_eval': True},
    ),
    ('mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py', {'decode_head.in_channels': FOUR}),
    ('mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', {'decode_head.in_channels': 1024}),
    ('mmseg::ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py', {'decode_head.0.in_channels': FOUR}),
    ('mmseg::point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py', {'neck.in_channels': FOUR}),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', {'head.in_channels': 1024, 'backbone.out_norm': 'last'}),
]


def _get(node, key: str):
    for part in key.split('.'):
        node = node[int(part)] if part.isdigit() else node[part]
    return node


@pytest.mark.slow
@pytest.mark.parametrize('name, widths', SWAPS, ids=[name.split('/')[-1][:-3] for name, _ in SWAPS])
def test_a_swap_changes_the_widths_and_little_else(name, widths):
    pytest.importorskip(name.split('::')[0])
    cfg = read_config(name)
    before = copy.deepcopy(cfg)
    use_nextvit(cfg, 'small')
    for key, value in widths.items():
        found = _get(cfg.model, key)
        assert (list(found) if isinstance(value, (list, tuple)) else found) == (
            list(value) if isinstance(value, (list, tuple)) else value
        ), key
    if names_weights(before.model.backbone.get('init_cfg')) or before.model.get('pretrained'):
        one = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
        assert list(one.mean) == PIXELS['mean'] and one.get('bgr_to_rgb', one.get('to_rgb'))
        assert cfg.model.backbone.init_cfg.checkpoint == 'nextvit-small_in1k'
    changed = {line.split()[1].split('.')[0] for line in differences(before, cfg)}
    assert changed <= {'model', 'custom_imports', 'load_from', 'data_preprocessor', 'norm_cfg'}


@pytest.mark.slow
def test_maps_that_nextvit_lacks_are_refused_by_name_and_the_config_is_left_alone():
    pytest.importorskip('mmdet')
    cfg = read_config('mmdet::cornernet/cornernet_hourglass104_10xb5-crop511-210e-mstest_coco.py')
    before = copy.deepcopy(cfg)
    with pytest.raises(UserError, match="model.backbone, 'HourglassNet', gives maps of stride 4 with 256 channels"):
        use_nextvit(cfg)
    assert differences(before, cfg) == []


@pytest.mark.slow
def test_maps_of_other_strides_are_told(monkeypatch):
    said = []
    monkeypatch.setattr('nextvit_mm.adapt.swap.print_log', lambda text, *_: said.append(text))
    use_nextvit(read_config('mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'), 'small')
    assert any('maps of strides [4, 8, 8, 8] become maps of [4, 8, 16, 32]' in line for line in said)


@pytest.mark.parametrize('strides, stages', [((4, 8, 8, 8), (0, 1, 2, 3)), ((8, 16), (1, 2)), ((8, 8, 8, 16), None)])
def test_four_maps_that_begin_with_ours_are_our_four(strides, stages):
    """Of a network that does not tell its dilations."""
    maps = [Map(stride, 64) for stride in strides]
    if stages:
        assert choose_stages(maps, dict(type='Net'), 'model') == stages
    else:
        with pytest.raises(UserError, match='gives maps of stride 8 with 64 channels'):
            choose_stages(maps, dict(type='Net'), 'model')


def test_vectors_of_several_kinds_are_refused():
    pytest.importorskip('mmpretrain')
    cfg = read_config('mmpretrain::deit/deit-tiny-distilled_4xb256_in1k.py')
    with pytest.raises(UserError, match='gives 2 vectors to a head of its own'):
        use_nextvit(cfg)


@pytest.mark.slow
def test_the_published_recipe_keeps_the_schedule():
    pytest.importorskip('mmdet')
    cfg = read_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    before = copy.deepcopy(cfg)
    use_nextvit(cfg, 'base', 'published')
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, weight_decay=0.05)
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.norm.decay_mult == 0
    backbone = cfg.model.backbone
    assert (backbone.arch, backbone.drop_path_rate, backbone.frozen_stages, backbone.norm_eval) == (
        'base',
        0.2,
        1,
        True,
    )
    assert cfg.param_scheduler == before.param_scheduler and cfg.train_cfg == before.train_cfg


@pytest.mark.parametrize(
    'wrapper, options, words',
    [
        (
            dict(optimizer=dict(type='SGD', lr=1.0)),
            {'optim_wrapper.optimizer.momentum': 0.5},
            'AdamW takes no such value',
        ),
        (dict(head=dict(optimizer=dict(type='SGD', lr=1.0))), {}, 'optim_wrapper of .* has several, of head: leave'),
    ],
)
def test_an_optimizer_that_does_not_go_with_the_published_recipe_is_one_line(wrapper, options, words, tmp_path):
    pytest.importorskip('mmpretrain')
    config = tmp_path / 'c.py'
    config.write_text(
        "default_scope = 'mmpretrain'\n"
        f"model = dict(type='ImageClassifier', backbone=dict(type='NextViT', arch={TINY!r}, out_indices=(3,)))\n"
        f'optim_wrapper = {wrapper!r}\n'
    )
    with pytest.raises(UserError, match=words):
        use_nextvit(read_config(config, options), str(config), 'published', options)


@pytest.mark.slow
def test_what_cfg_options_say_of_the_backbone_is_meant_for_the_new_one():
    pytest.importorskip('mmdet')
    options = {
        'model.backbone.init_cfg.checkpoint': 'mine.pth',
        'model.backbone.drop_path_rate': 0.3,  # no argument of a ResNet
        'model.backbone.depth': 101,  # one of a ResNet alone
        'model.data_preprocessor.mean': [1.0, 2.0, 3.0],
        'optim_wrapper.optimizer.lr': 0.003,
        'load_from': 'whole.pth',
    }
    cfg = read_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', options)
    use_nextvit(cfg, 'small', 'published', options)
    backbone = cfg.model.backbone
    assert (backbone.init_cfg.checkpoint, backbone.drop_path_rate) == ('mine.pth', 0.3) and 'depth' not in backbone
    assert (backbone.arch, cfg.load_from, cfg.optim_wrapper.optimizer.lr) == ('small', 'whole.pth', 0.003)
    assert cfg.model.data_preprocessor.mean == [1.0, 2.0, 3.0]

    cfg.model.backbone.update(arch='base', drop_path_rate=0.4)
    use_nextvit(cfg, 'large', None, {'model.backbone.arch': 'base', 'model.backbone.drop_path_rate': 0.4})
    assert (cfg.model.backbone.arch, cfg.model.backbone.drop_path_rate) == ('large', 0.4)


@pytest.mark.slow
def test_a_network_without_published_weights_learns_as_a_whole(tmp_path):
    pytest.importorskip('mmdet')
    own = tmp_path / 'own.py'
    own.write_text(f"model = dict(backbone=dict(type='NextViT', arch={TINY!r}))\n")
    name, weights = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', {'model.backbone.init_cfg.checkpoint': 'mine.pth'}
    backbone = use_nextvit(read_config(name), str(own)).model.backbone
    assert 'init_cfg' not in backbone and 'frozen_stages' not in backbone and 'norm_eval' not in backbone
    backbone = use_nextvit(read_config(name, weights), str(own), options=weights).model.backbone
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint='mine.pth')
    assert backbone.frozen_stages == 1 and backbone.norm_eval


def test_pipelines_that_normalize_do_so_once():
    step = dict(type='Normalize', mean=[103.0, 116.0, 123.0], std=[1.0, 1.0, 1.0], to_rgb=False)
    cfg = Config(dict(model=dict(data_preprocessor=dict(type='DetDataPreprocessor')), pipeline=[dict(type='A'), step]))
    set_pixels(cfg, Config(dict(backbone=dict())), True, [])
    assert cfg.pipeline[1] == dict(type='Normalize', **PIXELS, to_rgb=True)
    assert 'mean' not in cfg.model.data_preprocessor


def test_numbers_are_matched_by_the_map_that_a_part_takes():
    maps = [Pair(256, 96), Pair(512, 256), Pair(1024, 512), Pair(2048, 1024)]
    head = dict(in_channels=1024, in_index=2, channels=256, inner=[dict(in_channels=512), dict(in_channels=2048)])
    changes = {change.key: change.new for change in change_widths([head], 'head', maps)}
    # 512 is the width of a map that this inner part does not take; 256 is a width of its own.
    assert changes == {'head.0.in_channels': 512, 'head.0.inner.1.in_channels': 1024}
    neck = dict(in_channels=[2048, 1024, 512], out_channels=256)
    list(change_widths(neck, 'neck', maps))
    assert neck == dict(in_channels=[1024, 512, 256], out_channels=256)


@pytest.mark.parametrize('widen', [0.25, 0.375, 0.5, 0.75, 1.25])
def test_numbers_before_mmyolos_factor(widen):
    """Its layers have ⌈n · widen_factor / 8⌉ · 8 channels."""

    def widened(number):
        return math.ceil(number * widen / 8) * 8

    given = [256, 512, 1024]
    maps = [Pair(widened(old), new) for old, new in zip(given, (256, 512, 1024))]
    neck = dict(in_channels=list(given), out_channels=list(given), widen_factor=widen)
    list(change_widths(neck, 'neck', maps))
    assert [widened(number) for number in neck['in_channels']] == [256, 512, 1024]
    assert neck['out_channels'] == given and neck['widen_factor'] == widen


def test_a_config_with_an_error_of_its_own_is_one_line(tmp_path):
    config = tmp_path / 'wrong.py'
    config.write_text('a = 1\nb = a / 0\n')
    with pytest.raises(UserError, match=r'wrong.py cannot be read as a config: .*ZeroDivisionError: division by zero'):
        read_config(config)
    with pytest.raises(UserError, match='config not found: mmnothing::a/b.py'):
        read_config('mmnothing::a/b.py')
    (tmp_path / 'my_thing_beside.py').write_text('')
    config.write_text("custom_imports = dict(imports=['my_thing_beside'])\n")
    assert read_config(config).custom_imports.imports == ['my_thing_beside']


def test_the_arch_that_a_config_leaves_to_its_default_is_the_default(tmp_path):
    config, other = tmp_path / 'a.py', tmp_path / 'b.py'
    text = "model = dict(type='ImageClassifier', backbone=dict(type='NextViT', {}out_indices=(3,)))\n"
    config.write_text(text.format("arch='large', "))
    other.write_text(text.format(''))
    assert use_nextvit(read_config(config), str(other)).model.backbone.arch == 'small'


def test_data_that_fetch_themselves_are_not_missed():
    dataset = dict(type='CIFAR10', data_root='no/such/folder', data_prefix='a/b')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    check_data(cfg, ('train',))
    cfg.train_dataloader.dataset.download = False
    with pytest.raises(UserError, match='no/such/folder'):
        check_data(cfg, ('train',))


@pytest.mark.parametrize(
    'model, evaluator, words',
    [
        (dict(roi_head=dict(mask_head=dict(a=1))), {}, 'model.roi_head.mask_head'),
        (dict(mask_head=dict(a=1)), {}, 'model.mask_head'),  # SOLO, CondInst, YOLACT
        (dict(panoptic_head=dict(a=1)), {}, 'model.panoptic_head'),  # Mask2Former
        (dict(detector=dict(roi_head=dict(mask_head=dict(a=1)))), {}, 'model.detector.roi_head.mask_head'),
        (dict(bbox_head=dict()), dict(type='CocoMetric', metric=['bbox', 'segm']), 'a test_evaluator of masks'),
    ],
)
def test_masks_cannot_be_merged(model, evaluator, words):
    cfg = Config(dict(model=model, test_evaluator=evaluator, tta_model=dict(type='A'), tta_pipeline=[1]))
    with pytest.raises(UserError, match=f'cannot merge masks, and None has {words}; boxes work'):
        use_tta(cfg)


def test_boxes_and_segmentors_are_tested_with_augmentation():
    for scope, model in (('mmdet', dict(bbox_head=dict(a=1))), ('mmseg', dict(decode_head=dict(a=1)))):
        loader = dict(dataset=dict(type='X', pipeline=[]))
        extra = dict(test_dataloader=loader, test_evaluator=dict(metric='bbox'), tta_pipeline=[1])
        cfg = Config(dict(model=model, default_scope=scope, tta_model=dict(type='A'), **extra))
        use_tta(cfg)
        assert cfg.model.type == 'A' and cfg.test_dataloader.dataset.pipeline == [1]


def test_a_model_by_name_takes_an_initialisation():
    init_cfg = dict(type='Constant', layer='Conv2d', val=0.0)
    assert get_model('small', init_cfg=init_cfg, out_indices=(0,)).stem[0].conv.weight.abs().max() == 0
    with pytest.raises(UserError, match='both say'):
        get_model('small', pretrained='x.pth', init_cfg=init_cfg)


@pytest.mark.parametrize(
    'text, words', [("'x'", 'no model.backbone$'), ("dict(backbone='NextViT')", "but 'NextViT' there")]
)
def test_a_model_that_is_a_word_holds_no_network(text, words, tmp_path):
    config = tmp_path / 'c.py'
    config.write_text(f'model = {text}\n')
    with pytest.raises(UserError, match=words):
        network_of(str(config))


def test_how_random_weights_are_drawn_names_no_weights():
    assert not names_weights([dict(type='Kaiming', layer='Conv2d')]) and not names_weights(None)
    assert names_weights(dict(type='Pretrained', checkpoint='torchvision://resnet50')) and names_weights('a.pth')
    assert names_weights(True) and not names_weights(False)  # of TIMMBackbone
