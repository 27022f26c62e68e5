# To evaluate the weights from ImageNet-1K-6M; how they were trained was not published.
#     python tools/test.py configs/classification/nextvit_s_384_6m.py nextvit-small_6m-384
_base_ = 'nextvit_s_384.py'
weights = 'nextvit-small_6m-384'
custom_hooks = []  # no published run to compare with
