# Semantic FPN on the demo data from random weights, for backbones that have none: the rows of configs/ablation.
_base_ = 'semantic_fpn_nextvit_s_digits.py'
max_iters = 250
model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=21),
    dict(type='PolyLR', power=0.9, eta_min=1e-6, by_epoch=False, begin=0, end=max_iters + 1)
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
