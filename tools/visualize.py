"""Look into a network: Fourier spectra of its feature maps, class-activation maps, feature maps."""

import argparse

from nextvit_mm.utils.command import add_options, run_command, take_options
from nextvit_mm.visualization.commands import features, heatmap, spectrum
from nextvit_mm.visualization.options import FeaturesOptions, HeatmapOptions, SpectrumOptions

COMMANDS = dict(
    spectrum=(spectrum, SpectrumOptions, 'Fourier spectra of stages, blocks, and the two branches of NTBs'),
    heatmap=(heatmap, HeatmapOptions, 'class-activation maps over pictures'),
    features=(features, FeaturesOptions, 'what each stage makes of one picture'),
)


def run(command: str, **args) -> None:
    function, options, _ = COMMANDS[command]
    function(take_options(options, args))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, (_, options, what) in COMMANDS.items():
        add_options(commands.add_parser(name, help=what), options)
    run_command(run, parser)


if __name__ == '__main__':
    main()
