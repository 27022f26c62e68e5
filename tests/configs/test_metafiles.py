"""metafile.yml and model-index.yml: every recipe once, with figures that are those of the data and of the models."""

import pytest
import yaml

from nextvit_mm.benchmark.complexity import count_complexity
from nextvit_mm.published import load_errata, load_release, load_run, load_table
from nextvit_mm.weights.zoo import HUB_FILE, ZOO

from ..conftest import RECIPES, ROOT, load_config

CLASSIFIERS = sorted((ROOT / 'configs' / 'classification').glob('*.py'))
METRICS = {'box AP': 'box_ap', 'mask AP': 'mask_ap', 'mIoU': 'miou', 'mIoU(ms+flip)': 'miou_ms'}
METHODS = dict(mask_rcnn='Mask R-CNN', semantic_fpn='Semantic FPN', upernet='UperNet')
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())
METAFILES = [yaml.safe_load((ROOT / path).read_text()) for path in INDEX['Import']]
MODELS = {model['Name']: model for metafile in METAFILES for model in metafile['Models']}


def test_every_recipe_is_listed_once():
    assert sum(len(metafile['Models']) for metafile in METAFILES) == len(MODELS)
    assert sorted(model['Config'] for model in MODELS.values()) == sorted(
        str(path.relative_to(ROOT)) for path in RECIPES + CLASSIFIERS
    )
    for metafile in METAFILES:
        collections = {collection['Name'] for collection in metafile['Collections']}
        assert {model['In Collection'] for model in metafile['Models']} == collections


TRAINED = [name for name in MODELS if not (name.startswith('nextvit_') and name.endswith('_6m'))]


def test_weights_are_what_can_be_fetched():
    """``mim download`` would save a page of a file-sharing site, which a person has to click on, as ``view``."""
    for model in MODELS.values():
        if 'Weights' in model:
            assert model['Weights'].endswith(('.safetensors', '.pth'))
        assert set(model.get('Converted From', {'Weights': 'https://'})) == {'Weights'}


@pytest.mark.parametrize('name', TRAINED)
def test_training(name):
    cfg, meta = load_config(ROOT / MODELS[name]['Config']), MODELS[name]['Metadata']
    run = load_run(cfg.custom_hooks[0].run)
    assert meta.get('Epochs', meta.get('Iterations')) == cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters'))
    assert meta['Batch Size'] == 8 * cfg.train_dataloader.batch_size
    # The authors' weights are of the run that was trained so.
    key = 'Weights' if name.startswith('nextvit_') else 'Converted From'
    assert (key in MODELS[name]) == (meta['Batch Size'] == run.batch_size and not cfg.custom_hooks[0].get('note'))


@pytest.mark.slow
@pytest.mark.parametrize('name', [path.stem for path in CLASSIFIERS])
def test_classifiers(name):
    _, size, side = name.split('_')[:3]
    arch, weights = dict(s='small', b='base', l='large')[size], '6m' if name.endswith('_6m') else 'in1k'
    entry = ZOO[f'nextvit-{arch}_{weights}' + ('-384' if side == '384' else '')]
    assert MODELS[name]['Weights'] == f'https://huggingface.co/{entry.hub_repo}/resolve/main/{HUB_FILE}'
    row = next(
        r
        for r in load_release()
        if (r['method'], r['backbone'], r['weights']) == (f'ImageNet-1K {side}', f'Next-ViT-{size.upper()}', entry.data)
    )
    assert (
        [result['Metrics'] for result in MODELS[name]['Results']]
        == [{'Top 1 Accuracy': float(row['top1'])}]
        == [{'Top 1 Accuracy': entry.top1}]
    )
    meta = MODELS[name]['Metadata']
    if name in TRAINED:
        memory = max(record['memory'] for record in load_run(f'nextvit_{arch}_in1k_{side}').train) / 1024
        assert meta['Training Memory (GB)'] == round(memory, 1)
    if weights == 'in1k':
        pytest.importorskip('mmpretrain')
        counted = count_complexity(load_config(ROOT / MODELS[name]['Config']), (int(side), int(side)))
        for model in (MODELS[name], MODELS[f'{name}_6m']):
            assert (model['Metadata']['Parameters'], model['Metadata']['FLOPs']) == (counted.params, counted.flops)


@pytest.mark.parametrize('name', [name for name in MODELS if not name.startswith('nextvit_')])
def test_results_are_the_published_ones(name):
    head, size = name.split('_nextvit_')[0], name.split('_nextvit_')[1][0].upper()
    schedule = name.split('_')[4 if head == 'semantic_fpn' or head == 'mask_rcnn' else 3]
    key = (f'{METHODS[head]} {schedule}', f'Next-ViT-{size}')
    weights = 'ImageNet-1K-6M' if '_6m' in name else 'ImageNet-1K'
    # The paper's figure for a recipe that follows its text where the release does not, else the release's.
    paper = head != 'upernet' and schedule != '1x' and 'released' not in name
    source = 'paper' if paper else 'release'
    rows = (
        load_table(5) + load_table(6)
        if paper and weights == 'ImageNet-1K'
        else []
        if paper
        else [r for r in load_release() if r['weights'] == weights]
    )
    published = {
        column: r[column]
        for r in rows
        if (r['method'], r['backbone']) == key
        for column in METRICS.values()
        if r.get(column)
    }
    for e in load_errata():
        if (
            source == 'paper'
            and e['source'] != 'release'
            and (e['method'], e['backbone']) == key
            and (e['column'] in published)
        ):
            published[e['column']] = e['correct']
    listed = {
        METRICS[metric]: value
        for result in MODELS[name].get('Results', [])
        for metric, value in result['Metrics'].items()
    }
    assert listed == {column: float(value) for column, value in published.items()}


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in MODELS if name.endswith(('_1x', '_80k', '_160k'))])
def test_parameters_and_flops(name):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    counted = count_complexity(load_config(ROOT / MODELS[name]['Config']))
    same = [
        model
        for other, model in MODELS.items()
        if other.split('_nextvit_')[0] == name.split('_nextvit_')[0]
        and other.split('_nextvit_')[1][0] == name.split('_nextvit_')[1][0]
    ]
    assert len(same) >= 2
    for model in same:
        assert (model['Metadata']['Parameters'], model['Metadata']['FLOPs']) == (counted.params, counted.flops)
