"""tools/visualize.py as a user runs it, on models and pictures too small to show anything."""

import shutil

import matplotlib.image
import pytest

from nextvit_mm.errors import UserError
from nextvit_mm.visualization import commands
from nextvit_mm.visualization.options import FeaturesOptions, HeatmapOptions, SpectrumOptions
from tests.conftest import GROUPED, ROOT, call_tool
from tests.deploy.conftest import make_case

TOOL = ROOT / 'tools' / 'visualize.py'


@pytest.fixture(scope='module')
def cases(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp('cases')
    return {kind: make_case(kind, folder, digits) for kind in ('detection', 'semantic_fpn', 'classification')}


def check_sheet(path, min_width=600):
    sheet = matplotlib.image.imread(path)[..., :3]
    assert sheet.shape[1] > min_width and sheet.std() > 0.05, 'more than an empty page'


@pytest.mark.slow
def test_spectrum_beside_others(cases, tmp_path):
    pytest.importorskip('timm')
    out = tmp_path / 'new' / 'spectrum.png'
    result = call_tool(
        TOOL,
        'spectrum',
        *cases['detection'][:2],
        '--count',
        '2',
        '--beside',
        'random',
        'timm:resnet18',
        'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
        '--out',
        out,
    )
    check_sheet(out)
    lines = result.stdout.splitlines()
    for line, title in zip(
        lines,
        (
            'detection, weights of detection.pth:',
            'detection, random weights:',
            'timm resnet18, random weights:',
            'retinanet_r18_fpn_1x_coco, random weights:',
        ),
    ):
        assert line.startswith(title) and all(f'{stage}: ' in line for stage in (1, 2, 3, 4)) and ' nan ' not in line
    assert lines[-1] == f'written: {out}' and len(lines) == 5


@pytest.mark.slow
def test_branches_are_told_in_figures(digits, tmp_path):
    case = make_case('semantic_fpn', tmp_path, digits, GROUPED)
    out = tmp_path / 'branches.png'
    result = call_tool(TOOL, 'spectrum', *case[:2], '--branches', '--count', '3', '--out', out)
    check_sheet(out)
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith('    stage ')]
    assert [row[1] + row[3] for row in rows] == ['2,2', '3,2', '3,4', '4,2'] * 2
    for row in rows:
        assert all(0 <= float(share) <= 100 for share in row[5:9]) and ' of 3' in ' '.join(row)


@pytest.mark.slow
def test_heatmap_and_features_at_their_usual_place(cases, tmp_path):
    """In the config's work dir, from another folder, without any MMEngine line."""
    for kind, command, *arguments in (
        ('semantic_fpn', 'heatmap', '--count', '1', '--stages', '2', '4'),
        ('detection', 'features'),
    ):
        config = shutil.copy(cases[kind].config, tmp_path / f'{kind}.py')
        result = call_tool(TOOL, command, config, cases[kind].checkpoint, *arguments, cwd=tmp_path)
        path = tmp_path / 'unused' / 'visualize' / f'{command}.png'
        check_sheet(path)
        assert result.stdout == f'written: {path.relative_to(tmp_path)}\n'


@pytest.mark.slow
def test_heatmap_of_detections_and_of_a_classifier(cases, digits, tmp_path, capsys):
    config, checkpoint, _ = cases['detection']
    out = tmp_path / 'h.png'
    check_sheet(
        commands.heatmap(HeatmapOptions(config, checkpoint, count=2, min_score=0.0, method='eigencam', out=str(out)))
    )
    with pytest.raises(UserError, match='in none of 2 pictures there is anything .* a lower --min-score'):
        commands.heatmap(HeatmapOptions(config, checkpoint, count=2, min_score=1.1, out=str(out)))
    assert 'picture 2 of 2: the model detects nothing with a score of at least 1.1; left out' in capsys.readouterr().err
    config, checkpoint, _ = cases['classification']
    images = str(digits / 'coco' / 'val2017')
    check_sheet(
        commands.heatmap(HeatmapOptions(config, checkpoint, images, count=2, class_name='3', out=str(out))), 400
    )
    with pytest.raises(UserError, match='--class 77 is neither'):
        commands.heatmap(HeatmapOptions(config, checkpoint, images, class_name='77', out=str(out)))
    with pytest.raises(UserError, match='--stages 9: the backbone has 1, 2, 3, 4'):
        commands.heatmap(HeatmapOptions(config, checkpoint, images, stages=[9], out=str(out)))


@pytest.mark.slow
def test_features_at_another_size(cases, tmp_path):
    config, checkpoint, _ = cases['detection']
    check_sheet(
        commands.features(FeaturesOptions(config, checkpoint, size=[96], channels=0, out=str(tmp_path / 'f.png'))), 400
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(beside=['timm:nothing']), 'timm has no nothing'),
        (dict(beside=['timm:resnet18@best']), 'not @best'),
        (dict(beside=['resnet18']), '--beside resnet18: take random'),
        (dict(beside=['absent.py']), 'config not found: absent.py'),
        (dict(beside=['timm:resnet18'], branches=True), 'timm resnet18 has no Next Transformer Blocks'),
        (dict(count=0), '--count 0'),
        (dict(size=[1, 2, 3]), '--size is one or two whole numbers'),
        (dict(size=[16]), 'does not take pictures of 16×16: .* the least square input is'),
        (dict(out='spectrum.jpg'), 'spectrum.jpg: pictures are PNG'),
        (dict(device='nowhere'), '--device nowhere'),
        (dict(images='nowhere'), 'no pictures at nowhere'),
        (dict(checkpoint=None), 'needs its weights: give a CHECKPOINT'),
    ],
)
def test_mistakes(cases, arguments, message, tmp_path):
    if 'beside' in arguments:
        pytest.importorskip('timm')
    config, checkpoint, _ = cases['detection']
    given = {**dict(config=config, checkpoint=checkpoint, count=1, out=str(tmp_path / 's.png')), **arguments}
    with pytest.raises(UserError, match=message):
        commands.spectrum(SpectrumOptions(**given))


def test_pictures_that_are_not_there(cases):
    config, checkpoint, _ = cases['classification']
    with pytest.raises(UserError, match='test data of classification are not here: give --images'):
        nowhere = {'test_dataloader.dataset.data_root': 'nowhere'}
        commands.features(FeaturesOptions(config, checkpoint, cfg_options=nowhere))
    result = call_tool(TOOL, 'heatmap', config, check=False)
    assert result.returncode == 2 and 'give a CHECKPOINT' in result.stderr and 'Traceback' not in result.stderr
