# 300 epochs at 8 GPUs × 256 images: AdamW with 5e-4 for every 512 images, and no decay on biases and one-dimensional
# parameters, mixed precision. (What belongs to a BN is one-dimensional.)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [dict(type='WarmupCosineEpochLR', epochs=300, warmup_epochs=20, warmup_lr=1e-6, min_lr=1e-5)]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=2048)
