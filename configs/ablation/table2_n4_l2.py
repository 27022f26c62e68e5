# Table 2, N = 4, L = 2 in stage 3: Next-ViT-S.
_base_ = '../_base_/ablation.py'
