"""A page in the browser: drop a picture, see what a model finds in it, where it looks, and its four stages."""

import argparse

from nextvit_mm.app.page import AppOptions, serve
from nextvit_mm.utils.command import add_options, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, AppOptions)
    run_command(lambda **args: serve(AppOptions(**args)), parser)


if __name__ == '__main__':
    main()
