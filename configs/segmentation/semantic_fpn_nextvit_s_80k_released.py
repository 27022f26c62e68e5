# As released: 40k iterations at batch 32; the paper's text, and with it the plain name: 80k at 16.
_base_ = [
    '../_base_/models/semantic_fpn_nextvit.py',
    '../_base_/schedules/adamw_40k.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/mmseg_runtime.py',
]
train_dataloader = dict(batch_size=4)
custom_hooks = [dict(type='PublishedRunHook', run='fpn_80k_nextvit_small')]
