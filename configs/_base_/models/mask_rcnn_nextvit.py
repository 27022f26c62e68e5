# Mask R-CNN of the published detectors: MMDetection's, with Next-ViT in place of ResNet.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
custom_imports = dict(imports=['nextvit_mm'])
model = dict(
    backbone=dict(
        _delete_=True,
        type='nextvit_mm.NextViT',
        arch='small',
        drop_path_rate=0.1,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='nextvit-small_in1k')),
    neck=dict(in_channels=[96, 256, 512, 1024]))
