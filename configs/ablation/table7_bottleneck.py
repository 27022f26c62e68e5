# Table 7: ResNet's bottleneck in the place of the NCB.
_base_ = '../_base_/ablation.py'
stages = [
    dict(num_ncb=7, num_ntb=0, ncb_channels=96, conv_block='Bottleneck'),
    dict(num_ncb=8, num_ntb=1, ncb_channels=192, ntb_channels=256, sr_ratio=4, conv_block='Bottleneck'),
    dict(num_ncb=10, num_ntb=1, repeats=2, ncb_channels=384, ntb_channels=512, sr_ratio=2, conv_block='Bottleneck'),
    dict(num_ncb=5, num_ntb=1, ncb_channels=768, ntb_channels=1024, conv_block='Bottleneck'),
]
model = dict(backbone=dict(arch=dict(stages=stages)))
