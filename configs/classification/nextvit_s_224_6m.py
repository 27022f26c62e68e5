# To evaluate the weights from ImageNet-1K-6M; how they were trained was not published.
#     python tools/test.py configs/classification/nextvit_s_224_6m.py nextvit-small_6m
_base_ = 'nextvit_s_224.py'
weights = 'nextvit-small_6m'
custom_hooks = []  # no published run to compare with
