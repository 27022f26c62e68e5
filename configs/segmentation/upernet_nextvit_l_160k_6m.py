_base_ = 'upernet_nextvit_l_160k.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='nextvit-large_6m')))
custom_hooks = [dict(type='PublishedRunHook', run='upernet_160k_nextvit_large_1n1k6m_pretrained')]
