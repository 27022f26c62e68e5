_base_ = [
    '../_base_/models/semantic_fpn_nextvit.py',
    '../_base_/schedules/adamw_80k.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/mmseg_runtime.py',
]
custom_hooks = [dict(type='PublishedRunHook', run='fpn_80k_nextvit_small')]
