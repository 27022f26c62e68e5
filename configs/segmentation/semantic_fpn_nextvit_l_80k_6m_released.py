_base_ = 'semantic_fpn_nextvit_l_80k_released.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='nextvit-large_6m')))
custom_hooks = [dict(type='PublishedRunHook', run='fpn_80k_nextvit_large_1n1k6m_pretrained')]
