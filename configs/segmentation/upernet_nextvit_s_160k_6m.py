_base_ = 'upernet_nextvit_s_160k.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='nextvit-small_6m')))
custom_hooks = [dict(type='PublishedRunHook', run='upernet_160k_nextvit_small_1n1k6m_pretrained')]
