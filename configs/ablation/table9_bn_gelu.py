# Table 9, BN and GELU.
_base_ = '../_base_/ablation.py'
model = dict(backbone=dict(act_cfg=dict(type='GELU')))
