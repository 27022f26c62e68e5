_base_ = 'nextvit_s_384.py'
model = dict(backbone=dict(arch='large', drop_path_rate=0.2))
load_from = 'nextvit-large_in1k'
custom_hooks = [dict(type='PublishedRunHook', run='nextvit_large_in1k_384')]
