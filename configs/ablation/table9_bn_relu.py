# Table 9, BN and ReLU: Next-ViT-S.
_base_ = '../_base_/ablation.py'
