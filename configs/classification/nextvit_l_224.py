_base_ = 'nextvit_s_224.py'
model = dict(backbone=dict(arch='large', drop_path_rate=0.2))
custom_hooks = [dict(type='PublishedRunHook', run='nextvit_large_in1k_224')]
