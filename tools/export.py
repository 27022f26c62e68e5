"""Export a trained model, folded and verified, to ONNX, OpenVINO, Core ML, TensorRT or torch.export."""

import argparse

from nextvit_mm.deploy.export import export
from nextvit_mm.deploy.options import ExportOptions
from nextvit_mm.utils.command import add_options, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a detector, segmentor or classifier')
    parser.add_argument(
        'checkpoint', nargs='?', help="its weights (default, for a backbone: what the config's init_cfg names)"
    )
    add_options(parser, ExportOptions)
    run_command(export, parser)


if __name__ == '__main__':
    main()
