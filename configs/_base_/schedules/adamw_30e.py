# 30 epochs at 8 GPUs × 128 images, from weights trained at 224×224: one rate throughout, and hardly any decay.
_base_ = 'adamw_300e.py'
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=1e-8))
param_scheduler = []
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=1024)
