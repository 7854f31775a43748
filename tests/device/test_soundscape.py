"""The demo's soundscape holds what it says it holds."""

from __future__ import annotations

import numpy as np
import pytest

from soundpost.device.detection import ClassSettings
from soundpost.device.detector import EventDetector
from soundpost.device.features import FrontEnd, log_mel
from soundpost.device.soundscape import soundscape


@pytest.mark.parametrize("seed", range(6))
def test_both_alarms_are_confirmed_where_they_are(seed: int) -> None:
    samples, events = soundscape(seed, 16_000)
    assert 35 * 16_000 <= len(samples) <= 40 * 16_000
    assert np.max(np.abs(samples)) <= 1.0
    frames = log_mel(samples, FrontEnd())
    classes = [
        ClassSettings("smoke_alarm", cadence="T3"),
        ClassSettings("co_alarm", cadence="T4"),
    ]
    detector = EventDetector(classes, 16_240, 4_000, 16_000)
    found = []
    for index in range((len(samples) - 16_240) // 4_000 + 1):
        # Every window is as likely an alarm as any: the pattern alone must tell.
        patch = frames[25 * index : 25 * index + 100]
        found += detector.update(4_000 * index, np.ones(2, np.float32), patch)
    found += detector.flush()
    truth = {label: (onset, offset) for label, onset, offset in events}
    starts = [(d.label, d.onset_sample / 16_000) for d in found if d.phase == "start"]
    assert [label for label, _ in starts] == ["smoke_alarm", "co_alarm"]
    for label, onset_s in starts:
        assert abs(onset_s - truth[label][0]) < 0.1
    assert truth["smoke_alarm"][1] - truth["smoke_alarm"][0] >= 9.0
    ends = {d.label: d.offset_sample for d in found if d.phase == "end"}
    for label, offset in ends.items():
        assert offset is not None
        assert abs(offset / 16_000 - truth[label][1]) < 0.15


def test_a_seed_is_one_soundscape_and_another_is_another() -> None:
    one, events = soundscape(3, 16_000)
    again, events_again = soundscape(3, 16_000)
    other, _ = soundscape(4, 16_000)
    assert np.array_equal(one, again)
    assert events == events_again
    assert not np.array_equal(one, other)


def test_every_event_stands_out_from_the_room() -> None:
    samples, events = soundscape(1, 16_000)
    room = samples[: round(0.9 * 16_000)].astype(np.float64)
    for label, onset, offset in events:
        part = samples[round(onset * 16_000) : round(offset * 16_000)].astype(np.float64)
        ratio_db = 10 * np.log10(np.mean(part**2) / np.mean(room**2))
        assert ratio_db > 10, label
    assert [event[1] for event in events] == sorted(event[1] for event in events)
