"""Spectra of networks over pictures, computed and printed."""

import math
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..errors import UserError
from . import figures, hooks
from .networks import Network
from .spectrum import Spectra, share_of_noise

BRANCHES = dict(low='E-MHSA branch', high='MHCA branch', mhsa='E-MHSA alone', mhca='MHCA alone')


def run_network(network: Network, picture: np.ndarray, see=None) -> dict[int, torch.Tensor]:
    """Each stage's map (1, C, h, w) of one picture, as :func:`.hooks.run` finds it.

    Raises:
        UserError: The network does not take pictures of that size.
    """
    image = network.prepare(picture)
    try:
        return hooks.run(network.backbone, image, network.channels_last, see)
    except (RuntimeError, ValueError, AssertionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip('.')
        raise UserError(
            f'{network.name} does not take pictures of {image.shape[3]}×{image.shape[2]}: {why}. Give '
            '--size HEIGHT WIDTH'
        ) from error


def depths(network: Network, pictures: Sequence[np.ndarray]) -> figures.Depths:
    """Spectra of every block and stage."""
    blocks: dict[tuple[int, int], Spectra] = {}
    stages: dict[int, Spectra] = {}
    with torch.no_grad():
        for picture in progress(pictures, network.name):
            maps = run_network(
                network,
                picture,
                lambda block, found: blocks.setdefault((block.stage, block.number), Spectra()).add(found[0]),
            )
            for stage, found in maps.items():
                stages.setdefault(stage, Spectra()).add(found[0])
    curves = blocks or stages
    shares = {
        stage: (100 * spectra.mean_shares.high, 100 * share_of_noise(*spectra.shape[1:]))
        for stage, spectra in stages.items()
    }
    print(
        f'{network.title}: share of energy above π/2 after each stage: '
        + ', '.join(f'{stage}: {share:.1f} % (white noise {noise:.1f} %)' for stage, (share, noise) in shares.items())
    )
    return figures.Depths(
        network.title,
        [spectra.curve for spectra in curves.values()],
        [
            (f'stage {stage}: {spectra.shape[0]} × {spectra.shape[2]}×{spectra.shape[1]}', spectra.map)
            for stage, spectra in stages.items()
        ],
    )


def branch_spectra(network: Network, pictures: Sequence[np.ndarray]) -> dict[hooks.Block, dict[str, Spectra]]:
    """Spectra of what happens inside every NTB, by the names of :data:`BRANCHES`."""
    ntbs = hooks.find_ntbs(network.backbone)
    if not ntbs:
        raise UserError(f'{network.name} has no Next Transformer Blocks for --branches')
    found: dict[hooks.Block, dict[str, Spectra]] = {ntb: {} for ntb in ntbs}

    def see(block: hooks.Block, seen: hooks.Branches) -> None:
        for name, maps in seen._asdict().items():
            if maps is not None:
                found[block].setdefault(name, Spectra()).add(maps[0])

    with torch.no_grad(), hooks.watch_branches(ntbs, see):
        for picture in progress(pictures, network.name):
            run_network(network, picture)
    return found


def splits(spectra: dict[hooks.Block, dict[str, Spectra]]) -> list[figures.Split]:
    splits = []
    for block, found in spectra.items():
        height, width = next(iter(found.values())).shape[1:]
        curves = {name: found[name].curve if name in found else None for name in BRANCHES}
        splits.append(
            figures.Split(
                f'stage {block.stage}, block {block.number}: {width}×{height}',
                **curves,
                shares={name: one.mean_shares for name, one in found.items()},
                noise=share_of_noise(height, width),
            )
        )
    return splits


def print_branches(networks: Sequence[tuple[Network, dict[hooks.Block, dict[str, Spectra]]]]) -> None:
    """Tables: shares of energy of every NTB, and on how many pictures MHCA's is the greater."""
    for field, heading in (
        ('high', 'energy above π/2, % of what varies (all but the zero frequency)'),
        ('zero', 'energy at the zero frequency, % of all'),
    ):
        print(f'{heading}; means over channels and pictures')
        print(
            f'{"":<24}{"map":>8}'
            + ''.join(f'{name:>15}' for name in BRANCHES.values())
            + f'{"white noise" if field == "high" else "":>13}   pictures with more in MHCA: branch, alone'
        )
        for network, spectra in networks:
            print(f'  {network.title}')
            for block, found in spectra.items():
                height, width = next(iter(found.values())).shape[1:]
                print(
                    f'{f"    stage {block.stage}, block {block.number}":<24}{f"{width}×{height}":>8}'
                    + ''.join(
                        f'{100 * getattr(found[name].mean_shares, field):>15.1f}' if name in found else f'{"–":>15}'
                        for name in BRANCHES
                    )
                    + (f'{100 * share_of_noise(height, width):>13.1f}' if field == 'high' else f'{"":>13}')
                    + '   '
                    + ', '.join(_more(found, *pair, field) for pair in (('low', 'high'), ('mhsa', 'mhca')))
                )


def _more(found: dict[str, Spectra], low: str, high: str, field: str) -> str:
    """On how many pictures the second of two has the greater share."""
    if low not in found or high not in found:
        return '–'
    pairs = [(getattr(a, field), getattr(b, field)) for a, b in zip(found[low].shares, found[high].shares)]
    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
    return f'{sum(b > a for a, b in pairs)} of {len(pairs)}'


def progress(items: Sequence, what: str) -> Iterator:
    """The items, counted on stderr where that is a terminal."""
    for i, item in enumerate(items, start=1):
        if sys.stderr.isatty():
            print(f'\r{what}: {i}/{len(items)}', end='' if i < len(items) else '\r\033[K', file=sys.stderr, flush=True)
        yield item
