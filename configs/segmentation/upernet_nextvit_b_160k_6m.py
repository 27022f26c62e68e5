_base_ = 'upernet_nextvit_b_160k.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='nextvit-base_6m')))
custom_hooks = [dict(type='PublishedRunHook', run='upernet_160k_nextvit_base_1n1k6m_pretrained')]
