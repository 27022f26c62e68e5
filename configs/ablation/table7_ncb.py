# Table 7, NCB: Next-ViT-S.
_base_ = '../_base_/ablation.py'
