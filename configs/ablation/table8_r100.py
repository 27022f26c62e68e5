# Table 8, r = 1: no MHCA in the NTB.
_base_ = '../_base_/ablation.py'
stages = [
    dict(num_ncb=3, num_ntb=0, ncb_channels=96),
    dict(num_ncb=3, num_ntb=1, ncb_channels=192, ntb_channels=256, sr_ratio=4, mix_ratio=1.0),
    dict(num_ncb=4, num_ntb=1, repeats=2, ncb_channels=384, ntb_channels=512, sr_ratio=2, mix_ratio=1.0),
    dict(num_ncb=2, num_ntb=1, ncb_channels=768, ntb_channels=1024, mix_ratio=1.0),
]
model = dict(backbone=dict(arch=dict(stages=stages)))
