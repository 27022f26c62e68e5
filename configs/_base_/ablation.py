# What the rows of Tables 1, 2, 7, 8 and 9 share: the classifier of Next-ViT-S, its stages spelled out.
# For detection and segmentation a row's backbone is put into another config: tools/train.py CONFIG --backbone ROW.
_base_ = '../classification/nextvit_s_224.py'
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            stem_channels=(64, 32, 64),
            stages=[
                dict(num_ncb=3, num_ntb=0, ncb_channels=96),
                dict(num_ncb=3, num_ntb=1, ncb_channels=192, ntb_channels=256, sr_ratio=4),
                dict(num_ncb=4, num_ntb=1, repeats=2, ncb_channels=384, ntb_channels=512, sr_ratio=2),
                dict(num_ncb=2, num_ntb=1, ncb_channels=768, ntb_channels=1024),
            ])))
custom_hooks = []  # no published run to compare with
