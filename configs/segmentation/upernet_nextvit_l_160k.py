_base_ = 'upernet_nextvit_s_160k.py'
model = dict(backbone=dict(arch='large', init_cfg=dict(checkpoint='nextvit-large_in1k')))
custom_hooks = [dict(type='PublishedRunHook', run='upernet_160k_nextvit_large')]
