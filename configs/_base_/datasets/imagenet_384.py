# ImageNet-1K at 384×384, at 8 GPUs × 128 images.
_base_ = 'imagenet_224.py'
train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 384
authors_test_pipeline = _base_.authors_test_pipeline
authors_test_pipeline[1].scale = 438  # int(256 / 224 × 384)
authors_test_pipeline[2].crop_size = 384
timm_test_pipeline = _base_.timm_test_pipeline
timm_test_pipeline[1].scale = 384  # a crop ratio of 1
timm_test_pipeline[2].crop_size = 384
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=authors_test_pipeline))
test_dataloader = val_dataloader
