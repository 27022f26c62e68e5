# The demo data in ADE20K's layout (tools/make_digits.py), as data sets for a config to put into its loaders. Pictures
# are used at their own size and not mirrored, which would make other digits of some.
digits_train = dict(
    type='BaseSegDataset',
    data_root='data/digits/ade/',
    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
    reduce_zero_label=True,
    metainfo=dict(
        classes=('background', *'0123456789'),
        palette=[[0, 0, 0], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48],
                 [145, 30, 180], [70, 240, 240], [240, 50, 230], [210, 245, 60], [250, 190, 212]]),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='PackSegInputs')
    ])
digits_val = dict(
    digits_train, data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'))
# Most of a picture is background; a digit's pixel counts five times as much.
digits_class_weight = [0.2] + 10 * [1.0]
