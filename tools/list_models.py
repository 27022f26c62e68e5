"""Print the published classifiers that a backbone can start from."""

import argparse

from nextvit_mm.utils.command import run_command
from nextvit_mm.weights.zoo import ZOO


def list_models() -> None:
    print(f'{"name":<24} {"trained on":<15} {"size":>4} {"top-1":>6}  on the Hugging Face hub')
    for name, entry in ZOO.items():
        print(f'{name:<24} {entry.data:<15} {entry.size:>4} {entry.top1:>6}  {entry.hub_repo}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    run_command(list_models, parser)


if __name__ == '__main__':
    main()
