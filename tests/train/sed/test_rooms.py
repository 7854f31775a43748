"""Impulse responses: the direct sound first, and the decay that was asked for."""

import numpy as np
import pytest

from soundpost.train.sed.rooms import RoomSettings, impulse_response

RATE = 16_000


def rt60(response):
    """Twice the time from -5 to -35 dB of Schroeder's backward integral (ISO 3382)."""
    decay = np.cumsum(np.square(response[::-1], dtype=float))[::-1]
    decay_db = 10 * np.log10(decay / decay[0])
    first, last = (int(np.argmax(decay_db < level)) for level in (-5, -35))
    return 2 * (last - first) / RATE


@pytest.mark.parametrize("seconds", [0.2, 0.4])
def test_decays_as_long_as_asked(seconds):
    settings = RoomSettings(rt60_s=(seconds, seconds))
    found = [rt60(impulse_response(settings, (0, 0), room, 0, RATE)) for room in (1, 2)]
    # Sabine's formula assumes a diffuse field, which a small box is not.
    assert np.mean(found) == pytest.approx(seconds, rel=0.4)


def test_begins_with_the_direct_sound_and_is_the_same_again():
    settings = RoomSettings(rt60_s=(0.12, 0.15))
    responses = [impulse_response(settings, (0, 0), 0, place, RATE) for place in range(3)]
    for response in responses:
        # No reflection is louder than the direct sound in a room that absorbs this much.
        assert np.argmax(np.abs(response)) <= 1
    impulse_response.cache_clear()
    np.testing.assert_array_equal(impulse_response(settings, (0, 0), 0, 0, RATE), responses[0])
    assert not np.array_equal(responses[0], responses[1])
