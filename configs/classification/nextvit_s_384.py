# To start from weights of your own: --cfg-options load_from=work_dirs/nextvit_s_224/….pth
_base_ = [
    '../_base_/models/nextvit_classifier.py',
    '../_base_/schedules/adamw_30e.py',
    '../_base_/datasets/imagenet_384.py',
    '../_base_/mmpretrain_runtime.py',
]
load_from = 'nextvit-small_in1k'
custom_hooks = [dict(type='PublishedRunHook', run='nextvit_small_in1k_384')]
