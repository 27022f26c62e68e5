"""Count the parameters and multiply-adds of a config's model: what it has, and as the paper counted."""

import argparse
import json

from mmengine.config import DictAction

from nextvit_mm.adapt import use_nextvit
from nextvit_mm.benchmark.complexity import count_complexity
from nextvit_mm.training.config import load_config
from nextvit_mm.utils.command import BACKBONE, run_command
from nextvit_mm.utils.tables import format_table


def complexity(
    config: str, size: list[int] | None, cfg_options: dict | None, as_json: bool, backbone: str | None
) -> None:
    if size and len(size) == 1:
        size = 2 * size
    cfg = load_config(config, cfg_options)
    found = count_complexity(use_nextvit(cfg, backbone, options=cfg_options) if backbone else cfg, size)
    if as_json:
        print(
            json.dumps(
                dict(
                    config=config,
                    **{key: value for key, value in vars(found).items() if key != 'parts'},
                    parts=[vars(part) for part in found.parts],
                ),
                indent=2,
            )
        )
        return
    lines = [(part.name, part.params, part.flops) for part in found.parts]
    lines += [
        ('whole model', found.params, found.flops),
        ('as the paper counts', found.published_params, found.published_flops),
    ]
    print(f'{config}, one image of {found.size[0]}×{found.size[1]}')
    cells = [[name, f'{params / 1e6:.2f}', f'{flops / 1e9:.2f}'] for name, params, flops in lines]
    print(format_table(['', 'params (M)', 'multiply-adds (G)'], cells))
    if found.not_run:
        print(f'not run for one image, and so without multiply-adds: {", ".join(found.not_run)}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a detector, segmentor or classifier')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        metavar='N',
        help='height and width of the image, or its side '
        '(default: 800 1280 for detection, 512 2048 for segmentation, 224 for classification)',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
    )
    parser.add_argument('--json', dest='as_json', action='store_true', help='print JSON')
    parser.add_argument('--backbone', **BACKBONE)
    run_command(complexity, parser)


if __name__ == '__main__':
    main()
