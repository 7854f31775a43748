"""Events of a sound that lasts, from its scores to those who listen to the broker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.bundle import open_bundle
from soundpost.device.clock import SampleClock
from soundpost.device.detection import ClassSettings
from soundpost.device.detector import EventDetector
from soundpost.device.event_reporter import EventReporter
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.pipeline import Pipeline
from soundpost.device.publisher import Publisher
from soundpost.device.subscriber import Subscriber
from soundpost.device.topics import Topics

RATE_HZ = 16_000
WINDOW, HOP = 16_240, 8_000


def until_heard(received: list[SoundEvent], n: int) -> None:
    deadline_s = time.monotonic() + 30
    while len(received) < n:
        assert time.monotonic() < deadline_s, [(event.phase, event.report) for event in received]
        time.sleep(0.01)


def test_a_steady_alarm_is_heard_of_as_long_as_it_sounds(mosquitto: Any, tiny_bundle: Path) -> None:
    """Its scores are all the same; each of its messages arrives, however often it is delivered."""
    bundle, interpreter, _ = open_bundle(tiny_bundle)
    clock = SampleClock(RATE_HZ)
    clock.update(0, time.monotonic())
    pipeline = Pipeline(bundle, interpreter, RATE_HZ)
    model = ModelRef("tiny", "1", "0" * 64)
    reporter = EventReporter("porch-pi", "mic0", uuid7(), model, pipeline, clock, None)
    detector = EventDetector([ClassSettings("smoke_alarm")], WINDOW, HOP, RATE_HZ)
    events = []
    for number in range(150):
        score = np.array([0.9997 if number < 130 else 0.0], np.float32)
        events += [reporter.event(found) for found in detector.update(number * HOP, score)]
    assert [event.phase for event in events] == ["start", *["update"] * 6, "end"]
    assert [event.report for event in events] == list(range(8))
    assert len({event.score for event in events}) == 1
    received: list[SoundEvent] = []
    settings = BrokerSettings(port=mosquitto.port)
    with (
        Subscriber(settings, received.append) as subscriber,
        Publisher(settings, Topics("soundpost", "porch-pi")) as publisher,
    ):
        subscriber.wait_connected(20)
        publisher.wait_connected(20)
        for event in events:
            publisher.publish_event(event)
            publisher.publish_event(event)
        assert publisher.flush(20)
        until_heard(received, len(events))
        time.sleep(0.2)
    assert received == events
