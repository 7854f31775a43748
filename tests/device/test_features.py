"""Log-mel: equal for any cut of the stream, and equal to librosa's."""

import math
from itertools import pairwise

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd, LogMelStream, hamming_window, log_mel, mel_filters

FRONT_END = FrontEnd()


def noise(n, seed=0, scale=0.1):
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def librosa_log_mel(samples, front_end):
    """librosa centres the window in its FFT frame: 56 samples earlier than ours."""
    side = (front_end.fft_length - front_end.window_length) // 2
    spectrum = librosa.stft(
        np.pad(samples, (side, side)).astype(np.float64),
        n_fft=front_end.fft_length,
        hop_length=front_end.hop_length,
        win_length=front_end.window_length,
        window="hamming",
        center=False,
    )
    filters = librosa.filters.mel(
        sr=front_end.sample_rate_hz,
        n_fft=front_end.fft_length,
        n_mels=front_end.n_mels,
        fmin=front_end.fmin_hz,
        fmax=front_end.fmax_hz,
        htk=True,
        norm=None,
    )
    values = np.log(filters @ np.abs(spectrum) + front_end.log_offset)
    return np.clip(values, front_end.clamp_low, front_end.clamp_high).T


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.1, 1.0])
def test_equals_librosa(scale):
    samples = noise(48_000, scale=scale).clip(-1, 1)
    ours = log_mel(samples, FRONT_END)
    theirs = librosa_log_mel(samples, FRONT_END)
    np.testing.assert_allclose(ours, theirs[: len(ours)], atol=2e-4)


def test_other_settings_equal_librosa():
    front_end = FrontEnd(
        sample_rate_hz=22_050,
        window_length=551,
        hop_length=220,
        fft_length=1_025 - 1,
        n_mels=40,
        fmin_hz=50,
        fmax_hz=11_000,
        log_offset=1e-6,
        clamp_low=-5.0,
        clamp_high=2.0,
    )
    samples = noise(30_000)
    # An odd window cannot stand in the middle of an even frame: compare magnitudes of our own DFT.
    ours = log_mel(samples, front_end)
    n = np.arange(551)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * n / 551)
    k = np.arange(513)
    basis = np.exp(-2j * np.pi * np.outer(n, k) / 1024)
    filters = librosa.filters.mel(
        sr=22_050, n_fft=1024, n_mels=40, fmin=50, fmax=11_000, htk=True, norm=None
    )
    for i in (0, 1, 57, len(ours) - 1):
        frame = samples[220 * i : 220 * i + 551] * window
        expected = np.clip(np.log(filters @ np.abs(frame @ basis) + 1e-6), -5.0, 2.0)
        np.testing.assert_allclose(ours[i], expected, atol=2e-4)


def test_mel_filters_equal_librosa():
    theirs = librosa.filters.mel(
        sr=16_000, n_fft=512, n_mels=64, fmin=125, fmax=7_500, htk=True, norm=None
    )
    np.testing.assert_allclose(mel_filters(FRONT_END).T, theirs, atol=1e-6)


def test_window_is_periodic():
    window = hamming_window(FRONT_END)
    assert window[0] == pytest.approx(0.08)
    assert window[200] == pytest.approx(1.0)
    np.testing.assert_allclose(window[1:], window[1:][::-1], atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    n_samples=st.integers(0, 40_000),
    cuts=st.lists(st.integers(0, 40_000), max_size=40),
    group=st.sampled_from([1, 2, 5, 25]),
)
def test_streamed_equals_whole_for_any_cut(n_samples, cuts, group):
    samples = noise(n_samples, seed=n_samples)
    whole = log_mel(samples, FRONT_END)
    stream = LogMelStream(FRONT_END, group)
    edges = [0, *sorted(min(cut, n_samples) for cut in cuts), n_samples]
    parts = [stream.push(samples[a:b]) for a, b in pairwise(edges)]
    streamed = np.concatenate(parts)
    assert all(len(part) % group == 0 for part in parts)
    assert len(streamed) == len(whole) - len(whole) % group
    # Equal to the last bit, not nearly: thresholds would otherwise depend on block sizes.
    np.testing.assert_array_equal(streamed, whole[: len(streamed)])


