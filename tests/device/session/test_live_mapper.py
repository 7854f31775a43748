"""Maps in a thread: the same as without one while somebody looks, none while nobody does."""

from __future__ import annotations

import time

import numpy as np

from soundpost.device.array.acoustic_image import AcousticImager
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.live_images import LiveImages, LiveMap, live_settings
from soundpost.device.audio import AudioBlock
from soundpost.device.session.calibrated_array import CalibratedArray
from soundpost.device.session.live_mapper import LiveMapper

RATE_HZ, N_MICS = 16_000, 6
IMAGER = AcousticImager(vogel_spiral(N_MICS), ImageGrid(4, 6), live_settings(RATE_HZ))
ARRAY = CalibratedArray(IMAGER, tuple(range(N_MICS)), ())


def blocks(seconds: float) -> list[AudioBlock]:
    sound = np.random.default_rng(3).normal(0, 0.1, (round(seconds * RATE_HZ), N_MICS))
    parts = np.array_split(sound.astype(np.float32), round(50 * seconds))
    firsts = np.cumsum([0, *map(len, parts)])
    return [
        AudioBlock(part, int(first), RATE_HZ) for part, first in zip(parts, firsts, strict=False)
    ]


def wait_for(mapper: LiveMapper, count: int) -> LiveMap:
    until_s = time.monotonic() + 60
    while mapper.count < count:
        assert time.monotonic() < until_s, f"{mapper.count} of {count} maps"
        mapper.latest()
        time.sleep(0.005)
    found = mapper.latest()
    assert found is not None
    return found


def test_maps_are_those_of_the_sound() -> None:
    sound = blocks(1.0)
    live = LiveImages(IMAGER)
    expected = [one for block in sound for one in live.push(block)]
    assert len(expected) == 11
    mapper = LiveMapper(ARRAY)
    assert mapper.latest() is None
    for block in sound:
        mapper.offer(block)
        # As sound does, no faster than it is taken.
        ready = sum(one.sample + 667 <= block.first_sample + len(block.samples) for one in expected)
        found = wait_for(mapper, ready) if ready else None
        if found is not None:
            assert found.sample == expected[ready - 1].sample
            np.testing.assert_array_equal(found.energy, expected[ready - 1].energy)
    mapper.close()
    assert mapper.count == len(expected)


def test_while_nobody_looks_nothing_is_made() -> None:
    mapper = LiveMapper(ARRAY)
    for block in blocks(1.0):
        mapper.offer(block)
    time.sleep(0.2)
    assert (mapper.count, mapper.maps_per_second) == (0, 0.0)
    mapper.close()


def test_an_array_that_does_not_fit_ends_the_maps_and_nothing_else() -> None:
    mapper = LiveMapper(ARRAY)
    mapper.latest()
    until_s = time.monotonic() + 60
    while mapper.error is None and time.monotonic() < until_s:
        mapper.offer(AudioBlock(np.zeros((100, 2), np.float32), 0, RATE_HZ))
        time.sleep(0.005)
    assert "a block of 2 channels" in str(mapper.error)
    mapper.offer(AudioBlock(np.zeros((100, 2), np.float32), 0, RATE_HZ))
    mapper.close()
