# The demo at four times its length, with masks of the published resolution.
_base_ = 'mask_rcnn_nextvit_s_digits.py'
max_epochs = 4
model = dict(
    roi_head=dict(mask_roi_extractor=dict(roi_layer=dict(output_size=14))), train_cfg=dict(rcnn=dict(mask_size=28)))
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs, eta_min_ratio=0.02,
         convert_to_iter_based=True)
]
