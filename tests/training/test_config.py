"""What the command line changes in a config, and what is checked before anything is built."""

import pytest
from mmengine.config import Config

from nextvit_mm.adapt import use_nextvit
from nextvit_mm.errors import UserError
from nextvit_mm.training import config as cfgs, launch
from nextvit_mm.training.preflight import check_checkpoint, check_data

from ..conftest import DETECTOR, ROOT


def cfg_of(**kwargs):
    return Config(kwargs, cfg_text=' ', filename='some.py')


def test_data_root_moves_datasets_and_evaluators():
    cfg = cfgs.load_config(DETECTOR)
    cfgs.set_data_root(cfg, '/elsewhere')
    assert {cfg[loader].dataset.data_root for loader in cfgs.LOADERS} == {'/elsewhere'}
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/instances_train2017.json'
    assert {cfg[e].ann_file for e in cfgs.EVALUATORS} == {'/elsewhere/annotations/instances_val2017.json'}


def test_data_root_reaches_wrapped_datasets_and_lists_of_evaluators():
    leaf = dict(type='A', data_root='data/a')
    cfg = cfg_of(
        train_dataloader=dict(
            dataset=dict(
                type='RepeatDataset',
                dataset=dict(type='ConcatDataset', datasets=[leaf, dict(type='B', data_root='data/b/')]),
            )
        ),
        val_evaluator=[dict(ann_file='data/b/x.json'), dict(ann_file='other/x.json')],
    )
    cfgs.set_data_root(cfg, 'new')
    assert [d.data_root for d in cfgs.leaf_datasets(cfg.train_dataloader.dataset)] == ['new', 'new']
    assert [e.ann_file for e in cfg.val_evaluator] == ['new/x.json', 'other/x.json']


def test_data_root_without_datasets_is_an_error():
    with pytest.raises(UserError, match='FakeData of some.py, train_dataloader, has no data_root'):
        cfgs.set_data_root(cfg_of(train_dataloader=dict(dataset=dict(type='FakeData'))), 'new')


def test_a_text_is_laid_out_once(monkeypatch):
    calls = []
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (calls.append(text) or text, True))
    cfg = cfg_of(optim_wrapper=dict(lr=1))
    with cfgs.laid_out_once():
        texts = [cfg.pretty_text, cfg.pretty_text]
        cfg.optim_wrapper.lr = 2
        texts.append(cfg.pretty_text)
    assert len(calls) == 2 and texts[0] == texts[1] != texts[2] and 'lr=2' in texts[2]
    assert cfg.pretty_text == texts[2] and len(calls) == 3


def test_from_scratch_freezes_nothing():
    cfg = cfgs.load_config(DETECTOR)
    cfgs.train_from_scratch(cfg)
    assert cfg.model.backbone.init_cfg is None
    assert (cfg.model.backbone.frozen_stages, cfg.model.backbone.norm_eval) == (-1, False)


def test_from_scratch_adds_no_argument_that_a_backbone_lacks():
    cfg = cfg_of(model=dict(backbone=dict(type='X', init_cfg=dict(type='Pretrained'))))
    cfgs.train_from_scratch(cfg)
    assert cfg.model.backbone == dict(type='X', init_cfg=None)


def test_amp():
    cfg = cfg_of(optim_wrapper=dict(optimizer=dict(type='AdamW')))
    cfgs.use_amp(cfg)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == ('AmpOptimWrapper', 'dynamic')
    published = cfgs.load_config(DETECTOR)
    cfgs.use_amp(published)
    assert published.optim_wrapper.loss_scale == 512.0


def test_auto_scale_lr():
    cfg = cfgs.load_config(DETECTOR)
    cfgs.use_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)
    with pytest.raises(UserError, match='base_batch_size'):
        cfgs.use_auto_scale_lr(cfg_of())


@pytest.mark.parametrize(
    'hook, expected',
    [
        ('DetVisualizationHook', dict(draw=True, test_out_dir='/pictures')),
        ('SegVisualizationHook', dict(draw=True, interval=1)),
        ('VisualizationHook', dict(enable=True, interval=1, out_dir='/pictures')),
    ],
)
def test_show_dir_of_each_library(hook, expected):
    cfg = cfg_of(default_hooks=dict(visualization=dict(type=hook)), visualizer=dict(type='V'))
    cfgs.draw_predictions(cfg, '/pictures')
    assert cfg.default_hooks.visualization == dict(type=hook, **expected)
    assert cfg.visualizer.get('save_dir') == ('/pictures' if 'Seg' in hook else None)


