"""tools/test.py on checkpoints in the authors' layout."""

import pickle

import pytest
import timm
import torch

from ..conftest import DEMO, ROOT, call_tool, empty, randomise, write_small
from ..weights.test_keys import official

TEST = ROOT / 'tools' / 'test.py'


@pytest.mark.slow
@pytest.mark.parametrize('form', ['detector', 'segmentor'])
def test_an_official_file_predicts_what_its_weights_do(form, digits, tmp_path):
    """A checkpoint as mmdet 2 or mmseg 0.x wrote it for the authors: their names, and what they carried unused."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    pytest.importorskip('mmseg')
    config = DEMO if form == 'detector' else str(ROOT / 'configs' / 'demo' / 'semantic_fpn_nextvit_s_digits.py')
    if form == 'segmentor':  # a small detector with random heads finds nothing
        config = write_small(config, tmp_path, backbone=False)  # the file is of a published backbone
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    others = {k: v for k, v in randomise(MODELS.build(cfg.model)).state_dict().items() if not k.startswith('backbone.')}
    for layer in ('rpn_head.rpn_cls', 'rpn_head.rpn_reg', 'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'):
        if form == 'detector':
            others[f'{layer}.weight'] *= 0.01  # large random weights send boxes out of the picture
    theirs = official('small', form)
    # timm's names are this project's, but for the norms; these values are the ones that `theirs` holds.
    native = {
        k: v
        for k, v in randomise(empty(timm.create_model, 'nextvit_small')).state_dict().items()
        if not k.startswith(('norm.', 'head.'))
    }
    if form == 'segmentor':
        native.update(
            {
                f'norm{k[len("extra_norm_list.")]}.{k.split(".")[-1]}': v
                for k, v in theirs.items()
                if k.startswith('extra_norm_list.') and not k.startswith('extra_norm_list.3')
            }
        )
        native.update({f'norm3.{k.split(".")[-1]}': v for k, v in theirs.items() if k.startswith('norm.')})
    meta = dict(mmdet_version='2.23.0', CLASSES=tuple('0123456789'), epoch=12, iter=87960, hook_msgs={}, config='x = 1')
    predictions = []
    for name, backbone, rest in (
        ('native', native, {}),
        ('official', theirs, dict(meta=meta, optimizer=dict(state={}, param_groups=[]))),
    ):
        state_dict = {**{f'backbone.{k}': v for k, v in backbone.items()}, **others}
        torch.save(dict(state_dict=state_dict, **rest), tmp_path / f'{name}.pth')
        options = ['model.test_cfg.rcnn.score_thr=0.0'] if form == 'detector' else ['model.test_cfg.mode=whole']
        log = call_tool(
            TEST,
            config,
            tmp_path / f'{name}.pth',
            '--data-root',
            digits / ('coco' if form == 'detector' else 'ade'),
            '--work-dir',
            tmp_path / name,
            '--out',
            tmp_path / f'{name}.pkl',
            '--cfg-options',
            *options,
        )
        predictions.append(pickle.loads((tmp_path / f'{name}.pkl').read_bytes()))
    unused = 'norm3, head' if form == 'detector' else 'head, extra_norm_list'
    assert f'unused and left out: {unused}' in log.stdout + log.stderr
    assert len(predictions[0]) == 4
    assert form == 'segmentor' or sum(len(p['pred_instances']['scores']) for p in predictions[0]) > 0
    for ours, theirs in zip(*predictions):
        if form == 'segmentor':
            assert torch.equal(ours['pred_sem_seg']['data'], theirs['pred_sem_seg']['data'])
            assert torch.equal(ours['seg_logits']['data'], theirs['seg_logits']['data'])
            continue
        for key in ('bboxes', 'scores', 'labels'):
            assert torch.equal(ours['pred_instances'][key], theirs['pred_instances'][key])
        assert ours['pred_instances']['masks'] == theirs['pred_instances']['masks']
