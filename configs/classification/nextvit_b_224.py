_base_ = 'nextvit_s_224.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.2))
custom_hooks = [dict(type='PublishedRunHook', run='nextvit_base_in1k_224')]
