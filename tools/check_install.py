"""See whether torch, mmcv's operators, the MM packages and nextvit_mm work together; say what to do where not."""

import contextlib
import importlib
import importlib.metadata
import sys
import traceback


def main() -> None:
    problems = check_mmcv_ops() + check_packages()
    for problem in problems:
        print(f'PROBLEM: {problem}')
    sys.exit(1 if problems else 0)


def check_mmcv_ops() -> list[str]:
    """Run NMS and RoIAlign, which detectors need, on the CPU and on the GPU where there is one."""
    try:
        import mmcv
        import torch
    except ImportError as error:
        return [f'{error}: install it (requirements/tested.txt has versions that work together)']
    pip = f'{sys.executable} -m pip'
    rebuild = (
        f'build it for this torch:  {pip} uninstall -y mmcv; {pip} cache remove mmcv; '
        f'MMCV_WITH_OPS=1 {pip} install --no-build-isolation mmcv=={mmcv.__version__}'
    )
    with contextlib.suppress(ImportError):  # check_packages() says so
        import nextvit_mm  # noqa: F401  (gives its operators to an mmcv without compiled ones)
    try:
        from mmcv.ops import RoIAlign, nms
    except ModuleNotFoundError as error:  # no compiled operators, and none from torchvision; the error says why
        return [f'{error}; or {rebuild}']
    except (ImportError, OSError) as error:
        first = str(error).splitlines()[0]
        return [
            f'mmcv {mmcv.__version__} has compiled operators that do not load with torch {torch.__version__} '
            f'({first}); {rebuild}; or replace mmcv with mmcv-lite, for which nextvit_mm takes them from torchvision'
        ]
    print(operators_in_use())
    for device in ['cpu'] + ['cuda'] * torch.cuda.is_available():
        try:
            boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.1], [8.0, 8.0, 9.0, 9.0]], device=device)
            kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)[1].tolist()
            rois = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]], device=device)
            pooled = RoIAlign(2, 1.0)(torch.ones(1, 1, 8, 8, device=device), rois).flatten().tolist()
        except RuntimeError as error:
            return [f"mmcv's ops do not run on {device} ({str(error).splitlines()[0]}); {rebuild}"]
        if kept != [0, 2] or pooled != [1.0] * 4:
            return [f"mmcv's ops give wrong results on {device} (nms {kept}, RoIAlign {pooled}); {rebuild}"]
    return []


def operators_in_use() -> str:
    """Which of mmcv's operators there are, and where they come from."""
    module = importlib.import_module('mmcv._ext')
    sources = getattr(module, 'SOURCES', None)
    if sources is None:
        return f"mmcv's operators: compiled, {module.__file__}"
    return '; '.join(
        ["mmcv's operators, given by nextvit_mm"]
        + [
            f'from {library}: {", ".join(name for name in sorted(sources) if sources[name] == library)}'
            for library in sorted(set(sources.values()))
        ]
    )


def check_packages() -> list[str]:
    """Import every package; each of the MM ones refuses, in its own words, an mmcv that it does not fit."""
    problems = []
    versions = []
    for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'nextvit_mm'):
        try:
            versions.append(f'{name} {importlib.import_module(name).__version__}')
        except (ImportError, AssertionError) as error:
            problems.append(f'{name} does not import ({error}); requirements/tested.txt has versions that fit together')
    print(', '.join(versions))
    return problems or check_models()


def check_models() -> list[str]:
    """Import the models of the MM packages too: what they find in other packages may be too new for them."""
    for name in ('mmpretrain', 'mmdet', 'mmseg'):  # MMDetection imports MMPretrain's
        try:
            importlib.import_module(f'{name}.models')
        except Exception as error:
            what = f'the models of {name} do not import ({type(error).__name__}: {error})'
            if 'multimodal' in traceback.format_exc():
                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    version, pip = importlib.metadata.version('transformers'), f'{sys.executable} -m pip'
                    return [
                        f"{what}: transformers {version} is too new for MMPretrain's models of texts; {pip} uninstall "
                        f'transformers, or {pip} install transformers==4.46.3'
                    ]
            return [f'{what}; requirements/tested.txt has versions that fit together']
    return []


if __name__ == '__main__':
    main()
