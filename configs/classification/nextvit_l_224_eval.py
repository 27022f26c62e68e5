_base_ = 'nextvit_s_224_eval.py'
model = dict(backbone=dict(arch='large'))
