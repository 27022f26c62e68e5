_base_ = 'semantic_fpn_nextvit_s_80k.py'
model = dict(backbone=dict(arch='base', init_cfg=dict(checkpoint='nextvit-base_in1k')))
custom_hooks = [dict(type='PublishedRunHook', run='fpn_80k_nextvit_base')]
