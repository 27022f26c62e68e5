# As released; the paper's text, and with it mask_rcnn_nextvit_s_3x.py, knows only the resizing.
_base_ = [
    '../_base_/models/mask_rcnn_nextvit.py',
    '../_base_/schedules/adamw_3x.py',
    '../_base_/datasets/coco_instance_ms_released.py',
    'mmdet::_base_/default_runtime.py',
]
custom_hooks = [dict(type='PublishedRunHook', run='mask_rcnn_3x_nextvit_small')]
