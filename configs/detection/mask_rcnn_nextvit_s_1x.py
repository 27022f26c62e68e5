_base_ = [
    '../_base_/models/mask_rcnn_nextvit.py',
    '../_base_/schedules/adamw_1x.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
]
custom_hooks = [dict(type='PublishedRunHook', run='mask_rcnn_1x_nextvit_small')]
