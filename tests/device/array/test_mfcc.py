"""Filters and coefficients of the published constants, by librosa, scipy and by hand."""

import numpy as np
import pytest
import scipy.fft

from soundpost.device.array.mfcc import MelSettings, log_mel, mel_filters, mfcc, mfcc_matrix
from soundpost.device.errors import InputError

PUBLISHED = MelSettings()
BY_FREQUENCY = MelSettings(layout="frequency")


def corners(filters):
    """Bins where filters begin, peak and end."""
    peaks = filters.argmax(axis=1)
    outer = [np.flatnonzero(row)[[0, -1]] + [-1, 1] for row in filters]
    return [
        (int(low), int(peak), int(high)) for (low, high), peak in zip(outer, peaks, strict=True)
    ]


def test_published_corners_are_where_512_bins_up_to_6400_hz_put_them():
    # 26 equal steps of mel from 0 to 2610.8: 104.43 mel are 68 Hz, 208.9 mel 142.6 Hz, ...; a bin
    # is 6400 / 511 = 12.52 Hz.
    found = corners(mel_filters(PUBLISHED, 512, 12_288.0))
    assert found[0] == (0, 5, 11)
    assert found[1] == (5, 11, 17)
    # mel 2401.9 is 5197.1 Hz, 2506.4 is 5769.7 Hz
    assert found[-1] == (415, 460, 511)
    # Whatever the rate
    assert found == corners(mel_filters(PUBLISHED, 512, 12_800.0))


def test_corners_are_equal_steps_of_mel_as_librosa_has_them():
    import librosa

    edges_hz = librosa.mel_frequencies(26, fmin=0.0, fmax=6_400.0, htk=True)
    expected = np.floor(edges_hz * 511 / 6_400 + 1e-6).astype(int)
    found = corners(mel_filters(PUBLISHED, 512, 12_288.0))
    assert found == list(zip(expected, expected[1:], expected[2:], strict=False))
    by_frequency = np.minimum(np.floor(edges_hz / 12.0 + 1e-6).astype(int), 511)
    found = mel_filters(BY_FREQUENCY, 512, 12_288.0)
    assert found.argmax(axis=1).tolist() == by_frequency[1:-1].tolist()


def test_filters_are_triangles_that_share_each_bin_out():
    filters = mel_filters(PUBLISHED, 512, 12_288.0)
    assert filters.shape == (24, 512)
    assert (filters.max(axis=1) == 1).all()
    first, last = filters.argmax(axis=1)[[0, -1]]
    assert filters.sum(axis=0)[first : last + 1] == pytest.approx(1.0, abs=1e-6)
    for row, (low, peak, high) in zip(filters, corners(filters), strict=True):
        bins = np.arange(512)
        assert row == pytest.approx(np.interp(bins, [low, peak, high], [0, 1, 0]), abs=1e-6)


def test_corners_beyond_the_last_bin_lie_on_it():
    filters = mel_filters(MelSettings(layout="frequency", high_hz=20_000.0), 512, 12_288.0)
    assert filters.shape == (24, 512)
    assert filters.any(axis=1).all()
    assert corners(filters)[0][0] == 0
    # 6,132 Hz, the last bin, and not beyond
    assert filters[-1].argmax() == 511


def test_the_matrix_is_a_scaled_and_liftered_cosine_transform():
    matrix = mfcc_matrix(PUBLISHED)
    transform = scipy.fft.dct(np.eye(24), type=2, norm="ortho", axis=0)[1:13]
    lifter = matrix @ transform.T
    assert lifter == pytest.approx(np.diag(np.diag(lifter)), abs=1e-4)
    # 1 + 11 sin(pi m / 22) for m = 1, 2, 11, 12
    assert np.diag(lifter)[[0, 1, 10, 11]] == pytest.approx(
        [2.565463, 4.099064, 12.0, 11.888036], abs=1e-4
    )


def test_one_microphone_in_float64_by_another_road():
    samples = 0.2 * np.random.default_rng(0).standard_normal(1_024)
    power = np.abs(np.fft.rfft(samples)[:512]) ** 2
    edges_hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 6400 / 700), 26) / 2595) - 1)
    edges = np.floor(edges_hz / 6_400 * 511 + 1e-6)
    energies = [power @ np.interp(np.arange(512), edges[i : i + 3], [0, 1, 0]) for i in range(24)]
    logarithm = np.log(np.maximum(np.array(energies) * 2.0**46, 1e-3))
    cepstrum = scipy.fft.dct(logarithm, type=2, norm="ortho")[1:13]
    expected = cepstrum * (1 + 11 * np.sin(np.pi * np.arange(1, 13) / 22))
    found = mfcc(power.astype("f4"), PUBLISHED, 12_288.0)
    assert found == pytest.approx(expected, abs=2e-4)


def test_a_gain_changes_no_coefficient_and_silence_has_none():
    power = np.random.default_rng(1).random((3, 4, 512)).astype("f4")
    found = mfcc(power, PUBLISHED, 12_288.0)
    assert found.shape == (3, 4, 12)
    assert mfcc(power * np.float32(1e-6), PUBLISHED, 12_288.0) == pytest.approx(found, abs=1e-3)
    assert mfcc(np.zeros((2, 512), "f4"), PUBLISHED, 12_288.0) == pytest.approx(0.0, abs=2e-3)


def test_the_floor_is_a_thousandth_at_24_bits():
    # ln(1e-3 / 2^46)
    quiet = log_mel(np.array([-1.0, 0.0, 1e-18, 1.0], "f4"), PUBLISHED)
    assert quiet == pytest.approx([-38.792524, -38.792524, -38.792524, 0.0], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_coefficients": 24}, "expected fewer coefficients than filters"),
        ({"low_hz": 7_000.0}, "low_hz 7000, high_hz 6400"),
        ({"high_hz": float("inf")}, "high_hz inf"),
        ({"layout": "htk"}, "layout 'htk'; expected 'published' or 'frequency'"),
        ({"floor": 0.0}, "floor 0"),
        ({"full_scale": float("nan")}, "full_scale nan"),
        ({"lifter": 0}, "lifter 0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        MelSettings(**changes)


def test_the_published_layout_is_refused_at_another_rate():
    with pytest.raises(InputError, match=r"'published' at 48000 Hz; expected about 12800 Hz"):
        mel_filters(PUBLISHED, 512, 48_000.0)
    assert mel_filters(BY_FREQUENCY, 512, 48_000.0).any(axis=1).all()
    with pytest.raises(InputError, match="lies beyond the last bin"):
        mel_filters(MelSettings(layout="frequency", low_hz=4_500.0), 512, 8_000.0)
