# 12 epochs at 8 GPUs × 2 images (Sec. 4.3.1): AdamW, no decay on norms, float16 with a constant loss scale.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale=512.0,
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0), 'bn': dict(decay_mult=0.0)}))
# MMEngine reaches the full rate at iteration end - 1, mmcv 1.x, with which the release was trained, at `end`.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=501),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1)
]
