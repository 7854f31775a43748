"""The lag between flashes and clicks whose times are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.calibration.sync import (
    find_clicks,
    find_flashes,
    frame_brightness,
    measure_sync,
)
from soundpost.device.errors import InputError

RATE_HZ = 16_000
FRAME_S = 1 / 25
EVENTS_S = np.array([1.013, 2.27, 3.391, 5.02, 6.64, 7.977])


def clicks(times_s, seconds=9.0, seed=0):
    rng = np.random.default_rng(seed)
    samples = 0.002 * rng.standard_normal(round(seconds * RATE_HZ))
    decay = np.exp(-np.arange(480) / 80)
    for time_s in times_s:
        first = round(time_s * RATE_HZ)
        samples[first : first + 480] += 0.5 * decay * np.cos(np.arange(480))
    return samples.astype(np.float32)


def brightness(times_s, seconds=9.0):
    """Of frames whose exposure is the whole time from frame to frame, stamped with its middle."""
    middles = (np.arange(round(seconds / FRAME_S)) + 0.5) * FRAME_S
    level = 40 + np.random.default_rng(1).normal(0, 1, len(middles))
    for time_s in times_s:
        level[int(time_s / FRAME_S)] += 180
    return level, middles


def test_clicks_are_found_to_a_sample():
    found = find_clicks(clicks(EVENTS_S), RATE_HZ)
    assert len(found) == len(EVENTS_S)
    assert np.abs(found - EVENTS_S).max() < 2 / RATE_HZ


def test_what_follows_at_once_is_the_same_event():
    """An echo 80 ms later is no second click, nor a flash that flickers a second one."""
    sound = clicks(EVENTS_S)
    echo = np.roll(sound, round(0.08 * RATE_HZ)) / 2
    found = find_clicks(sound + echo, RATE_HZ)
    assert len(found) == len(EVENTS_S)
    assert np.abs(found - EVENTS_S).max() < 2 / RATE_HZ
    level, middles = brightness(EVENTS_S)
    again, _ = brightness(EVENTS_S + 2 * FRAME_S)
    seen = find_flashes(np.maximum(level, again), middles)
    assert len(seen) == len(EVENTS_S)
    # The middle of both.
    assert np.abs(seen - FRAME_S - EVENTS_S).max() <= FRAME_S / 2 + 0.01


def test_a_flash_is_found_in_its_frame():
    found = find_flashes(*brightness(EVENTS_S))
    assert len(found) == len(EVENTS_S)
    assert np.abs(found - EVENTS_S).max() <= FRAME_S / 2 + 1e-9


@given(st.floats(-0.4, 0.4), st.integers(0, 2**32 - 1))
def test_the_lag_is_known_to_its_uncertainty(late_s, seed):
    """Whatever flashes hit whichever frames: within three standard uncertainties, distance taken
    away, with a click too many and a flash too many."""
    rng = np.random.default_rng(seed)
    events = np.cumsum(rng.uniform(0.9, 1.7, 8)) + 1
    heard = np.sort(np.append(events + late_s + 2 / 343.2, rng.uniform(0, 14)))
    seen = np.floor(np.append(events, rng.uniform(0, 14)) / FRAME_S) * FRAME_S + FRAME_S / 2
    found = measure_sync(np.sort(seen), heard, FRAME_S, distance_m=2.0, sound_m_s=343.2)
    assert len(found.flashes_s) >= 7
    assert abs(found.audio_late_s - late_s) < 4 * found.uncertainty_s
    assert found.uncertainty_s < 0.01


@pytest.mark.parametrize("distance_m", [0.0, 2.0, 68.64])
def test_the_way_of_the_sound_is_no_lag(distance_m):
    """At 343.2 m/s; what is left is the lag to the bit, and no surer than frames are long."""
    heard = EVENTS_S + 0.05 + distance_m / 343.2
    found = measure_sync(EVENTS_S, heard, FRAME_S, distance_m=distance_m, sound_m_s=343.2)
    assert found.audio_late_s == pytest.approx(0.05, abs=1e-9)
    assert found.spread_s == pytest.approx(0, abs=1e-9)
    assert found.uncertainty_s == pytest.approx(FRAME_S / np.sqrt(12 * 6))


def test_pairs_that_scatter_are_less_sure_than_a_frame():
    late = 0.05 + 0.018 * np.array([1, -1, 1, -1, 1, -1])
    found = measure_sync(EVENTS_S, EVENTS_S + late, FRAME_S, distance_m=0.0, sound_m_s=343.2)
    assert found.spread_s == pytest.approx(0.018 * np.sqrt(6 / 5))
    assert found.uncertainty_s == pytest.approx(0.018 / np.sqrt(5))


def test_signals_to_lag():
    level, middles = brightness(EVENTS_S)
    found = measure_sync(
        find_flashes(level, middles),
        find_clicks(clicks(EVENTS_S + 0.123), RATE_HZ),
        FRAME_S,
        distance_m=0.0,
        sound_m_s=343.2,
    )
    assert found.audio_late_s == pytest.approx(0.123, abs=3 * found.uncertainty_s)
    assert found.uncertainty_s == pytest.approx(FRAME_S / np.sqrt(12 * 6), rel=0.5)


@pytest.mark.parametrize(
    ("flashes_s", "clicks_s", "message"),
    [
        (EVENTS_S[:2], EVENTS_S, "2 flashes in the video; expected at least 3"),
        (EVENTS_S, EVENTS_S[:1], "1 clicks in the audio"),
        (EVENTS_S, EVENTS_S + 30, "0 flashes have a click within 2 s"),
    ],
)
def test_too_few_pairs_are_refused(flashes_s, clicks_s, message):
    with pytest.raises(InputError, match=message):
        measure_sync(flashes_s, clicks_s, FRAME_S, distance_m=1.0, sound_m_s=343.2)


def test_brightness_is_that_of_the_brightest_part():
    frame = np.full((48, 64), 30, np.uint8)
    frame[24:27, 8:12] = 200
    assert frame_brightness(frame) == 200
    assert find_flashes(np.full(2, 40.0), np.array([0.0, 0.04])).size == 0
    assert find_clicks(np.zeros(8, np.float32), RATE_HZ).size == 0
