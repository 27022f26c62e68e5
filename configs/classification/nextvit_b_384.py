_base_ = 'nextvit_s_384.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.2))
optim_wrapper = dict(optimizer=dict(lr=3e-6))
load_from = 'nextvit-base_in1k'
custom_hooks = [dict(type='PublishedRunHook', run='nextvit_base_in1k_384')]
