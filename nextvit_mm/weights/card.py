"""The model card of a published file."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

TASKS = dict(
    mmdet=('object-detection', 'mmdetection'),
    mmseg=('image-segmentation', 'mmsegmentation'),
    mmpretrain=('image-classification', 'mmpretrain'),
)


def write_card(repo: str, file: str, meta: Mapping[str, Any]) -> str:
    """README.md of a repository of the Hugging Face hub.

    Args:
        repo: ``owner/name``.
        file: Name of the file, with its digest.
        meta: What the file holds beside its tensors.
    """
    cfg = Config.fromstring(meta['cfg'], '.py')
    scope = cfg.get('default_scope', '')
    task, library = TASKS.get(scope, ('other', 'mmengine'))
    classes = list((meta.get('dataset_meta') or {}).get('classes') or ())
    lines = ['---', 'library_name: nextvit_mm', f'pipeline_tag: {task}', 'tags:', f'- {library}', '- next-vit', '---']
    lines += ['', f'# {repo.split("/")[-1]}', '']
    lines += [f'{cfg.model.get("type", "A model")} with Next-ViT ({_arch(cfg)}) as backbone, trained with nextvit_mm.']
    lines += ['', '| | |', '|---|---|', f'| file | `{file}`, here `model.safetensors` |']
    lines += [f'| classes | {len(classes)}: {", ".join(map(str, classes[:100]))}{" …" if len(classes) > 100 else ""} |']
    for name in ('epoch', 'iter'):
        if meta.get(name):
            lines.append(f'| {name} | {meta[name]} |')
    if meta.get('metrics'):
        lines += ['', '## Results', '', 'Measured on the validation data while it trained.', '']
        lines += ['| metric | value |', '|---|---|', *(f'| {k} | {v:.4g} |' for k, v in meta['metrics'].items())]
    lines += ['', '## Use', '', '```python', 'from nextvit_mm.inference import load_predictor', '']
    lines += [f"predict = load_predictor('hf-hub:{repo}')", "result = predict('photo.jpg')"]
    lines += ["predict.draw('photo.jpg', result).save('drawn.png')", '```', '']
    lines += [
        'The file holds the whole config. It is also a checkpoint for `load_from`, `tools/test.py` and export.',
        '',
    ]
    return '\n'.join(lines)


def _arch(cfg: Config) -> str:
    arch = (cfg.model.get('backbone') or {}).get('arch', 'small')
    return arch if isinstance(arch, str) else 'an arch of its own'
