"""What a daemon that really listens tells those who watch it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.bundle import open_bundle
from soundpost.device.daemon import Daemon
from soundpost.device.errors import CaptureError
from soundpost.device.monitor import Monitor
from soundpost.device.monitor_socket import MAX_LINE_BYTES, MONITOR_SCHEMA, socket_path, watch
from soundpost.device.plan import LevelPlan, SourcePlan
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

DEVICE = "porch-pi"
RATE_HZ = 16_000


def plan_of(bundle_path: Path, wav: Path, name: str = "mic0", **more: Any) -> SourcePlan:
    """A source that hears a file in real time; of the tiny student's labels, `clap` is noise."""
    bundle, interpreter, _ = open_bundle(bundle_path)
    clap, alarm, drops = bundle.manifest.classes
    classes = (replace(clap, min_gap_s=0.3), alarm, replace(drops, onset=0.99))
    options = {"realtime": True, "loop": True}
    return SourcePlan(name, f"file:{wav}", bundle, interpreter, classes, options=options, **more)


def recording(path: Path, sound: Any) -> Path:
    soundfile.write(path, sound, RATE_HZ, subtype="FLOAT")
    return path


@pytest.fixture
def listen(tmp_path: Path, start_mosquitto: Any) -> Iterator[Callable[..., Monitor]]:
    """Function that starts a daemon on these sources, watched by a monitor."""
    stops: list[Callable[[], object]] = []
    broker = start_mosquitto()

    def start(*plans: SourcePlan) -> Monitor:
        publisher = Publisher(BrokerSettings(port=broker.port), Topics("soundpost", DEVICE)).start()
        publisher.wait_connected(30)
        monitor = Monitor(DEVICE, publisher, folder=tmp_path / "run")
        daemon = Daemon(plans, DEVICE, publisher, [monitor])
        monitor.start(lambda: daemon.plans)
        daemon.start()
        stops.extend([daemon.stop, daemon.wait, monitor.close, publisher.close])
        return monitor

    yield start
    for stop in stops:
        stop()


def records(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with closing(watch(socket_path(tmp_path / "run", DEVICE), 60)) as lines:
        for line in lines:
            assert len(line) < MAX_LINE_BYTES
            yield json.loads(line)


def first(found: Iterator[dict[str, Any]], met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline_s = time.monotonic() + 60
    for record in found:
        if met(record):
            return record
        assert time.monotonic() < deadline_s, record
    raise AssertionError("the monitor ended")


def test_scores_levels_events_and_states_of_what_is_heard(
    listen: Callable[..., Monitor], tiny_bundle: Path, tmp_path: Path
) -> None:
    noise = 0.3 * np.random.default_rng(8).standard_normal((4 * RATE_HZ, 2)).clip(-3, 3)
    noise[:, 1] = 0
    wav = recording(tmp_path / "noise.wav", noise)
    listen(plan_of(tiny_bundle, wav, channel=0, levels=LevelPlan(interval_s=1.0)))
    found = records(tmp_path)
    record = first(
        found,
        lambda record: (
            bool(record["sources"][0]["open"])
            and record["sources"][0]["level"] is not None
            and record["sources"][0]["rms_dbfs"] is not None
        ),
    )
    assert record["schema"] == MONITOR_SCHEMA
    assert record["device"] == DEVICE
    assert record["broker"]["state"] == "connected"
    assert record["uptime_s"] > 0
    source = record["sources"][0]
    assert (source["source"], source["state"], source["rate_hz"]) == ("mic0", "ok", RATE_HZ)
    assert source["windows"] > 0
    clap = source["scores"][0]
    # What the tiny student makes of noise; see the fixture tiny_bundle.
    assert clap["label"] == "clap"
    assert clap["score"] == pytest.approx(0.70, abs=0.05)
    assert [score["score"] for score in source["scores"]] == sorted(
        (score["score"] for score in source["scores"]), reverse=True
    )
    (event,) = source["open"]
    assert event["label"] == "clap"
    assert event["since_s"] >= 0
    # Of the channel that is listened to; the levels are of some blocks of noise, within a dB.
    rms_dbfs = 10 * math.log10(2 * float(np.mean(noise[:, 0] ** 2)))
    assert source["rms_dbfs"] == pytest.approx(rms_dbfs, abs=1.0)
    assert source["peak_dbfs"] <= 20 * math.log10(np.abs(noise).max() / math.sqrt(0.5)) + 0.1
    assert source["level"]["laeq_db"] < source["level"]["lafmax_db"]
    found.close()


def test_several_sources_and_the_end_of_an_event(
    listen: Callable[..., Monitor], tiny_bundle: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(8)
    burst = np.concatenate([0.3 * rng.standard_normal(2 * RATE_HZ), np.zeros(3 * RATE_HZ)])
    heard = plan_of(tiny_bundle, recording(tmp_path / "burst.wav", burst.clip(-1, 1)), "porch")
    quiet = plan_of(tiny_bundle, recording(tmp_path / "quiet.wav", np.zeros(RATE_HZ)), "attic")
    listen(heard, quiet)
    found = records(tmp_path)
    first(found, lambda record: bool(record["sources"][0]["open"]))
    record = first(found, lambda record: not record["sources"][0]["open"])
    assert [source["source"] for source in record["sources"]] == ["porch", "attic"]
    assert record["sources"][1]["open"] == []
    found.close()


def test_nothing_is_computed_while_nobody_watches(
    listen: Callable[..., Monitor], tiny_bundle: Path, tmp_path: Path
) -> None:
    wav = recording(tmp_path / "noise.wav", 0.1 * np.ones(RATE_HZ))
    monitor = listen(plan_of(tiny_bundle, wav))
    known = monitor._known("mic0")
    deadline_s = time.monotonic() + 60
    while known.windows < 4:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert (known.n_samples, known.peaks) == (0, None)
    found = records(tmp_path)
    # The first line tells at once what was known before.
    assert next(found)["sources"][0]["scores"]
    assert first(found, lambda record: record["sources"][0]["rms_dbfs"] is not None)
    found.close()
    while monitor._watched:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    windows = known.windows
    while known.windows < windows + 4:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert (known.n_samples, known.peaks) == (0, None)


def test_a_source_that_is_lost_has_no_scores_of_before(
    listen: Callable[..., Monitor], tiny_bundle: Path, tmp_path: Path
) -> None:
    wav = recording(tmp_path / "noise.wav", 0.1 * np.ones(RATE_HZ))
    monitor = listen(plan_of(tiny_bundle, wav))
    found = records(tmp_path)
    first(found, lambda record: bool(record["sources"][0]["scores"]))
    found.close()
    known = monitor._known("mic0")
    monitor.lost("mic0", CaptureError("unplugged"))
    assert (known.window, known.opened, known.open_events) == (None, None, {})


def test_a_place_where_no_socket_can_be_made_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").write_text("a file, not a folder")
    publisher = Publisher(BrokerSettings(port=1), Topics("soundpost", DEVICE))
    monitor = Monitor(DEVICE, publisher, folder=tmp_path / "run").start(dict)
    assert "soundpost top cannot watch this sensor: " in caplog.text
    monitor.close()
    first_one = Monitor(DEVICE, publisher, folder=tmp_path / "free").start(dict)
    second = Monitor(DEVICE, publisher, folder=tmp_path / "free").start(dict)
    assert "another sensor of this name runs" in caplog.text
    second.close()
    assert socket_path(tmp_path / "free", DEVICE).exists()
    first_one.close()
    assert os.listdir(tmp_path / "free") == []  # noqa: PTH208
