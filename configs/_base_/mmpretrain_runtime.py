# 300 checkpoints would fill a disk; the published figures are of the best epoch.
_base_ = 'mmpretrain::_base_/default_runtime.py'
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='accuracy/top1', rule='greater'))
