"""Events and delays of frames whose numbers are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from soundpost.device.detector import ClassSettings
from soundpost.device.features import FrontEnd
from soundpost.device.frame_detector import detect_offline
from soundpost.train.sed.device_events import device_events, known_at_s, start_delays_s
from soundpost.train.sed.scenes import Event

FRONT_END = FrontEnd()
DOG = ClassSettings("dog", 0.5, 0.3, "median", 5, 0.0, 0.1)
CAT = ClassSettings("cat", 0.5, 0.3, "none", 1, 0.0, 0.1)


def scores() -> np.ndarray:
    """A dog in frames 100 to 149, a cat in 120 to 129."""
    made = np.zeros((300, 2), np.float32)
    made[100:150, 0] = 0.9
    made[120:130, 1] = 0.8
    return made


def test_events_are_where_the_frames_are() -> None:
    """Frame i stands for 10 ms around 10 i + 12.5 ms."""
    found = {event.label: event for event in device_events(scores(), [DOG, CAT], FRONT_END, 20)}
    assert set(found) == {"dog", "cat"}
    assert found["dog"] == Event("dog", pytest.approx(1.0075), pytest.approx(1.5075))
    assert found["cat"] == Event("cat", pytest.approx(1.2075), pytest.approx(1.3075))


def test_a_start_is_known_when_its_chunk_has_been_heard() -> None:
    starts = {
        found.label: found
        for found in detect_offline(scores(), [DOG, CAT], FRONT_END, 20)
        if found.phase == "start"
    }
    # The dog needs frame 102, in the chunk of 100 to 109, which ends with sample 109 * 160 + 400.
    assert known_at_s(starts["dog"], FRONT_END, 10) == (109 * 160 + 400) / 16_000
    # In chunks of 25, the one of 100 to 124; and the cat's frame 120 is in it too.
    assert known_at_s(starts["dog"], FRONT_END, 25) == (124 * 160 + 400) / 16_000
    assert known_at_s(starts["cat"], FRONT_END, 25) == (124 * 160 + 400) / 16_000
    assert known_at_s(starts["cat"], FRONT_END, 10) == (129 * 160 + 400) / 16_000


def test_delays_are_counted_from_the_labelled_onset() -> None:
    found = detect_offline(scores(), [DOG, CAT], FRONT_END, 20)
    events = [
        Event("cat", 1.1, 1.3),
        # Labelled 0.15 s late, within the collar: known before it was there.
        Event("dog", 1.15, 1.5),
        # Nothing started in these: another label, too late, too early.
        Event("bird", 1.0, 1.5),
        Event("dog", 1.3, 1.5),
        Event("dog", 0.5, 1.0),
    ]
    delays = start_delays_s(found, events, FRONT_END, 10)
    assert delays == pytest.approx([1.315 - 1.1, 1.115 - 1.15])
