"""Make the demo data set: handwritten digits on photographs, in COCO's, in ADE20K's and in ImageNet's layout."""

import argparse
from dataclasses import fields
from pathlib import Path

from nextvit_mm.demo import DigitClassesConfig, DigitsConfig, make_digit_classes, make_digits

CLASSES = DigitClassesConfig()
EPILOG = f"""
The classification set takes the seed alone: {CLASSES.train:,} and {CLASSES.val} pictures, one digit on each,
{CLASSES.size}×{CLASSES.size} pixels.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=DigitsConfig.__doc__ + EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out_dir', nargs='?', default='data/digits', help='folder to write (default: %(default)s)')
    for field in fields(DigitsConfig):
        parser.add_argument(
            f'--{field.name.replace("_", "-")}', type=field.type, default=field.default, help='default: %(default)s'
        )
    args = vars(parser.parse_args())
    out_dir = args.pop('out_dir')
    try:
        made = make_digits(out_dir, DigitsConfig(**args))
        made = make_digit_classes(Path(out_dir, 'imagenet'), DigitClassesConfig(seed=args['seed'])) or made
    except (ValueError, FileExistsError) as error:
        parser.exit(2, f'{parser.prog}: {error}\n')
    print(f'{out_dir}: {"made" if made else "already there, made with the same settings"}')


if __name__ == '__main__':
    main()
