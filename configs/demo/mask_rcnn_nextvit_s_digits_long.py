# The demo at four times its length and the published stochastic depth.
_base_ = 'mask_rcnn_nextvit_s_digits.py'
max_epochs = 8
model = dict(backbone=dict(drop_path_rate=0.1))
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs, eta_min_ratio=0.02,
         convert_to_iter_based=True)
]