def test_show_dir_without_hook_is_an_error():
    with pytest.raises(UserError, match='visualization'):
        cfgs.draw_predictions(cfg_of(default_hooks={}), '/pictures')


def test_work_dir():
    for flag, own, expected in (('a', 'b', 'a'), (None, 'b', 'b'), (None, None, 'work_dirs/some')):
        cfg = cfg_of(work_dir=own)
        cfgs.set_work_dir(cfg, flag)
        assert cfg.work_dir == expected


def test_missing_data_are_shown_as_a_tree(tmp_path):
    cfg = cfgs.load_config(DETECTOR)
    cfgs.set_data_root(cfg, str(tmp_path / 'coco'))
    (tmp_path / 'coco' / 'train2017').mkdir(parents=True)
    with pytest.raises(UserError) as error:
        check_data(cfg, ('train', 'val'))
    lines = {line.split()[-2]: line.split()[-1] for line in str(error.value).splitlines()[1:-1]}
    assert lines == {
        f'{tmp_path}/coco/': 'found',
        'annotations/instances_train2017.json': 'MISSING',
        'train2017/': 'found',
        'annotations/instances_val2017.json': 'MISSING',
        'val2017/': 'MISSING',
    }
    assert '--data-root DIR' in str(error.value)


def test_complete_data_pass(digits):
    cfg = cfgs.load_config(DETECTOR)
    cfgs.set_data_root(cfg, str(digits / 'coco'))
    check_data(cfg, ('train', 'val', 'test'))


def test_segmentation_and_classification_layouts(digits, tmp_path):
    def ade(folder):
        return cfg_of(
            train_dataloader=dict(
                dataset=dict(
                    type='ADE20KDataset',
                    data_root=str(folder),
                    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
                )
            )
        )

    check_data(ade(digits / 'ade'), ('train',))
    with pytest.raises(UserError, match=r'annotations/training/ +MISSING'):
        check_data(ade(tmp_path), ('train',))
    imagenet = cfg_of(train_dataloader=dict(dataset=dict(type='ImageNet', data_root=str(tmp_path), split='train')))
    with pytest.raises(UserError, match=r'train/ +MISSING'):
        check_data(imagenet, ('train',))


def test_imports_of_the_command_line_are_made(tmp_path):
    with pytest.raises(UserError, match='nothing_there'):
        cfgs.load_config(DETECTOR, {'custom_imports.imports': ['nothing_there']})


def test_what_is_resumed_is_a_flags_value(tmp_path):
    with pytest.raises(UserError, match="resume='nowhere.pth' must be True or False: give --resume CKPT instead"):
        launch.train(str(DETECTOR), work_dir=str(tmp_path), cfg_options=dict(resume='nowhere.pth'))


def test_missing_config_and_checkpoint(tmp_path):
    with pytest.raises(UserError, match='config not found: gone.py'):
        cfgs.load_config('gone.py')
    with pytest.raises(UserError, match='checkpoint not found: .*gone.pth'):
        check_checkpoint(str(tmp_path / 'gone.pth'))
    check_checkpoint('https://example.org/x.pth')


def test_tta_wraps_the_model_and_names_its_metrics():
    cfg = cfg_of(
        model=dict(type='M'),
        tta_model=dict(type='T'),
        tta_pipeline=[dict(type='P')],
        test_dataloader=dict(dataset=dict(type='R', dataset=dict(type='D', pipeline=[]))),
        test_evaluator=[dict(type='E')],
    )
    cfgs.use_tta(cfg)
    assert cfg.model == dict(type='T', module=dict(type='M'))
    assert cfg.test_dataloader.dataset.dataset.pipeline == [dict(type='P')] and cfg.test_evaluator[0].prefix == 'ms'


def test_tta_needs_a_config_that_has_it():
    with pytest.raises(UserError, match='tta_pipeline'):
        cfgs.use_tta(cfg_of(model=dict(type='M'), tta_model=dict(type='T')))