def test_reset_forgets_the_past():
    stream = LogMelStream(FRONT_END)
    stream.push(noise(1_000))
    stream.reset()
    np.testing.assert_array_equal(stream.push(noise(5_000, 1)), log_mel(noise(5_000, 1), FRONT_END))


def test_a_patch_spans_16240_samples():
    assert FRONT_END.samples_of(100) == 16_240
    assert len(log_mel(np.zeros(16_240, np.float32), FRONT_END)) == 100
    assert len(log_mel(np.zeros(16_239, np.float32), FRONT_END)) == 99
    assert len(log_mel(np.zeros(399, np.float32), FRONT_END)) == 0


def test_a_sine_lands_in_its_band():
    n = np.arange(16_000)
    mels = 2595 * np.log10(1 + np.array([125.0, 7_500.0]) / 700)
    for hz in (440.0, 1_000.0, 3_100.0):
        frames = log_mel((0.5 * np.sin(2 * np.pi * hz * n / 16_000)).astype(np.float32), FRONT_END)
        step = (mels[1] - mels[0]) / 65
        band = (2595 * math.log10(1 + hz / 700) - mels[0]) / step - 1
        assert abs(frames.mean(0).argmax() - band) <= 1


def test_values_stay_in_the_fixed_range():
    for samples in (np.zeros(16_240, np.float32), np.ones(16_240, np.float32), noise(16_240, 0, 9)):
        frames = log_mel(samples, FRONT_END)
        assert frames.min() >= FRONT_END.clamp_low
        assert frames.max() <= FRONT_END.clamp_high + 1e-6


def test_hash_follows_every_parameter():
    assert FrontEnd.from_dict(FRONT_END.to_dict()) == FRONT_END
    changed = {
        "sample_rate_hz": 22_050,
        "window_length": 480,
        "hop_length": 150,
        "fft_length": 1_024,
        "n_mels": 40,
        "fmin_hz": 60.0,
        "fmax_hz": 7_000.0,
        "log_offset": 1e-2,
        "clamp_low": -6.0,
        "clamp_high": 6.0,
    }
    assert set(changed) == set(FRONT_END.to_dict())
    hashes = {
        FrontEnd.from_dict(FRONT_END.to_dict() | {name: value}).hash()
        for name, value in changed.items()
    }
    assert len(hashes | {FRONT_END.hash()}) == len(changed) + 1


@pytest.mark.parametrize(
    "values",
    [
        {"hop_length": 500},
        {"fmin_hz": 9_000.0},
        {"log_offset": 0.0},
        {"clamp_low": 6.0},
        {"colour": 1},
        {"n_mels": "many"},
        # What a bundle from elsewhere may say; each was more than a machine can compute.
        {"n_mels": 0},
        {"n_mels": 10**6},
        {"fft_length": 2**40},
        {"sample_rate_hz": 2**63},
        {"sample_rate_hz": 10**400},
        {"fmin_hz": 10**400},
        {"clamp_high": 1e6},
        {"log_offset": float("inf")},
        {"é\n" * 10_000: 1},
    ],
)
def test_refuses_what_makes_no_sense(values):
    with pytest.raises(InputError, match="front end") as refused:
        FrontEnd.from_dict(FRONT_END.to_dict() | values)
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()


def test_a_band_between_two_bins_is_refused():
    front_end = FrontEnd.from_dict(FRONT_END.to_dict() | {"fmin_hz": 126.0, "fmax_hz": 126.1})
    with pytest.raises(InputError, match="between two bins"):
        log_mel(np.zeros(1_000, np.float32), front_end)
