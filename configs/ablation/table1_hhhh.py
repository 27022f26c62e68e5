# Table 1, HHHH.
_base_ = '../_base_/ablation.py'
stages = [
    dict(num_ncb=2, num_ntb=1, ncb_channels=96, ntb_channels=128, sr_ratio=8),
    dict(num_ncb=3, num_ntb=1, ncb_channels=192, ntb_channels=256, sr_ratio=4),
    dict(num_ncb=9, num_ntb=1, ncb_channels=384, ntb_channels=512, sr_ratio=2),
    dict(num_ncb=2, num_ntb=1, ncb_channels=768, ntb_channels=1024),
]
model = dict(backbone=dict(arch=dict(stages=stages)))
