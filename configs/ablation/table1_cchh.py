# Table 1, CCHH.
_base_ = '../_base_/ablation.py'
stages = [
    dict(num_ncb=3, num_ntb=0, ncb_channels=96),
    dict(num_ncb=4, num_ntb=0, ncb_channels=192),
    dict(num_ncb=10, num_ntb=1, ncb_channels=384, ntb_channels=512, sr_ratio=2),
    dict(num_ncb=2, num_ntb=1, ncb_channels=768, ntb_channels=1024),
]
model = dict(backbone=dict(arch=dict(stages=stages)))
