"""Time-domain beams against signals that are known between their samples, and the fast routes."""

import numpy as np
import pytest

from soundpost.device.array.beamforming import arrival_delays, snapshot_spectra
from soundpost.device.array.delay_and_sum import delay_and_sum, fractional_advance
from soundpost.device.array.fast_path import SeparableBeamformer
from soundpost.device.array.general_path import SteeredBeamformer
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.errors import InputError

RATE_HZ = 12_288.0


def test_whole_samples_are_moved_and_nothing_else():
    samples = np.random.default_rng(0).standard_normal((2, 50))
    advances = np.array([[0, 0], [3, 3], [-4, -4], [5, -2]])
    beams = delay_and_sum(samples, advances / RATE_HZ, RATE_HZ)
    mean = samples.mean(axis=0)
    assert beams[0] == pytest.approx(mean, abs=1e-12)
    assert beams[1] == pytest.approx(np.append(mean[3:], np.zeros(3)), abs=1e-12)
    assert beams[2] == pytest.approx(np.append(np.zeros(4), mean[:-4]), abs=1e-12)
    apart = np.append(samples[0, 5:], np.zeros(5)) + np.append(np.zeros(2), samples[1, :-2])
    assert beams[3] == pytest.approx(apart / 2, abs=1e-12)


@pytest.mark.parametrize("frequency_hz", [100.0, 2_000.0, 5_000.0])
def test_parts_of_a_sample_are_as_between_the_samples_of_a_tone(frequency_hz):
    n = np.arange(400)
    turn = 2 * np.pi * frequency_hz / RATE_HZ
    delays = np.array([[0.37, -2.5, 11.91]])
    samples = np.cos(turn * (n - delays.T))
    beam = delay_and_sum(samples, delays / RATE_HZ, RATE_HZ)[0]
    inside = slice(60, 340)
    assert beam[inside] == pytest.approx(np.cos(turn * n[inside]), abs=1e-4)


def test_a_filter_reads_as_many_samples_as_asked_for():
    taps, first = fractional_advance(np.array([0.25, -7.75]), 32)
    assert first == -8 - 16
    assert [np.count_nonzero(row) for row in taps] == [32, 32]
    # A constant stays what it is.
    assert taps.sum(axis=1) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("route", ["fast", "general"])
def test_the_frequency_domain_gives_the_same_image(route):
    """Noise from two directions and of the microphones, both ways, from 200 to 5,000 Hz."""
    array, grid = vogel_spiral(40), ImageGrid(8, 10)
    rng = np.random.default_rng(1)
    delays_s = arrival_delays(array, grid, 343.2)
    # The window is softer than any delay is long: what leaves the snapshot at its ends is nothing.
    window = np.hanning(1_024)
    samples = 0.1 * rng.standard_normal((40, 1_024))
    for pixel in (12, 55):
        spectrum = np.fft.rfft(rng.standard_normal(1_024))
        turns = np.outer(delays_s[pixel], np.arange(513) * RATE_HZ / 1_024)
        samples += np.fft.irfft(spectrum * np.exp(-2j * np.pi * turns))
    samples = samples.astype(np.float32)

    padded = np.pad(samples * window, ((0, 0), (64, 64)))
    sound = delay_and_sum(padded, delays_s, RATE_HZ)
    bins = range(17, 417)
    # The same bins of 12 Hz, from a Fourier transform that is not shorter than the signal
    turns = np.outer(np.arange(-64, 1_088) / 1_024, bins)
    expected = np.abs(sound @ np.exp(-2j * np.pi * turns)) ** 2

    spectra = snapshot_spectra(samples[None], window.astype(np.float32)) / np.float32(40)
    if route == "fast":
        beams = SeparableBeamformer(array, grid, np.arange(40), 12.0, 512, 343.2)
    else:
        beams = SteeredBeamformer(delays_s, 12.0, 512)
    found = np.concatenate([power[:, :, 0].copy() for _, power in beams.power(spectra, bins)])
    # The filters' ripple is 1e-4; the widest delay moves the window by 8 samples of 1,024.
    assert np.abs(found.T - expected).max() < 5e-4 * expected.max()
    energy = expected.sum(axis=1)
    assert set(np.argsort(energy)[-2:]) == {12, 55}
    assert found.sum(axis=0) == pytest.approx(energy, rel=2e-3)


@pytest.mark.parametrize(
    ("samples", "delays", "n_taps", "message"),
    [
        (np.zeros((3, 9)), np.zeros((2, 4)), 32, "expected \\(n_mics, n_samples\\)"),
        (np.zeros(9), np.zeros((2, 4)), 32, "expected \\(n_mics, n_samples\\)"),
        (np.zeros((3, 9)), np.zeros((2, 3)), 7, "n_taps 7; expected an even number"),
    ],
)
def test_what_does_not_fit_is_refused(samples, delays, n_taps, message):
    with pytest.raises(InputError, match=message):
        delay_and_sum(samples, delays, RATE_HZ, n_taps)
