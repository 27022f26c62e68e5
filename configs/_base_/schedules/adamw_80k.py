# Semantic FPN, 80k iterations at 8 GPUs × 2 images (Sec. 4.2.1): AdamW, the same decay on every parameter.
_base_ = 'mmseg::_base_/schedules/schedule_80k.py'
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
# MMEngine's schedulers reach their end value at iteration end - 1; mmcv 1.x would have reached it one later.
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-6, by_epoch=False, begin=0, end=80001)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
