# Next-ViT-S on ImageNet-1K, to test and to export; how it was trained is not here yet.
_base_ = [
    '../_base_/models/nextvit_classifier.py',
    '../_base_/datasets/imagenet_eval.py',
    'mmpretrain::_base_/default_runtime.py',
]
