_base_ = 'semantic_fpn_nextvit_s_80k_released.py'
model = dict(backbone=dict(arch='large', init_cfg=dict(checkpoint='nextvit-large_in1k')))
custom_hooks = [dict(type='PublishedRunHook', run='fpn_80k_nextvit_large')]
