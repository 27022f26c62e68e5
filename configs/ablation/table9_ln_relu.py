# Table 9, LN over the channels of each pixel, and ReLU.
_base_ = '../_base_/ablation.py'
model = dict(backbone=dict(norm_cfg=dict(type='mmpretrain.LN2d', eps=1e-6)))