ROWS = ROOT / 'configs' / 'ablation'


@pytest.mark.slow
@pytest.mark.parametrize(
    'recipe, widths',
    [
        ('detection/mask_rcnn_nextvit_s_1x', lambda model: model.neck.in_channels),
        ('segmentation/semantic_fpn_nextvit_s_80k', lambda model: model.neck.in_channels),
        ('segmentation/upernet_nextvit_s_160k', lambda model: model.decode_head.in_channels),
    ],
)
def test_another_backbone_brings_its_network_and_its_widths(recipe, widths):
    cfg = cfgs.load_config(str(ROOT / 'configs' / f'{recipe}.py'))
    before = cfg.model.backbone.to_dict()
    use_nextvit(cfg, str(ROWS / 'table1_cccc.py'))
    assert widths(cfg.model) == [96, 192, 384, 768]
    after = cfg.model.backbone.to_dict()
    assert after.pop('arch')['stages'][3] == dict(num_ncb=3, num_ntb=0, ncb_channels=768)
    before.pop('arch')
    assert after == before  # drop rates, norms, weights and what is frozen are the recipe's
    assert cfg.custom_hooks == []  # there is no published run of it
    if 'upernet' in recipe:
        assert cfg.model.auxiliary_head.in_channels == 384


@pytest.mark.slow
def test_another_backbone_of_a_classifier_and_its_norm():
    cfg = cfgs.load_config(str(ROOT / 'configs' / 'classification' / 'nextvit_s_224.py'))
    use_nextvit(cfg, str(ROWS / 'table1_cccc.py'))
    assert cfg.model.head.in_channels == 768
    use_nextvit(cfg, str(ROWS / 'table9_ln_gelu.py'))
    assert cfg.model.head.in_channels == 1024
    assert (cfg.model.backbone.norm_cfg.type, cfg.model.backbone.act_cfg.type) == ('mmpretrain.LN2d', 'GELU')


def test_a_backbone_of_another_kind_is_refused(tmp_path):
    other = tmp_path / 'resnet.py'
    other.write_text("model = dict(backbone=dict(type='ResNet', depth=50))\n")
    with pytest.raises(UserError, match="resnet.py is 'ResNet'"):
        use_nextvit(cfgs.load_config(DETECTOR), str(other))
    other.write_text("model = dict(backbone=dict(type='NextViT', arch=dict(stem_channels=(8, 8, 8), stages=[])))\n")
    with pytest.raises(UserError, match=r"resnet.py: arch\['stages'\]"):
        use_nextvit(cfgs.load_config(DETECTOR), str(other))


@pytest.mark.slow
def test_another_backbone_with_lists_of_heads_and_with_fewer_stages(tmp_path):
    cfg = cfgs.load_config(str(ROOT / 'configs' / 'segmentation' / 'upernet_nextvit_s_160k.py'))
    head = cfg.model.auxiliary_head
    cfg.model.auxiliary_head = [dict(head, in_index=1, in_channels=256), dict(head, in_index=3, in_channels=1024)]
    use_nextvit(cfg, str(ROWS / 'table1_cccc.py'))
    assert [one.in_channels for one in cfg.model.auxiliary_head] == [192, 768]
    short = tmp_path / 'short.py'
    short.write_text(
        "model = dict(backbone=dict(type='mmdet.NextViT', arch=dict(stem_channels=(8, 8, 8), stages=[\n"
        '    dict(num_ncb=1, num_ntb=0, ncb_channels=32)])))\n'
    )
    with pytest.raises(UserError, match='the network has 1 stages, and the config takes the maps of stage 4'):
        use_nextvit(cfg, str(short))


def test_a_config_of_a_library_that_is_not_here_is_an_error(tmp_path):
    config = tmp_path / 'other.py'
    config.write_text("_base_ = 'mmnothing::_base_/default_runtime.py'\n")
    with pytest.raises(UserError, match='other.py cannot be read as a config'):
        cfgs.load_config(str(config))


def test_predictions_that_could_not_be_written_stop_a_test_before_it_runs():
    with pytest.raises(UserError, match='/proc/x/found.pkl cannot be written'):
        launch.evaluate('no config is read', 'no checkpoint', out='/proc/x/found.pkl')
