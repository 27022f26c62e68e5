"""The Fourier spectrum of feature maps.

A map x of height H and width W is transformed channel by channel, as it is: no mean is taken out and no window laid
over it, so that a map whose opposite edges differ also shows the cross that its periodic continuation has:

    F_c(u, v) = Σ_m Σ_n x_c(m, n) exp(−2πi (um/H + vn/W))

A frequency is ω = (2πu/H, 2πv/W), in radians a pixel *of the map*, each component between −π and π; ρ = |ω|. The
amplitude relative to the zero frequency, of all channels together, is

    Δ(ω) = mean over channels of ( ln|F_c(ω)| − ln|F_c(0)| )

that is, the logarithm comes before the mean, so that every channel counts alike, however large its values. It is 0 at
ω = 0; −2.3 is a tenth of the zero frequency's amplitude. Amplitudes below 10⁻⁶ of the channel's greatest are taken as
that (what single precision resolves), and channels that are zero everywhere are left out.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FLOOR = 1e-6  # of a channel's greatest amplitude
CUTOFF = math.pi / 2  # what Shares calls high: beyond half of what a map can hold along one axis
ROUNDING = 1e-6  # a frequency of the cut-off itself is not above it


def log_amplitude(maps: Tensor) -> np.ndarray:
    """Δ of one picture's maps, the zero frequency in the middle.

    Args:
        maps: (C, H, W).

    Returns:
        np.ndarray: (H, W), natural logarithm; ω = 0 is at [H // 2, W // 2]. NaN where every channel is zero.
    """
    amplitude = torch.fft.fft2(maps.float()).abs()  # (C, H, W)
    amplitude = amplitude[amplitude.flatten(1).amax(1) > 0]
    if not len(amplitude):
        return np.full(maps.shape[-2:], np.nan)
    log = amplitude.clamp_min(FLOOR * amplitude.flatten(1).amax(1)[:, None, None]).log()
    relative = (log - log[:, :1, :1]).mean(0)  # (H, W)
    return torch.fft.fftshift(relative).cpu().double().numpy()


def frequencies(height: int, width: int) -> np.ndarray:
    """ρ of every place of a map from :func:`log_amplitude`: (H, W), radians a pixel, 0 to √2 π."""
    down, across = (np.fft.fftshift(np.fft.fftfreq(side)) * 2 * math.pi for side in (height, width))
    return np.hypot(down[:, None], across[None, :])


def radial_average(log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over all orientations: over rings of the frequency plane, of width 2π / min(H, W).

    What lies beyond π, in the corners of the plane, is in no ring.

    Args:
        log: (H, W), from :func:`log_amplitude`.

    Returns:
        tuple[np.ndarray, np.ndarray]: The rings' frequencies (K,), 0 to π, K = min(H, W) // 2 + 1, and the means (K,).
    """
    side = min(log.shape)
    ring = np.rint(frequencies(*log.shape) * side / (2 * math.pi)).astype(int)
    inside = ring <= side // 2
    sums = np.bincount(ring[inside], weights=log[inside])
    return np.arange(len(sums)) * 2 * math.pi / side, sums / np.bincount(ring[inside])


class Shares(NamedTuple):
    """Where the energy of maps lies; both 0 to 1, means over channels.

    Attributes:
        high: Above ``cutoff``, of what varies: Σ_{ρ > cutoff} |F_c(ω)|² / Σ_{ρ > 0} |F_c(ω)|². NaN where no channel
            varies.
        zero: At the zero frequency, of all: |F_c(0)|² / Σ_ω |F_c(ω)|²; that of the channels' means. NaN where every
            channel is zero.
    """

    high: float
    zero: float


def shares(maps: Tensor, cutoff: float = CUTOFF) -> Shares:
    """Shares of energy of one picture's maps.

    Args:
        maps: (C, H, W).
        cutoff: Radians a pixel.
    """
    energy = torch.fft.fft2(maps.float()).abs() ** 2  # (C, H, W)
    rho = torch.from_numpy(np.fft.ifftshift(frequencies(*maps.shape[-2:]))).to(energy.device)
    whole, varying = energy.flatten(1).sum(1), energy[:, rho > 0].sum(1)
    # A constant channel has nothing but rounding outside the zero frequency.
    varies = varying > FLOOR**2 * whole * rho.numel()
    high = energy[:, rho > cutoff + ROUNDING].sum(1)
    return Shares(_mean(high[varies] / varying[varies]), _mean((energy[:, 0, 0] / whole)[whole > 0]))


def share_of_noise(height: int, width: int, cutoff: float = CUTOFF) -> float:
    """What :attr:`Shares.high` is for white noise: the share of the frequencies themselves (1 − π/16 in the limit)."""
    rho = frequencies(height, width)
    return float((rho > cutoff + ROUNDING).sum() / (rho > 0).sum())


def average_curves(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of curves (frequencies, values) of maps of any sizes, on the finest one's frequencies."""
    grid = max((frequency for frequency, _ in curves), key=len)
    values = [np.interp(grid, frequency, value) for frequency, value in curves]
    return grid, np.mean(values, axis=0)


def average_maps(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of maps from :func:`log_amplitude` of any sizes, on the frequencies of the largest height and width."""
    shape = tuple(max(sides) for sides in zip(*(m.shape for m in maps)))
    return np.mean([_resample(m, shape) for m in maps], axis=0)


def _resample(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Linear in each frequency."""
    for axis, side in enumerate(shape):
        if values.shape[axis] != side:
            old, new = (np.fft.fftshift(np.fft.fftfreq(n)) for n in (values.shape[axis], side))
            values = np.apply_along_axis(partial(np.interp, new, old), axis, values)
    return values


class Spectra:
    """Spectra of one place of a network over many pictures."""

    def __init__(self) -> None:
        self.maps: list[np.ndarray] = []
        self.shares: list[Shares] = []
        self.shape: tuple[int, ...] = ()

    def add(self, maps: Tensor) -> None:
        """Take in the maps (C, H, W) of one picture."""
        self.maps.append(log_amplitude(maps))
        self.shares.append(shares(maps))
        self.shape = tuple(maps.shape)

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies and Δ, mean over orientations, channels and pictures."""
        return average_curves([radial_average(m) for m in self.maps])

    @property
    def map(self) -> np.ndarray:
        """Δ over the plane, mean over channels and pictures."""
        return average_maps(self.maps)

    @property
    def mean_shares(self) -> Shares:
        """Means over pictures; those whose maps are constant or zero are left out."""
        return Shares(
            *(_mean(torch.tensor([value for value in values if not math.isnan(value)])) for values in zip(*self.shares))
        )


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) else math.nan
