# The 1x recipe on the demo data (tools/make_digits.py), small enough for two CPU cores. What differs from it:
# 128×128 pictures of ten classes; half the width in neck, RPN and mask head; fewer and coarser regions; and training
# from scratch, so that every stage and every BN has to learn, at a higher rate.
_base_ = '../detection/mask_rcnn_nextvit_s_1x.py'
data_root = 'data/digits/coco/'
metainfo = dict(classes=tuple('0123456789'))
custom_hooks = []  # no published run to compare with
max_epochs = 1

model = dict(
    backbone=dict(drop_path_rate=0.0, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(out_channels=128),
    rpn_head=dict(in_channels=128, feat_channels=128),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        mask_roi_extractor=dict(out_channels=128, roi_layer=dict(output_size=7)),
        bbox_head=dict(in_channels=128, num_classes=10),
        mask_head=dict(in_channels=128, conv_out_channels=128, num_classes=10)),
    train_cfg=dict(rpn_proposal=dict(max_per_img=200), rcnn=dict(sampler=dict(num=64), mask_size=14)),
    test_cfg=dict(rpn=dict(max_per_img=200), rcnn=dict(max_per_img=20)))

# Pictures are used at their own size and not mirrored, which would make other digits of some.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale_factor=1.0),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(batch_size=2, dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs, eta_min_ratio=0.02,
         convert_to_iter_based=True)
]
default_hooks = dict(logger=dict(interval=10))
