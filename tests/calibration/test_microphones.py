"""Each fault does what its name says to its own microphone, and nothing to the others."""

import dataclasses
import json

import numpy as np
import pytest

from soundpost.calibration.microphones import Microphones, MicrophoneSettings
from soundpost.device.errors import UsageError

RATE = 12_288
N = 6


def sound():
    """A different sine for each microphone, with soft ends."""
    t = np.arange(6_000) / RATE
    soft = np.hanning(6_000)
    return np.stack(
        [soft * np.sin(2 * np.pi * hz * t) for hz in 300 + 210 * np.arange(N)], 1
    ).astype(np.float32)


def record(microphones, heard, seed=0):
    return microphones.record(heard, RATE, np.random.default_rng(seed))


def with_fault(**fault):
    return dataclasses.replace(Microphones.perfect(N), **fault)


def test_perfect_microphones_change_nothing():
    np.testing.assert_array_equal(record(Microphones.perfect(N), sound()), sound())


def test_gain_polarity_and_death():
    heard = sound()
    gain = np.ones(N)
    gain[1] = 1.25
    inverted, dead = np.arange(N) == 2, np.arange(N) == 3
    found = record(with_fault(gain=gain, inverted=inverted, dead=dead), heard)
    expected = heard * np.array([1, 1.25, -1, 0, 1, 1], np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("delay", [0.37, -2.6, 25.5])
def test_a_delay_is_exact_to_a_fraction_of_a_sample(delay):
    delay_s = np.zeros(N)
    delay_s[4] = delay / RATE
    found = record(with_fault(delay_s=delay_s), sound())
    t = (np.arange(6_000) - delay) / RATE
    # np.hanning between its points.
    soft = 0.5 - 0.5 * np.cos(2 * np.pi * t * RATE / 5_999)
    expected = soft * np.sin(2 * np.pi * (300 + 210 * 4) * t)
    np.testing.assert_allclose(found[50:-50, 4], expected[50:-50], atol=1e-5)
    np.testing.assert_array_equal(np.delete(found, 4, 1), np.delete(sound(), 4, 1))


def test_a_clipped_microphone_gives_no_more_than_its_limit():
    level = np.full(N, np.inf)
    level[0] = 0.25
    found = record(with_fault(clip_level=level), sound())
    np.testing.assert_array_equal(found[:, 0], np.clip(sound()[:, 0], -0.25, 0.25))
    np.testing.assert_array_equal(found[:, 1:], sound()[:, 1:])


def test_a_noisy_microphone_adds_noise_of_its_own():
    rms = np.zeros(N)
    rms[[1, 5]] = 0.1
    added = record(with_fault(noise_rms=rms), sound()) - sound()
    np.testing.assert_allclose(added.std(axis=0), rms, atol=0.005)
    assert abs(np.corrcoef(added[:, 1], added[:, 5])[0, 1]) < 0.05


def test_swapped_microphones_come_on_each_others_channel():
    order = np.array([0, 4, 2, 3, 1, 5])
    gain = np.arange(1.0, N + 1)
    found = record(with_fault(order=order, gain=gain), sound())
    # The fault goes with the microphone, not with the channel.
    np.testing.assert_allclose(found[:, 1], 5 * sound()[:, 4], rtol=1e-6)
    np.testing.assert_allclose(found[:, 4], 2 * sound()[:, 1], rtol=1e-6)


def test_a_drawn_array_has_the_faults_asked_for_each_on_a_microphone_of_its_own():
    settings = MicrophoneSettings(
        gain_db=1.0, delay_s=5e-6, inverted=2, dead=3, noisy=4, clipped=5, swapped=6
    )
    drawn = Microphones.draw(128, settings, seed=3)
    swapped = drawn.order != np.arange(128)
    faults = [
        drawn.inverted,
        drawn.dead,
        drawn.noise_rms > 0,
        np.isfinite(drawn.clip_level),
        swapped,
    ]
    assert [int(fault.sum()) for fault in faults] == [2, 3, 4, 5, 12]
    assert np.sum(faults, axis=0).max() == 1
    np.testing.assert_array_equal(drawn.order[drawn.order], np.arange(128))
    assert np.std(20 * np.log10(drawn.gain)) == pytest.approx(1.0, rel=0.2)
    assert np.std(drawn.delay_s) == pytest.approx(5e-6, rel=0.2)


def test_the_same_seed_draws_the_same_array():
    settings = MicrophoneSettings(gain_db=1.0, dead=2, swapped=1)
    dicts = [Microphones.draw(32, settings, seed).to_dict() for seed in (1, 1, 2)]
    assert dicts[0] == dicts[1] != dicts[2]
    assert json.loads(json.dumps(dicts[0], allow_nan=False)) == dicts[0]


def test_more_faults_than_microphones_are_refused():
    with pytest.raises(
        UsageError, match=r"3 with a fault and 1 swapped pairs; .* the 4 microphones"
    ):
        Microphones.draw(4, MicrophoneSettings(dead=3, swapped=1), seed=0)


def test_records_that_contradict_themselves_are_refused():
    with pytest.raises(UsageError, match=r"delay_s has shape \(3,\); expected \(6,\)"):
        with_fault(delay_s=np.zeros(3))
    with pytest.raises(UsageError, match="each of 0 to 5 once"):
        with_fault(order=np.zeros(6, int))
    with pytest.raises(UsageError, match="6 for sound of 2 channels"):
        record(Microphones.perfect(N), sound()[:, :2])
