"""Convert a weights file of Next-ViT between the authors', timm's and this project's names."""

import argparse

from nextvit_mm.utils.command import run_command
from nextvit_mm.weights.convert import convert_file
from nextvit_mm.weights.keys import DIALECTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source',
        metavar='SRC',
        help='a file, an address, hf-hub:owner/name[@revision][:file], or '
        'the name of published weights (tools/list_models.py)',
    )
    parser.add_argument('target', metavar='DST', help='the file to write, .safetensors or .pth; it must not exist')
    parser.add_argument('--to', choices=DIALECTS, required=True, help='whose names')
    run_command(lambda **args: print(convert_file(**args)), parser)


if __name__ == '__main__':
    main()
