# Table 1, CTTT.
_base_ = '../_base_/ablation.py'
stages = [
    dict(num_ncb=3, num_ntb=0, ncb_channels=96),
    dict(num_ncb=0, num_ntb=3, ntb_channels=256, sr_ratio=4),
    dict(num_ncb=0, num_ntb=8, ntb_channels=512, sr_ratio=2),
    dict(num_ncb=0, num_ntb=2, ntb_channels=1024),
]
model = dict(backbone=dict(arch=dict(stages=stages)))
