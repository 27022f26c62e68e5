# Table 8, r = 0.75: Next-ViT-S.
_base_ = '../_base_/ablation.py'
