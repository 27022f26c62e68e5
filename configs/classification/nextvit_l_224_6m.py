# To evaluate the weights from ImageNet-1K-6M; how they were trained was not published.
#     python tools/test.py configs/classification/nextvit_l_224_6m.py nextvit-large_6m
_base_ = 'nextvit_l_224.py'
weights = 'nextvit-large_6m'
custom_hooks = []  # no published run to compare with
