"""The published figures as data: whole, consistent, and the reference's."""

import json

import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.published import list_runs, load_errata, load_release, load_run, load_table

from ..conftest import shared

FINAL = dict(  # the last evaluation of each run, as the authors' README rounds it
    mask_rcnn_1x_nextvit_small=(45.9, 41.8),
    mask_rcnn_1x_nextvit_base=(47.2, 42.8),
    mask_rcnn_1x_nextvit_large=(48.0, 43.2),
    mask_rcnn_3x_nextvit_small=(48.0, 43.2),
    mask_rcnn_3x_nextvit_base=(49.5, 44.4),
    mask_rcnn_3x_nextvit_large=(50.2, 44.8),
    fpn_80k_nextvit_small=46.53,
    fpn_80k_nextvit_base=48.61,
    fpn_80k_nextvit_large=49.11,
    fpn_80k_nextvit_small_1n1k6m_pretrained=48.82,
    fpn_80k_nextvit_base_1n1k6m_pretrained=50.20,
    fpn_80k_nextvit_large_1n1k6m_pretrained=50.50,
    upernet_160k_nextvit_small=48.08,
    upernet_160k_nextvit_base=50.38,
    upernet_160k_nextvit_large=50.14,
    upernet_160k_nextvit_small_1n1k6m_pretrained=49.77,
    upernet_160k_nextvit_base_1n1k6m_pretrained=51.83,
    upernet_160k_nextvit_large_1n1k6m_pretrained=51.45,
)


@pytest.mark.parametrize('name', FINAL)
def test_final_results(name):
    run = load_run(name)
    last = run.val[-1]
    assert last['iter'] == run.max_iters
    found = (100 * last['coco/bbox_mAP'], 100 * last['coco/segm_mAP']) if name.startswith('mask_rcnn') else last['mIoU']
    assert found == pytest.approx(FINAL[name])


def test_lengths():
    assert len(list_runs()) == 24
    for name in FINAL:
        run = load_run(name)
        assert run.max_iters == dict(mas=run.length * 7330, fpn=40000, upe=160000)[name[:3]]
        iterations = [record['iter'] for record in run.train]
        assert iterations == sorted(set(iterations)) and run.max_iters - iterations[-1] < 500
        assert all(record['lr'] > 0 for record in run.train)


def test_classification_runs():
    run = load_run('nextvit_small_in1k_224')
    assert (run.length, run.unit, run.batch_size, len(run.train)) == (300, 'epochs', 2048, 300)
    assert max(record['acc1'] for record in run.train) == pytest.approx(82.49, abs=0.005)


@pytest.mark.parametrize('name', list_runs())
def test_runs_are_the_reference(name):
    reference = json.loads(shared('reference', 'official_runs', f'{name}.json').read_text())
    run = load_run(name)
    records = reference.get('train', reference.get('epochs'))
    assert len(run.train) == len(records)
    for ours, theirs in zip(run.train, records):
        added = {'iter'} - set(theirs)  # of a classifier, whose records are of epochs
        assert {key: value for key, value in ours.items() if value is not None and key not in added} == theirs
    assert len(run.val) == len(reference.get('val', records))


def test_tables_are_whole():
    rows = {number: load_table(number) for number in (4, 5, 6)}
    assert {number: len(r) for number, r in rows.items()} == {4: 52, 5: 51, 6: 49}
    for table in rows.values():
        keys = [(r['method'], r['backbone']) for r in table]
        assert len(set(keys)) == len(keys)
        assert sum(r['backbone'].startswith('Next-ViT') for r in table) == 6
        for row in table:
            for column, value in row.items():
                if column not in ('method', 'backbone') and value:
                    assert float(value) > 0, row
    by_key = {(r['method'], r['backbone']): r for table in rows.values() for r in table}
    assert by_key['Mask R-CNN 1x', 'UniFormer-B h14']['box_ap'] == '47.4'
    assert by_key['Mask R-CNN 3x', 'CSWin-S']['mask_ap75'] == '47.7'
    assert by_key['UperNet 160k', 'ConvNeXt-B'] == dict(
        method='UperNet 160k',
        backbone='ConvNeXt-B',
        params='122.0',
        flops='1170',
        tensorrt_ms='181.3',
        coreml_ms='1074.4',
        miou='',
        miou_ms='49.9',
    )


def test_misprints_are_what_is_printed():
    sources = {f'table{number}': load_table(number) for number in (4, 5, 6)}
    sources['release'] = load_release()
    errata = load_errata()
    assert len(errata) == 10
    for erratum in errata:
        rows = [
            r
            for r in sources[erratum['source']]
            if (r['method'], r['backbone']) == (erratum['method'], erratum['backbone'])
        ]
        assert any(row[erratum['column']] == erratum['printed'] for row in rows), erratum
        assert erratum['printed'] != erratum['correct'] and erratum['why']


@pytest.mark.parametrize(
    'call, words',
    [
        (lambda: load_run('mask_rcnn'), ['mask_rcnn', 'upernet_160k_nextvit_base']),
        (lambda: load_table(3), ['3', '4, 5, 6']),
    ],
)
def test_unknown_names(call, words):
    with pytest.raises(UserError) as error:
        call()
    assert all(word in str(error.value) for word in words)
