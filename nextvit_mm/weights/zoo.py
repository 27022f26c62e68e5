"""The published ImageNet classifiers by name."""
from typing import Dict, List, NamedTuple


class ZooEntry(NamedTuple):
    """One published classifier: its ``arch``, and the repository of the Hugging Face hub that holds it."""
    arch: str
    hub_repo: str


HUB_FILE = 'model.safetensors'
_TRAININGS = {'in1k': 'bd_in1k', 'in1k-384': 'bd_in1k_384', '6m': 'bd_ssld_6m_in1k', '6m-384': 'bd_ssld_6m_in1k_384'}

ZOO: Dict[str, ZooEntry] = {
    f'nextvit-{arch}_{ours}': ZooEntry(arch, f'timm/nextvit_{arch}.{hub}')
    for arch in ('small', 'base', 'large') for ours, hub in _TRAININGS.items()
}


def list_models() -> List[str]:
    """Names of the published classifiers, as ``init_cfg=dict(type='Pretrained', checkpoint=NAME)`` takes them."""
    return list(ZOO)
