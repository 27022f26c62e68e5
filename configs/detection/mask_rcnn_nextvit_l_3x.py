_base_ = 'mask_rcnn_nextvit_s_3x.py'
model = dict(backbone=dict(arch='large', drop_path_rate=0.2, init_cfg=dict(checkpoint='nextvit-large_in1k')))
custom_hooks = [dict(type='PublishedRunHook', run='mask_rcnn_3x_nextvit_large', note='published: also random crops')]
