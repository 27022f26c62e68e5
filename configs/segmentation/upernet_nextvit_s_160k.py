_base_ = [
    '../_base_/models/upernet_nextvit.py',
    '../_base_/schedules/adamw_160k.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/mmseg_runtime.py',
]
custom_hooks = [dict(type='PublishedRunHook', run='upernet_160k_nextvit_small')]
