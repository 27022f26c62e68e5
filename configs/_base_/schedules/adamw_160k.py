# UperNet, 160k iterations at 8 GPUs × 2 images (Sec. 4.2.1): AdamW, no decay on norms.
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=6e-5, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0), 'bn': dict(decay_mult=0.0)}))
# The decay counts from iteration 0, under the warm-up. MMEngine's schedulers reach their end value at iteration
# end - 1; mmcv 1.x, with which the release was trained, one later.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160001)
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
