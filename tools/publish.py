"""Write a checkpoint's weights, config and classes as one .safetensors, and put it on the Hugging Face hub."""

import argparse

from nextvit_mm.utils.command import run_command
from nextvit_mm.weights.publish import publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='what a training wrote')
    parser.add_argument(
        'out', help='name that ends in .safetensors, into which digits of the SHA-256 are put, or a folder'
    )
    parser.add_argument('--config', help="the model's config, for weights that do not hold it")
    parser.add_argument('--push', metavar='OWNER/NAME', help='put it on the Hugging Face hub, with a model card')
    parser.add_argument('--private', action='store_true', help='make the repository of --push a private one')
    run_command(publish, parser)


if __name__ == '__main__':
    main()
