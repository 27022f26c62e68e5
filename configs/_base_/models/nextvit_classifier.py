# The published classifier (Table 3): Next-ViT, a norm, global average pooling, one linear layer.
custom_imports = dict(imports=['nextvit_mm'])
model = dict(
    type='ImageClassifier',
    backbone=dict(type='NextViT', arch='small', out_indices=(3, ), out_norm='last'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=1024))
