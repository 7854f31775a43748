"""The energy rule on sounds whose times are known by construction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.train.sed.segments import EnergyRule, find_segments

RATE = 16_000
RULE = EnergyRule()


def bursts(spans_s, seconds=5.0, noise_db=-60.0, level_db=-15.0):
    """Noise bursts of equal power on a quieter noise."""
    rng = np.random.default_rng(0)
    sound = rng.standard_normal(round(seconds * RATE)) * 10 ** (noise_db / 20)
    for start, stop in spans_s:
        first, last = round(start * RATE), round(stop * RATE)
        sound[first:last] += rng.standard_normal(last - first) * 10 ** (level_db / 20)
    return sound.astype(np.float32)


@given(
    st.floats(0.1, 1.5),
    st.floats(0.1, 1.0),
    st.floats(0.45, 1.0),
    st.floats(0.1, 1.0),
    st.sampled_from([-80.0, -60.0, -45.0]),
)
def test_bursts_are_found_to_a_window(start, first, pause, second, noise_db):
    spans = [(start, start + first), (start + first + pause, start + first + pause + second)]
    found = find_segments(bursts(spans, noise_db=noise_db), RATE, RULE)
    assert len(found) == 2
    # A window that only partly holds the burst counts, so an edge lies within one window.
    for (a, b), (onset, offset) in zip(found, spans, strict=True):
        assert onset - RULE.window_s <= a / RATE <= onset + RULE.hop_s
        assert offset - RULE.hop_s <= b / RATE <= offset + RULE.window_s


@pytest.mark.parametrize(("pause", "count"), [(0.2, 1), (0.25, 1), (0.4, 2), (1.0, 2)])
def test_a_short_pause_does_not_end_an_event(pause, count):
    sound = bursts([(1.0, 1.5), (1.5 + pause, 3.0)])
    assert len(find_segments(sound, RATE, RULE)) == count


def test_a_sound_as_long_as_its_clip_is_one_event():
    ((first, stop),) = find_segments(bursts([(0.0, 5.0)]), RATE, RULE)
    assert (first, stop) == (0, 5 * RATE)


def test_clicks_weak_bursts_and_silence_are_left_out():
    sound = bursts([(1.0, 1.5), (3.0, 3.01)])
    assert len(find_segments(sound, RATE, RULE)) == 1
    quieter = sound + bursts([(4.0, 4.5)], level_db=-33.0)
    assert len(find_segments(quieter, RATE, RULE)) == 1
    assert find_segments(np.zeros(RATE, np.float32), RATE, RULE) == []
    assert find_segments(np.zeros(10, np.float32), RATE, RULE) == []


def test_padding_with_zeros_is_no_noise_floor():
    """A clip filled up to five seconds, as many are, gives what the clip alone gives."""
    sound = bursts([(0.5, 1.0)], seconds=2.0, noise_db=-35.0)
    padded = np.pad(sound, (0, 3 * RATE))
    assert find_segments(padded, RATE, RULE) == find_segments(sound, RATE, RULE)
