"""Class-activation maps, where it is known what they must show."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nextvit_mm.errors import UserError
from nextvit_mm.visualization import cam
from nextvit_mm.visualization.hooks import stage_layers
from tests.deploy.conftest import build, tiny_config

pytest.importorskip('pytorch_grad_cam')


class ByColor(nn.Module):
    """A classifier whose class 0 is how much red there is, and class 1 how much blue."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 2, 1, bias=False)
        self.backbone.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).view(2, 3, 1, 1)
        self.head = SimpleNamespace(num_classes=2)

    def extract_feat(self, image):
        return self.backbone(image)

    def forward(self, image, mode='tensor'):
        return self.extract_feat(image).mean((2, 3)) * 100


@pytest.fixture(scope='module')
def model():
    """The tiny model of a kind, made once."""
    made = {}
    return lambda kind: made.setdefault(kind, build(tiny_config(kind)))


def an_image(height=64, width=64):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def hooks(model):
    return sum(len(m._forward_hooks) for m in model.modules())


@pytest.mark.parametrize('method', ['gradcam', 'hirescam', 'layercam', 'xgradcam'])
def test_heat_is_where_the_class_is(method):
    classifier, image = ByColor(), torch.zeros(1, 3, 40, 60)
    image[0, 0, 5:15, 10:20] = 2
    image[0, 2, 25:35, 40:50] = 1
    squares = {0: (slice(5, 15), slice(10, 20)), 1: (slice(25, 35), slice(40, 50))}
    for label in (0, 1):
        explained = cam.explain(classifier, image, ['red', 'blue'], label)
        heat = cam.heat_map(explained, classifier.backbone, image, method)
        expected = np.zeros((40, 60))
        expected[squares[label]] = 1
        np.testing.assert_allclose(heat, expected, atol=1e-5)
    assert cam.explain(classifier, image, ['red', 'blue']).title == '"red", probability 0.98'
    assert '(predicted: "red", 0.98)' in cam.explain(classifier, image, ['red', 'blue'], 1).title


@pytest.mark.parametrize(
    'kind, size',
    [('classification', (64, 64)), ('semantic_fpn', (64, 96)), ('upernet', (64, 64)), ('detection', (75, 90))],
)
def test_maps_of_real_models(model, kind, size):
    network, image = model(kind), an_image(*size)
    frozen = network.backbone.stem[0].conv.weight
    frozen.requires_grad = False
    before, seen = hooks(network), set()
    watch = network.backbone.register_forward_pre_hook(lambda _, inputs: seen.add(tuple(inputs[0].shape[2:])))
    explained = cam.explain(network, image, min_score=0.0)
    with stage_layers(network.backbone) as layers:
        heats = {stage: cam.heat_map(explained, layer, image) for stage, layer in layers.items()}
    watch.remove()
    assert seen == {(96, 96) if kind == 'detection' else size}  # each side padded to a multiple of 32
    assert len(heats) == 4 and hooks(network) == before
    assert all(parameter.grad is None for parameter in network.parameters())
    for heat in heats.values():
        assert heat.shape == size and heat.min() >= 0 and heat.max() <= 1
    assert max(heat.std() for heat in heats.values()) > 0.05
    frozen.requires_grad = True


@pytest.mark.parametrize('kind', ['classification', 'upernet'])
def test_maps_change_with_the_class(model, kind):
    network, image = model(kind), an_image()
    logits = network(image, mode='tensor')
    present = logits[0].flatten(1).argmax(0).unique() if kind == 'upernet' else logits[0].topk(2).indices
    with stage_layers(network.backbone) as layers:
        maps = [
            cam.heat_map(cam.explain(network, image, label=int(label)), layers[4], image, 'hirescam')
            for label in present[:2]
        ]
    assert len(maps) == 2 and np.abs(maps[0] - maps[1]).max() > 0.1


def test_a_segmentors_target_is_the_mean_logit_of_its_pixels(model):
    network, image = model('semantic_fpn'), an_image()
    classes = ['background'] + [f'c{i}' for i in range(network.decode_head.num_classes - 1)]
    with torch.no_grad():
        logits = network(image, mode='tensor')
        explained = cam.explain(network, image, classes)
        label = classes.index(explained.title.split('"')[1])
        pixels = logits[0].argmax(0) == label
        assert explained.target(explained.network(image)[0]) == pytest.approx(logits[0, label][pixels].mean().item())
        counts = torch.bincount(logits[0].argmax(0).flatten(), minlength=len(classes))
        assert label == 1 + counts[1:].argmax(), 'the largest class but the background'
        absent = int((counts == 0).nonzero()[0])
        with pytest.raises(cam.NothingFound, match=f'no pixel to "{classes[absent]}"'):
            cam.explain(network, image, classes, absent)


def test_a_detectors_target_is_the_logits_of_its_boxes(model):
    network, image = model('detection'), an_image(64, 96)
    explained = cam.explain(network, image, min_score=0.0)
    with torch.no_grad():
        logits = explained.network(image)
        assert logits.shape == (1, len(explained.labels), network.roi_head.bbox_head.num_classes + 1)
        # The same by MMDetection's own function for the head.
        boxes = torch.from_numpy(explained.boxes)
        regions = torch.cat([torch.zeros(len(boxes), 1), boxes], 1)
        theirs = network.roi_head._bbox_forward(network.extract_feat(image), regions)
        assert torch.allclose(logits[0], theirs['cls_score'], atol=1e-5)
        expected = sum(theirs['cls_score'][i, label].item() for i, label in enumerate(explained.labels))
    assert explained.target(logits[0]).item() == pytest.approx(expected, rel=1e-4)
    one = cam.explain(network, image, label=int(explained.labels[0]), min_score=0.0)
    assert set(one.labels) == {explained.labels[0]} and len(one.labels) <= len(explained.labels)
    with pytest.raises(cam.NothingFound, match='detects nothing with a score of at least 1.1'):
        cam.explain(network, image, min_score=1.1)


def test_classes_by_name_and_number():
    assert cam.find_class(None, None, 3) is None
    assert cam.find_class('7', tuple('9876'), 4) == 2, 'a name before a number'
    assert cam.find_class('3', tuple('9876'), 4) == 3 and cam.find_class('2', None, 3) == 2
    for wrong in ('4', 'cat', '-1'):
        with pytest.raises(UserError, match=f'--class {wrong} is neither .* from 0 to 3: 9, 8, 7, 6'):
            cam.find_class(wrong, tuple('9876'), 4)


def test_models_without_such_results():
    with pytest.raises(UserError, match='Conv2d: heat maps are for'):
        cam.explain(nn.Conv2d(3, 3, 1), an_image())
    with pytest.raises(UserError, match='Conv2d: heat maps are for'):
        cam.count_classes(nn.Conv2d(3, 3, 1))


def test_the_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(UserError, match='pip install grad-cam'):
        cam.library()
