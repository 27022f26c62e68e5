# Table 1, CCCC.
_base_ = '../_base_/ablation.py'
stages = [
    dict(num_ncb=3, num_ntb=0, ncb_channels=96),
    dict(num_ncb=4, num_ntb=0, ncb_channels=192),
    dict(num_ncb=12, num_ntb=0, ncb_channels=384),
    dict(num_ncb=3, num_ntb=0, ncb_channels=768),
]
model = dict(backbone=dict(arch=dict(stages=stages)), head=dict(in_channels=768))
