_base_ = 'upernet_nextvit_s_160k.py'
model = dict(backbone=dict(arch='base', init_cfg=dict(checkpoint='nextvit-base_in1k')))
custom_hooks = [dict(type='PublishedRunHook', run='upernet_160k_nextvit_base')]
