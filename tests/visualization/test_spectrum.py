"""Spectra of maps whose spectrum is known."""

import math

import numpy as np
import pytest
import torch

from nextvit_mm.visualization.spectrum import (
    FLOOR,
    Spectra,
    average_curves,
    average_maps,
    frequencies,
    log_amplitude,
    radial_average,
    share_of_noise,
    shares,
)

NOTHING = math.log(FLOOR)


def wave(periods, side=16, height=16):
    """1 + cos of so many periods from left to right: (1, height, side)."""
    return (1 + torch.cos(2 * math.pi * periods * torch.arange(side) / side)).repeat(1, height, 1)


def noise(channels, height, width):
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(0))


def test_a_constant_map_has_nothing_but_the_zero_frequency():
    log = log_amplitude(torch.full((3, 8, 6), -2.5))
    assert log[4, 3] == 0
    log[4, 3] = NOTHING
    np.testing.assert_allclose(log, NOTHING, atol=1e-6)
    found = shares(torch.full((3, 8, 6), -2.5))
    assert math.isnan(found.high) and found.zero == pytest.approx(1)


@pytest.mark.parametrize('periods, high', [(3, 0), (4, 0), (5, 1)])
def test_a_sinusoid_is_at_its_frequency(periods, high):
    log = log_amplitude(wave(periods))
    # cos = (e^i + e^-i) / 2: half of the zero frequency's amplitude at either sign.
    assert log[8, 8] == 0 and log[8, 8 + periods] == pytest.approx(math.log(0.5), abs=1e-5)
    assert log[8, 8 - periods] == pytest.approx(math.log(0.5), abs=1e-5)
    assert (log > NOTHING + 1).sum() == 3
    frequency, curve = radial_average(log)
    assert frequency[curve > NOTHING + 0.1] == pytest.approx([0, 2 * math.pi * periods / 16])
    found = shares(wave(periods))  # π/2 itself, 4 periods of 16, is not above it
    assert found.high == pytest.approx(high, abs=1e-5)
    assert found.zero == pytest.approx(1 / (1 + 2 / 4), abs=1e-5)


def test_white_noise_is_flat():
    maps = noise(2000, 16, 16)
    frequency, curve = radial_average(log_amplitude(maps))
    assert len(frequency) == 9 and frequency[-1] == pytest.approx(math.pi)
    # ln|F| of a complex normal F is greater than of a real one, at the zero frequency, by ln(2) / 2 in the mean.
    np.testing.assert_allclose(curve[1:], math.log(2) / 2, atol=0.06)
    assert shares(maps).high == pytest.approx(share_of_noise(16, 16), abs=0.003)
    assert shares(maps).zero == pytest.approx(1 / 256, rel=0.1)
    assert share_of_noise(1000, 1000) == pytest.approx(1 - math.pi / 16, abs=1e-3)


def test_every_channel_counts_alike_and_dead_ones_not():
    maps = torch.cat([wave(2), wave(5), noise(2, 16, 16)])
    scaled = maps * torch.tensor([1e-3, 7, 1e4, -2])[:, None, None]
    dead = torch.cat([scaled, torch.zeros(3, 16, 16)])
    expected = np.mean([log_amplitude(maps[i : i + 1]) for i in range(4)], axis=0)
    for other in (maps, scaled, dead):
        np.testing.assert_allclose(log_amplitude(other), expected, atol=1e-3)
        np.testing.assert_allclose(shares(other), shares(maps), atol=1e-5)
    assert np.isnan(log_amplitude(torch.zeros(2, 4, 4))).all() and all(map(math.isnan, shares(torch.zeros(2, 4, 4))))


def test_frequencies_are_radians_a_pixel_also_of_oblong_maps():
    rho = frequencies(8, 32)
    assert rho[4, 16] == 0 and rho[4, 0] == pytest.approx(math.pi)
    assert rho[0, 0] == pytest.approx(math.sqrt(2) * math.pi)
    assert rho[5, 16] == pytest.approx(2 * math.pi / 8) and rho[4, 17] == pytest.approx(2 * math.pi / 32)
    frequency, curve = radial_average(log_amplitude(wave(8, side=32, height=8)))  # π/2 a pixel
    assert frequency[1:][curve[1:].argmax()] == pytest.approx(math.pi / 2)


@pytest.mark.parametrize('shape', [(4, 4), (7, 7), (9, 20)])
def test_rings_hold_every_orientation(shape):
    frequency, mean = radial_average(frequencies(*shape))
    assert len(frequency) == min(shape) // 2 + 1
    assert (np.abs(mean - frequency) < math.pi / min(shape)).all()  # half a ring
    down, across = np.meshgrid(*(np.fft.fftshift(np.fft.fftfreq(side)) for side in shape), indexing='ij')
    for along in (down, across):  # what differs with the orientation only
        slanted = np.divide(along**2, down**2 + across**2, where=down**2 + across**2 > 0, out=np.full(shape, 0.5))
        if shape[0] == shape[1]:
            np.testing.assert_allclose(radial_average(slanted)[1], 0.5, atol=1e-9)


def test_maps_of_several_sizes_have_one_spectrum():
    coarse, fine = (np.linspace(0, math.pi, n) for n in (3, 9))
    frequency, curve = average_curves([(coarse, -coarse), (fine, -3 * fine)])
    np.testing.assert_allclose(frequency, fine)
    np.testing.assert_allclose(curve, -2 * fine)
    peaked = [np.full(shape, -4.0) for shape in ((4, 8), (8, 4))]
    peaked[0][2, 4] = peaked[1][4, 2] = 0
    mean = average_maps(peaked)
    assert mean.shape == (8, 8) and mean[4, 4] == 0 and mean[0, 0] == -4
    spectra = Spectra()
    spectra.add(wave(5))
    spectra.add(torch.zeros(1, 16, 16))
    assert spectra.mean_shares.high == pytest.approx(1, abs=1e-5), 'a picture that leaves the map dead is left out'
