# ImageNet-1K as the authors train and evaluate on it, at 8 GPUs × 256 images.
data_preprocessor = dict(
    num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
mean_bgr, std_bgr = data_preprocessor['mean'][::-1], data_preprocessor['std'][::-1]
# As timm reads pictures: in Pillow, which makes RGB of everything, and without regard to how the camera was held.
load = dict(type='LoadImageFromFile', imdecode_backend='pillow', color_type='color_ignore_orientation')
train_pipeline = [
    load,
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    # timm's rand-m9-mstd0.5-inc1. The authors' command line has a colour jitter of 0.4, too, but where there is a
    # RandAugment timm leaves the jitter out: no published run was trained with it, and it is not here.
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[round(x) for x in mean_bgr], interpolation='bicubic')),
    # timm's "pixel": every pixel of the patch gets noise of its own, which after normalisation has mean 0 and std 1
    # (but for what MMPretrain cuts off at black and white).
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=mean_bgr,
        fill_std=std_bgr),
    dict(type='PackInputs'),
]
# The authors' evaluation, and the usual one here: the shorter side to int(256 / 224 × 224), and the centre.
authors_test_pipeline = [
    load,
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
# timm's, which its hub entries name: a crop ratio of 0.95 (tools/test.py --pipeline timm).
timm_test_pipeline = [
    load,
    dict(type='ResizeEdge', scale=235, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=256,
    num_workers=10,
    persistent_workers=True,
    drop_last=True,  # 625 iterations an epoch, as published
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='val', pipeline=authors_test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
