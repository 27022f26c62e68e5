"""The published ImageNet classifiers by name."""

from typing import NamedTuple


class ZooEntry(NamedTuple):
    """One published classifier.

    Attributes:
        arch: ``'small'``, ``'base'`` or ``'large'``.
        size: Side of the images it was trained on last, pixels.
        data: What it was trained on.
        top1: Accuracy on ImageNet-1K's validation set in the authors' README, %.
        hub_repo: Repository of the Hugging Face hub that holds it, in timm's names.
    """

    arch: str
    size: int
    data: str
    top1: float
    hub_repo: str


HUB_FILE = 'model.safetensors'
ARCH_NAMES = ('small', 'base', 'large')
# name of ours: name of timm's, image size, data, top-1 of small, base, large
_TRAININGS = {
    'in1k': ('bd_in1k', 224, 'ImageNet-1K', (82.5, 83.2, 83.6)),
    'in1k-384': ('bd_in1k_384', 384, 'ImageNet-1K', (83.6, 84.3, 84.7)),
    '6m': ('bd_ssld_6m_in1k', 224, 'ImageNet-1K-6M', (84.8, 85.1, 85.4)),
    '6m-384': ('bd_ssld_6m_in1k_384', 384, 'ImageNet-1K-6M', (85.8, 86.1, 86.4)),
}

ZOO: dict[str, ZooEntry] = {
    f'nextvit-{arch}_{ours}': ZooEntry(arch, size, data, top1[i], f'timm/nextvit_{arch}.{hub}')
    for i, arch in enumerate(ARCH_NAMES)
    for ours, (hub, size, data, top1) in _TRAININGS.items()
}


def list_models() -> list[str]:
    """Names of the published classifiers, as ``init_cfg=dict(type='Pretrained', checkpoint=NAME)`` takes them."""
    return list(ZOO)
