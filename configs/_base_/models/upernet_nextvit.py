# UperNet of the published segmentors: MMSegmentation's, with Next-ViT in place of ResNet.
_base_ = 'mmseg::_base_/models/upernet_r50.py'
custom_imports = dict(imports=['nextvit_mm'])
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='nextvit_mm.NextViT',
        arch='small',
        drop_path_rate=0.2,
        out_norm='all',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='nextvit-small_in1k')),
    decode_head=dict(in_channels=[96, 256, 512, 1024], num_classes=150),
    auxiliary_head=dict(in_channels=512, num_classes=150))
