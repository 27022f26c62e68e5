# To evaluate the weights from ImageNet-1K-6M; how they were trained was not published.
#     python tools/test.py configs/classification/nextvit_b_224_6m.py nextvit-base_6m
_base_ = 'nextvit_b_224.py'
weights = 'nextvit-base_6m'
custom_hooks = []  # no published run to compare with
