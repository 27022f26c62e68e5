# Semantic FPN on the demo data (tools/make_digits.py), from the backbone of the demo's detector as others start from
# published weights. What differs from the published recipe: 128×128 pictures of eleven classes, a short
# schedule at a higher rate.
_base_ = ['../segmentation/semantic_fpn_nextvit_s_80k.py', '../_base_/datasets/digits_segmentation.py']
custom_hooks = []  # no published run to compare with
max_iters = 400

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(drop_path_rate=0.0, init_cfg=dict(checkpoint='work_dirs/demo/epoch_1.pth', prefix='backbone.')),
    decode_head=dict(
        num_classes=11, dropout_ratio=0.0, loss_decode=dict(class_weight={{_base_.digits_class_weight}})))

train_dataloader = dict(batch_size=8, num_workers=1, dataset={{_base_.digits_train}})
val_dataloader = dict(batch_size=4, num_workers=1, dataset={{_base_.digits_val}})
test_dataloader = val_dataloader

train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=21),
    dict(type='PolyLR', power=0.9, eta_min=1e-6, by_epoch=False, begin=0, end=max_iters + 1)
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_iters))
