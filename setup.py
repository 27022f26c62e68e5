"""Packaging. Dependencies are ranges: an environment that has torch and the MM packages is left as it is."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
# What OpenMMLab packages ship under <package>/.mim, where `mim` looks for it.
MIM_FILES = ('configs', 'tools', 'model-index.yml')


class BuildPyWithMim(build_py):
    """Puts configs, tools and the model index under ``nextvit_mm/.mim``: links when editable, copies otherwise."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            target = ROOT / 'nextvit_mm' / '.mim'
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            for name in MIM_FILES:
                (target / name).symlink_to(Path('..', '..', name))
            return
        target = Path(self.build_lib) / 'nextvit_mm' / '.mim'
        for name in MIM_FILES:
            for source in sorted((ROOT / name).rglob('*')) if (ROOT / name).is_dir() else [ROOT / name]:
                if source.is_file() and '__pycache__' not in source.parts:
                    destination = target / source.relative_to(ROOT)
                    destination.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, destination)


def version() -> str:
    scope: dict = {}
    exec((ROOT / 'nextvit_mm' / 'version.py').read_text(), scope)
    return scope['__version__']


# Lower bounds are those of requirements/oldest.txt, which `make matrix` runs. torch 2.1 is the newest that ready-made
# wheels of mmcv 2.1 with compiled operators exist for.
MMENGINE = ['mmengine>=0.10.3,<1']
DETECTION = [*MMENGINE, 'mmdet>=3.3,<4']
SEGMENTATION = [*MMENGINE, 'mmsegmentation>=1.2.2,<2', 'ftfy', 'regex']  # the last two it imports, undeclared
CLASSIFICATION = [*MMENGINE, 'mmpretrain>=1.2,<2']
WEIGHTS = ['huggingface_hub>=0.25', 'safetensors>=0.4.3']
DEMO = ['scikit-learn>=1.1.3', 'pillow', 'tqdm', 'pycocotools']
ANALYSIS = ['matplotlib>=3.6']
# Exporters and runtimes: what the tests ran with, since no row of the matrix has older ones.
DEPLOY = [
    'onnx>=1.23',
    'onnxscript>=0.7',
    'onnxruntime>=1.23',
    'openvino>=2026.4',
    'nncf>=3.4',
    'coremltools>=9',
    'pillow',
]
VISUALIZE = ['grad-cam>=1.5', 'timm>=1.0.21', *ANALYSIS]
BENCHMARK = ['timm>=1.0.21', *ANALYSIS, *DEPLOY]
TESTS = ['pytest', 'pytest-xdist', *DEMO, *ANALYSIS, *DEPLOY, *VISUALIZE, *WEIGHTS]

setup(
    name='nextvit_mm',
    version=version(),
    description='Next-ViT as a backbone for MMDetection, MMSegmentation and MMPretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['nextvit_mm', 'nextvit_mm.*']),
    package_data={'nextvit_mm': ['py.typed'], 'nextvit_mm.published': ['data/*', 'data/runs/*']},
    cmdclass=dict(build_py=BuildPyWithMim),
    python_requires='>=3.10',
    # No MM package: pip would install the one that it knows over a continuation under another name (onedl-mmengine),
    # or over an mmcv with compiled operators. nextvit_mm/needed.py looks at them at import.
    install_requires=['torch>=2.1', 'numpy>=1.23.5'],
    extras_require=dict(
        detection=DETECTION,
        segmentation=SEGMENTATION,
        classification=CLASSIFICATION,
        weights=WEIGHTS,
        demo=DEMO + ANALYSIS,
        analysis=ANALYSIS,
        deploy=DEPLOY,
        benchmark=BENCHMARK,
        visualize=VISUALIZE,
        tests=TESTS,
        docs=['mkdocs-material>=9.5', 'mkdocstrings[python]>=0.26'],
        all=[*DETECTION, *SEGMENTATION, *CLASSIFICATION, *TESTS],
    ),
    zip_safe=False,
)
