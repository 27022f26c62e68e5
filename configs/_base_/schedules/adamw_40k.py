# Semantic FPN as released: 40k iterations at 8 GPUs × 4 images, as many pictures as 80k at 8 × 2.
_base_ = 'adamw_80k.py'
train_cfg = dict(max_iters=40000, val_interval=4000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-6, by_epoch=False, begin=0, end=40001)]
default_hooks = dict(checkpoint=dict(interval=4000))
auto_scale_lr = dict(base_batch_size=32)
