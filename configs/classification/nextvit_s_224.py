_base_ = [
    '../_base_/models/nextvit_classifier.py',
    '../_base_/schedules/adamw_300e.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/mmpretrain_runtime.py',
]
custom_hooks = [dict(type='PublishedRunHook', run='nextvit_small_in1k_224')]
