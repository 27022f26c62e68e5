# The 224 recipe on the demo's digits (tools/make_digits.py), small enough for two CPU cores. What differs from it:
# 64×64 pictures of ten classes, used as they are (mirrored, or in part erased, some digits are others) and not mixed,
# and a short schedule at the rate of a small batch.
_base_ = '../classification/nextvit_s_224.py'
custom_hooks = []  # no published run to compare with
max_epochs = 6

model = dict(backbone=dict(drop_path_rate=0.0), head=dict(num_classes=10), train_cfg=None)
data_preprocessor = dict(num_classes=10)
pipeline = [
    {{_base_.load}},
    dict(type='Resize', scale=(64, 64)),  # their own size; it tells an exported model which it takes
    dict(type='PackInputs'),
]
digits = dict(data_root='data/digits/imagenet', metainfo=dict(classes=tuple('0123456789')), pipeline=pipeline)
train_dataloader = dict(batch_size=32, num_workers=1, dataset=digits)
val_dataloader = dict(batch_size=60, num_workers=1, dataset=digits)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs, eta_min_ratio=0.01,
         convert_to_iter_based=True)
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
