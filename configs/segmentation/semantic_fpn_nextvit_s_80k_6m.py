_base_ = 'semantic_fpn_nextvit_s_80k.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='nextvit-small_6m')))
custom_hooks = [dict(type='PublishedRunHook', run='fpn_80k_nextvit_small_1n1k6m_pretrained')]
