# The published classifier (Table 3): Next-ViT, a norm, global average pooling, one linear layer. It trains on pairs of
# pictures, mixed or cut into one another with equal chances, and on labels smoothed by 0.1.
custom_imports = dict(imports=['nextvit_mm'])
model = dict(
    type='ImageClassifier',
    backbone=dict(type='nextvit_mm.NextViT', arch='small', drop_path_rate=0.1, out_indices=(3, ), out_norm='last'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1024,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
