# As mmcv 1.x did, whose logs the published runs are known by, every logged value is a mean over all iterations since
# the last line.
_base_ = 'mmseg::_base_/default_runtime.py'
log_processor = dict(window_size=50)
