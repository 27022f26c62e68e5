# The demo at four times its length, with the neck, the heads and the masks' resolution of the published detector.
_base_ = 'mask_rcnn_nextvit_s_digits.py'
max_epochs = 4
model = dict(
    neck=dict(out_channels=256),
    rpn_head=dict(in_channels=256, feat_channels=256),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=256),
        mask_roi_extractor=dict(out_channels=256, roi_layer=dict(output_size=14)),
        bbox_head=dict(in_channels=256),
        mask_head=dict(in_channels=256, conv_out_channels=256)),
    train_cfg=dict(rcnn=dict(mask_size=28)))
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs, eta_min_ratio=0.02,
         convert_to_iter_based=True)
]
