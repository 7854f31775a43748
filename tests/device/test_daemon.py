"""The daemon against a real broker: what it hears arrives, whatever source or broker fails."""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.device.alarms import AlarmSettings, synthesise_alarm
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.bundle import open_bundle
from soundpost.device.clip_store import ClipSettings
from soundpost.device.clips import Clips
from soundpost.device.clock import Moment, clock_synchronised
from soundpost.device.daemon import Daemon
from soundpost.device.detection import ClassSettings
from soundpost.device.disk_outbox import DiskOutbox, OutboxSettings
from soundpost.device.errors import InputError
from soundpost.device.events import SoundEvent
from soundpost.device.microphone import MicrophoneProfile
from soundpost.device.observer import Observer
from soundpost.device.plan import LevelPlan, SourcePlan
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

# Generous: the machine may be busy. Nothing here sleeps for as long as it may take.
PATIENCE_S = 30.0
DEVICE = "porch-pi"


Collect = Callable[[int], Any]


def broker_settings(port: int) -> BrokerSettings:
    return BrokerSettings(port=port, retry_min_s=0.05, retry_max_s=0.2)


@pytest.fixture
def plan(tiny_bundle: Path) -> Callable[..., SourcePlan]:
    """Plan of a source with the tiny student, which hears noise as `clap`."""

    def made(url: object, name: str = "mic0", realtime: bool = False, **more: Any) -> SourcePlan:
        bundle, interpreter, _ = open_bundle(tiny_bundle)
        clap, alarm, drops = bundle.manifest.classes
        classes: tuple[ClassSettings, ...] = (
            replace(clap, min_gap_s=0.3),
            replace(alarm, onset=0.48, release=0.46),
            replace(drops, onset=0.99),
        )
        options = {"realtime": realtime} | more.pop("options", {})
        kinds = ("mic:", "lossy:", "flaky:", "broken:", "stuck:", "holed:")
        options = {} if str(url).startswith(kinds) else options
        return SourcePlan(name, str(url), bundle, interpreter, classes, options=options, **more)

    return made


Plan = Callable[..., SourcePlan]


def noise_between(
    on_s: float, off_s: float, total_s: float, rate_hz: int = 16_000
) -> NDArray[np.float64]:
    sound = np.zeros(round(total_s * rate_hz))
    first, last = round(on_s * rate_hz), round(off_s * rate_hz)
    sound[first:last] = 0.3 * np.random.default_rng(8).standard_normal(last - first)
    return np.clip(sound, -1, 1)


@pytest.fixture
def clap_wav(tmp_path: Path) -> Path:
    """Four seconds at 48 kHz with noise between 1.0 and 2.2 s."""
    path = tmp_path / "clap.wav"
    soundfile.write(path, noise_between(1.0, 2.2, 4.0, 48_000), 48_000)
    return path


def publisher_of(port: int, *plans: SourcePlan) -> Publisher:
    states = [(plan.name, label) for plan in plans for label in plan.bundle.manifest.labels]
    return Publisher(broker_settings(port), Topics("soundpost", DEVICE), states=states)


# ------------------------------------------------------------------------------- what arrives


def test_an_event_arrives_from_its_start_to_its_end(
    mosquitto: Any, collect: Collect, plan: Plan, clap_wav: Path
) -> None:
    collector = collect(mosquitto.port)
    source = plan(clap_wav)
    began = datetime.now(timezone.utc)
    with publisher_of(mosquitto.port, source) as publisher:
        publisher.wait_connected(PATIENCE_S)
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        assert publisher.flush(PATIENCE_S)
        assert not daemon.errors
    ended = datetime.now(timezone.utc)
    collector.wait(lambda: "offline" in collector.of(f"soundpost/{DEVICE}/status"))
    start, end = collector.events()
    assert (start.phase, end.phase) == ("start", "end")
    assert (start.id, start.stream, start.sample) == (end.id, end.stream, end.sample)
    assert start.label == "clap"
    assert start.onset == end.onset
    assert began - timedelta(seconds=4) <= start.onset <= ended
    assert start.time_synced == clock_synchronised()
    assert (start.rate_hz, start.offset) == (48_000, None)
    assert start.sample / 48_000 == pytest.approx(1.0, abs=0.1)
    assert end.duration_s == pytest.approx(1.2, abs=0.2)
    assert start.threshold <= start.score <= end.score <= 1.0
    model = source.bundle.manifest
    assert (start.model.name, start.model.version) == (model.name, model.version)
    assert start.model.sha256 == model.sha256["model.tflite"]
    assert collector.of(f"soundpost/{DEVICE}/status") == ["online", "offline"]
    assert collector.of(f"soundpost/{DEVICE}/mic0/class/clap") == ["OFF", "ON", "OFF"]
    assert collector.of(f"soundpost/{DEVICE}/mic0/class/water drops") == ["OFF"]
    first, *_, last = collector.health()
    assert (first.state, first.reason) == ("ok", None)
    assert (last.state, last.reason) == ("ok", "the source has ended")
    assert (last.gaps, last.overflows, last.dropped) == (0, 0, 0)
    totals = daemon.totals["mic0"]
    assert totals.seconds == pytest.approx(4.0)
    # 0.115 s windows every 0.05 s.
    assert (totals.windows, totals.events) == (78, 1)
    assert len(totals.compute_s) == 78
    assert 0.0 < totals.median_compute_s() < 1.0


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_levels_arrive_by_the_interval_and_events_know_theirs(
    mosquitto: Any, collect: Collect, plan: Plan, tmp_path: Path, rate_hz: int
) -> None:
    path = tmp_path / "clap.wav"
    soundfile.write(path, noise_between(1.0, 2.2, 4.0, rate_hz), rate_hz, subtype="FLOAT")
    calibrated = LevelPlan(2.0, bands=True, profile=MicrophoneProfile("m", -26.0))
    plans = [
        plan(path, "yard", levels=calibrated),
        plan(path, "hall", levels=LevelPlan(60.0)),
        plan(path, "cellar", levels=replace(calibrated, publish=False)),
        plan(path, "attic"),
    ]
    collector = collect(mosquitto.port)
    began = datetime.now(timezone.utc)
    with publisher_of(mosquitto.port, *plans) as publisher:
        publisher.wait_connected(PATIENCE_S)
        daemon = Daemon(plans, DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        assert publisher.flush(PATIENCE_S)
        assert not daemon.errors
    collector.wait(lambda: "offline" in collector.of(f"soundpost/{DEVICE}/status"))
    first, second = collector.levels("yard")
    start, end = collector.events("yard")
    assert (first.stream, first.sample, second.sample) == (start.stream, 0, 2 * rate_hz)
    assert (first.rate_hz, first.interval_s, first.measured_s) == (rate_hz, 2.0, 1.9)
    assert first.calibrated
    assert first.upper_limit_hz == (7_200.0 if rate_hz == 16_000 else None)
    # The file is read faster than in real time, and its clock follows.
    assert second.time > first.time
    assert abs((first.time - began).total_seconds()) < PATIENCE_S
    # Noise of 0.3 rms is -7.4 dBFS; with -26 dBFS at 94 dB, full scale is 120 dB SPL.
    assert first.rms_dbfs == pytest.approx(-7.4 - 10 * np.log10(1.9), abs=0.2)
    assert first.lafmax_db == pytest.approx(120 - 7.4, abs=5)
    assert first.bands_db is not None
    assert (second.l50_db, second.l90_db) != (None, None)
    # An event is as loud as its loudest moment, known from the first message on.
    assert start.level_dba == pytest.approx(first.lafmax_db, abs=6)
    assert end.level_dba == max(first.lafmax_db, second.lafmax_db)
    assert [event.level_dba for event in collector.events("cellar")] == [
        *(start.level_dba, end.level_dba)
    ]
    (whole,) = collector.levels("hall")
    assert (whole.interval_s, whole.calibrated, whole.bands_db) == (4.0, False, None)
    assert whole.lafmax_db == pytest.approx(first.lafmax_db - 120, abs=0.11)
    assert collector.levels("cellar") == collector.levels("attic") == []
    for name in ("hall", "attic"):
        assert {event.level_dba for event in collector.events(name)} == {None}


def test_the_end_of_an_event_names_its_clip_or_says_why_there_is_none(
    mosquitto: Any,
    collect: Collect,
    plan: Plan,
    tmp_path: Path,
    voices: dict[str, NDArray[np.float64]],
) -> None:
    clap, spoken = tmp_path / "clap.wav", tmp_path / "spoken.wav"
    sound = noise_between(1.0, 2.2, 5.0) + 1e-3 * np.random.default_rng(9).standard_normal(80_000)
    soundfile.write(clap, np.clip(sound, -1, 1), 16_000)
    sound[40_000 : 40_000 + 32_000] += voices["en-gb"][:32_000]
    soundfile.write(spoken, np.clip(sound, -1, 1), 16_000)
    clips = Clips(
        ClipSettings(enabled=True, folder=tmp_path / "kept", labels=("clap",), min_free_mb=0.0)
    )
    # At the pace of sound, so that the writer is done before the source ends.
    plans = [plan(clap, "yard", realtime=True), plan(spoken, "hall", realtime=True)]
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, *plans) as publisher:
        publisher.wait_connected(PATIENCE_S)
        daemon = Daemon(plans, DEVICE, publisher, clips=clips)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        assert publisher.flush(PATIENCE_S)
        assert not daemon.errors
    clips.close(PATIENCE_S)
    collector.wait(lambda: "offline" in collector.of(f"soundpost/{DEVICE}/status"))
    for name in ("yard", "hall"):
        start, *_, end = collector.events(name)
        assert (start.phase, start.clip, start.extra) == ("start", None, {})
        assert end.phase == "end"
        assert collector.of(f"soundpost/{DEVICE}/{name}/class/clap") == ["OFF", "ON", "OFF"]
        kept = sorted((tmp_path / "kept").glob(f"*__{name}__clap__{start.id}.flac"))
        assert [path.name for path in kept] == ([end.clip] if name == "yard" else [])
        assert end.extra == ({"clip_reason": "speech"} if name == "hall" else {})
    counts = {name: collector.health(name)[-1].clips for name in ("yard", "hall")}
    nothing = {"written": 0, "gated": 0, "unjudged": 0, "failed": 0}
    assert counts == {
        "yard": nothing | {"written": 1},
        "hall": nothing | {"gated": 1},
    }


def test_what_is_retained_is_for_those_who_come_later(
    mosquitto: Any, collect: Collect, plan: Plan, tmp_path: Path
) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, noise_between(0.2, 60.0, 60.0), 16_000)
    source = plan(path, realtime=True)
    with publisher_of(mosquitto.port, source) as publisher:
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        early = collect(mosquitto.port)
        early.wait(lambda: early.of(f"soundpost/{DEVICE}/mic0/class/clap")[-1:] == ["ON"])
        assert publisher.flush(PATIENCE_S)
        late = collect(mosquitto.port)
        late.wait(lambda: late.of(f"soundpost/{DEVICE}/mic0/class/clap") == ["ON"])
        late.wait(lambda: late.of(f"soundpost/{DEVICE}/status") == ["online"])
        late.wait(lambda: [health.state for health in late.health()] == ["ok"])
        assert late.events() == []
        # Told to stop in the middle of an event, it ends the event and itself.
        told_s = time.monotonic()
        daemon.stop()
        assert daemon.wait(PATIENCE_S)
        stopped_s = time.monotonic() - told_s
        early.wait(lambda: [event.phase for event in early.events()] == ["start", "end"])
        late.wait(lambda: late.of(f"soundpost/{DEVICE}/mic0/class/clap") == ["ON", "OFF"])
    print(f"stopped in {stopped_s:.3f} s")
    assert stopped_s < 1.0


def test_two_sources_do_not_mix(
    mosquitto: Any, collect: Collect, plan: Plan, clap_wav: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.wav"
    soundfile.write(other, noise_between(0.5, 1.0, 1.5), 16_000)
    plans = [plan(clap_wav, "yard"), plan(other, "hall")]
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, *plans) as publisher:
        daemon = Daemon(plans, DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        collector.wait(lambda: len(collector.events("yard") + collector.events("hall")) == 4)
    assert {event.rate_hz for event in collector.events("yard")} == {48_000}
    assert {event.rate_hz for event in collector.events("hall")} == {16_000}
    assert len({event.stream for name in ("yard", "hall") for event in collector.events(name)}) == 2


# ------------------------------------------------------------------------------- brokers that fail


def test_a_broker_that_comes_later_gets_what_was_heard_before(
    mosquitto: Any, collect: Collect, plan: Plan, clap_wav: Path
) -> None:
    mosquitto.kill()
    source = plan(clap_wav)
    with publisher_of(mosquitto.port, source) as publisher:
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        assert publisher.queued == 2
        began_s = time.monotonic()
        mosquitto.start()
        collector = collect(mosquitto.port)
        # The events may have gone to the broker before the collector came; the states are retained.
        collector.wait(lambda: bool(collector.of(f"soundpost/{DEVICE}/mic0/class/clap")))
        assert publisher.flush(PATIENCE_S)
        assert publisher.queued == 0
        print(f"delivered {time.monotonic() - began_s:.2f} s after the broker came")


def test_a_broker_that_is_killed_and_returns_misses_no_event(
    mosquitto: Any, collect: Collect, plan: Plan, tmp_path: Path
) -> None:
    path = tmp_path / "bursts.wav"
    soundfile.write(path, noise_between(0.2, 0.6, 1.2), 16_000)
    source = plan(path, realtime=True, options={"loop": True})
    sent: list[tuple[str, str]] = []

    class Sent(Observer):
        def reported(self, event: SoundEvent, decided_s: float) -> None:
            sent.append((event.id, event.phase))

    received: list[Any] = [collect(mosquitto.port)]

    def keys() -> set[tuple[str, str]]:
        return {(event.id, event.phase) for one in received for event in one.events()}

    with publisher_of(mosquitto.port, source) as publisher:
        daemon = Daemon(
            [source],
            DEVICE,
            publisher,
            [Sent()],
        )
        daemon.start()
        received[0].wait(lambda: len(keys()) >= 2)
        mosquitto.kill()
        deadline_s = time.monotonic() + PATIENCE_S
        while publisher.queued < 3:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        # A listener must be there before the sensor is back: Mosquitto keeps no event for later.
        mosquitto.start()
        received.append(collect(mosquitto.port))
        received[1].wait(lambda: len(keys()) >= 6)
        daemon.stop()
        assert daemon.wait(PATIENCE_S)
        assert publisher.flush(PATIENCE_S)
        received[1].wait(lambda: sent[-1] in keys())
    print(f"{len(sent)} messages, {len(set(sent) - keys())} missed by the listener that came late")
    assert publisher.queued == 0
    assert len(sent) == len(set(sent))
    assert keys() <= set(sent)


# ------------------------------------------------------------------------------- sources that fail


def test_a_source_that_is_not_there_says_so_and_the_other_goes_on(
    mosquitto: Any, collect: Collect, plan: Plan, clap_wav: Path, tmp_path: Path
) -> None:
    plans = [plan(tmp_path / "none.wav", "yard"), plan(clap_wav, "hall")]
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, *plans) as publisher:
        daemon = Daemon(plans, DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        collector.wait(lambda: len(collector.events("hall")) == 2)
        collector.wait(lambda: bool(collector.health("yard")))
    (health,) = collector.health("yard")
    assert health.state == "failed"
    assert health.reason is not None
    assert "none.wav: cannot be read: No such file" in health.reason
    assert list(daemon.errors) == ["yard"]
    assert isinstance(daemon.errors["yard"], InputError)


def test_a_source_that_fails_in_the_middle_leaves_no_alert_on(
    mosquitto: Any, collect: Collect, plan: Plan, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.wav"
    sound = noise_between(0.5, 3.0, 3.0)
    sound[40_000] = np.nan
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    source = plan(path)
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, source) as publisher:
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        collector.wait(lambda: len(collector.events()) == 2)
        assert publisher.flush(PATIENCE_S)
        collector.wait(lambda: any(h.state == "failed" for h in collector.health()))
    assert [event.phase for event in collector.events()] == ["start", "end"]
    assert collector.of(f"soundpost/{DEVICE}/mic0/class/clap")[-1] == "OFF"
    assert "damaged.wav: sample 40000 of channel 0 is nan" in str(collector.health()[-1].reason)


def test_a_channel_that_is_not_there_names_source_and_remedy(
    mosquitto: Any, collect: Collect, plan: Plan, tmp_path: Path
) -> None:
    path = tmp_path / "wide.wav"
    soundfile.write(path, np.zeros((16_000, 96)), 16_000)
    plans = [plan(path, "mixed"), plan(path, "absent", channel=96), plan(path, "last", channel=95)]
    with publisher_of(mosquitto.port, *plans) as publisher:
        daemon = Daemon(plans, DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
    assert sorted(daemon.errors) == ["absent", "mixed"]
    assert str(daemon.errors["mixed"]).startswith("wide.wav: 96 channels")
    assert "--channel 0 to --channel 95" in str(daemon.errors["absent"])
    assert daemon.totals["last"].windows == 18


# A source of another folder, found by its entry point as any would be.
PLUGIN = """
import threading
import time
import numpy as np
from soundpost.device.audio import AudioBlock
from soundpost.device.errors import CaptureError
from soundpost.device.gaps import Missing

class Lossy:
    rate_hz, n_channels, name, live, overflows, fault = 16_000, 1, "lossy", True, 0, None
    def __init__(self, url): self.url = url
    def blocks(self):
        for count in range(300):
            # Some sound is missing before every block.
            yield AudioBlock(np.zeros((320, 1), np.float32), 480 * count, 16_000)
        if self.url.startswith("broken:"):
            raise ZeroDivisionError("a fault in the code")
    def close(self): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass

class Holed(Lossy):
    # The end of every block and the beginning of the next are missing, one gap, on channel 1; on
    # channel 0 so is something else.
    n_channels = 2
    def blocks(self):
        for first in range(0, 320 * 100, 320):
            gaps = [Missing(first + 100, 7, 0, 1, "lost"), Missing(first + 310, 10, 1, 1, "lost")]
            if first:
                gaps.insert(0, Missing(first, 20, 1, 1, "silent"))
            samples = np.zeros((320, 2), np.float32)
            yield AudioBlock(samples, first, 16_000, missing=tuple(gaps))

class Flaky(Lossy):
    # Unplugged after two seconds with a noise, and away at every second attempt.
    opened = 0
    def __init__(self, url):
        Flaky.opened += 1
        if Flaky.opened % 2 == 0:
            raise CaptureError("flaky: is away")
    def blocks(self):
        began_s = time.monotonic()
        noise = np.random.default_rng(0).normal(0, 0.3, (32_000, 1)).astype(np.float32)
        noise[:16_000] = 0
        for first in range(0, 32_000, 320):
            yield AudioBlock(noise[first : first + 320], first, 16_000, began_s + first / 16_000)
        raise CaptureError("flaky: unplugged")

class Stuck(Lossy):
    # Hears nothing and does not end when it is told to.
    released = threading.Event()
    def blocks(self):
        Stuck.released.wait()
        yield from ()
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "lossy_source.py").write_text(PLUGIN)
    information = tmp_path / "lossy_source-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lossy-source\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        "[soundpost.sources]\nlossy = lossy_source:Lossy\nbroken = lossy_source:Lossy\n"
        "flaky = lossy_source:Flaky\nstuck = lossy_source:Stuck\nholed = lossy_source:Holed\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("lossy_source", None)


@pytest.mark.usefixtures("plugin")
def test_lost_sound_is_counted_and_not_reported_for_each_block(
    mosquitto: Any, collect: Collect, plan: Plan
) -> None:
    source = plan("lossy:")
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, source) as publisher:
        publisher.wait_connected(PATIENCE_S)
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        assert publisher.flush(PATIENCE_S)
        collector.wait(lambda: any(h.reason == "the source has ended" for h in collector.health()))
    assert [health.state for health in collector.health()] == ["ok", "degraded", "ok"]
    lost = collector.health()[1]
    assert str(lost.reason).startswith("sound was lost:")
    assert lost.last_gap is not None
    assert (lost.last_gap.sample, lost.last_gap.samples) == (320, 160)
    last = collector.health()[-1]
    assert last.gaps == daemon.totals["mic0"].gaps == 299
    assert last.lost_s == pytest.approx(299 * 0.01)


@pytest.mark.usefixtures("plugin")
def test_marked_gaps_count_once_and_only_on_the_channel_that_is_heard(
    mosquitto: Any, plan: Plan
) -> None:
    sources = [plan("holed:", "first", channel=0), plan("holed:", "second", channel=1)]
    with publisher_of(mosquitto.port, *sources) as publisher:
        daemon = Daemon(sources, DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
    assert daemon.errors == {}
    totals = daemon.totals
    assert {name: totals[name].gaps for name in totals} == {"first": 100, "second": 100}
    # Nothing is cut out: zeros stand in for what is missing.
    assert {name: totals[name].windows for name in totals} == {"first": 38, "second": 38}


@pytest.mark.usefixtures("plugin")
def test_a_source_that_goes_away_is_opened_again(
    mosquitto: Any, collect: Collect, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soundpost.device.listener.RETRY_S", 0.05)
    source = plan("flaky:")
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, source) as publisher:
        publisher.wait_connected(PATIENCE_S)
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        collector.wait(lambda: sum(event.phase == "end" for event in collector.events()) >= 3)
        collector.wait(lambda: bool(collector.health()) and collector.health()[-1].streams >= 4)
        daemon.stop()
        assert daemon.wait(PATIENCE_S)
        assert not daemon.errors
    events = collector.events()
    # Each opening is a stream of its own, counted from 0, and no event reaches into the next.
    streams = list(dict.fromkeys(event.stream for event in events))
    assert len(streams) >= 3
    for stream in streams[:3]:
        phases = [event.phase for event in events if event.stream == stream]
        assert phases[0] == "start"
        assert phases[-1] == "end"
        assert phases.count("start") == 1
        assert all(0 < event.sample < 32_000 for event in events if event.stream == stream)
    reasons = [health.reason for health in collector.health() if health.state == "failed"]
    assert {"flaky: unplugged", "flaky: is away"} <= set(reasons)
    # What was missed between two streams is a gap at the end of the first.
    gaps = [health.last_gap for health in collector.health() if health.last_gap is not None]
    assert gaps[0].stream == streams[0]
    assert gaps[0].sample == 32_000
    assert collector.of(f"soundpost/{DEVICE}/mic0/class/clap")[-1] == "OFF"


@pytest.mark.usefixtures("plugin")
def test_sources_that_do_not_end_are_waited_for_together(
    mosquitto: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread waits, and a watchdog restarts a sensor whose main thread stands still."""
    monkeypatch.setattr("soundpost.device.daemon._END_S", 1.0)
    opened: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Watcher(Observer):
        def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
            opened.put(source)

    plans = [plan("stuck:", f"mic{number}") for number in range(4)]
    with publisher_of(mosquitto.port, *plans) as publisher:
        daemon = Daemon(plans, DEVICE, publisher, [Watcher()])
        daemon.start()
        for _ in plans:
            opened.get(timeout=PATIENCE_S)
        began_s = time.monotonic()
        changes = daemon.apply([replace(known, channel=0) for known in plans[:2]])
        assert time.monotonic() - began_s < 2.0
        assert (changes.reopened, changes.removed) == (("mic0", "mic1"), ("mic2", "mic3"))
        sys.modules["lossy_source"].Stuck.released.set()
        assert daemon.wait(PATIENCE_S)


@pytest.mark.usefixtures("plugin")
def test_lost_sound_is_counted_in_levels(mosquitto: Any, collect: Collect, plan: Plan) -> None:
    """Breaks every 20 ms leave nothing that could be measured, and no level is made up."""
    source = plan("lossy:", levels=LevelPlan(1.0))
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, source) as publisher:
        publisher.wait_connected(PATIENCE_S)
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        assert publisher.flush(PATIENCE_S)
        collector.wait(lambda: any(h.reason == "the source has ended" for h in collector.health()))
    assert collector.levels() == []
    assert collector.health()[-1].gaps == 299


@pytest.mark.usefixtures("plugin")
def test_a_fault_in_one_source_is_logged_and_the_other_goes_on(
    mosquitto: Any,
    collect: Collect,
    plan: Plan,
    clap_wav: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plans = [plan("broken:", "yard"), plan(clap_wav, "hall")]
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, *plans) as publisher:
        daemon = Daemon(plans, DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        collector.wait(lambda: len(collector.events("hall")) == 2)
        assert publisher.flush(PATIENCE_S)
        collector.wait(lambda: any(h.state == "failed" for h in collector.health("yard")))
    assert isinstance(daemon.errors["yard"], ZeroDivisionError)
    assert "fault in soundpost" in str(collector.health("yard")[-1].reason)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None


# ------------------------------------------------------------------------------- the outbox


def test_what_is_heard_before_the_clock_is_right_is_dated_when_it_is(
    plan: Plan, clap_wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system clock is not off here, so that the date which it replaces is the right one."""
    monkeypatch.setattr("soundpost.device.event_reporter.clock_synchronised", lambda: False)
    synced = False
    source = plan(clap_wav, realtime=True)
    with (
        DiskOutbox(
            OutboxSettings(tmp_path / "outbox.sqlite3"),
            lambda: replace(Moment.now(), synced=synced),
        ) as outbox,
        Publisher(broker_settings(1), Topics("soundpost", DEVICE), outbox=outbox) as publisher,
    ):
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        before = [queued.event for queued in outbox.items()]
        synced = True
        after = [queued.event for queued in outbox.items()]
    assert [event.phase for event in before] == ["start", "end"]
    assert [event.time_synced for event in before + after] == [False, False, True, True]
    for old, new in zip(before, after, strict=True):
        # To the jitter of a file that is played in real time.
        assert abs(new.onset - old.onset) < timedelta(milliseconds=250)
        assert new.duration_s == old.duration_s


def test_a_disk_that_cannot_be_written_is_told_in_health(
    mosquitto: Any, collect: Collect, plan: Plan, clap_wav: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    collector = collect(mosquitto.port)
    source = plan(clap_wav)
    with (
        DiskOutbox(OutboxSettings(tmp_path / "file" / "outbox.sqlite3")) as outbox,
        Publisher(
            broker_settings(mosquitto.port), Topics("soundpost", DEVICE), outbox=outbox
        ) as publisher,
    ):
        publisher.wait_connected(PATIENCE_S)
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        assert daemon.wait(PATIENCE_S)
        assert publisher.flush(PATIENCE_S)
        collector.wait(lambda: len(collector.events()) == 2)
    first = collector.health()[0]
    assert first.state == "degraded"
    assert str(first.reason).endswith(
        "Not a directory: events are kept in memory only (0 messages so far)"
    )
    assert outbox.unsaved == 2


# ------------------------------------------------------------------------------- a microphone


def test_a_microphone_hears_an_alarm(
    pulseaudio: Any, mosquitto: Any, collect: Collect, plan: Plan, tmp_path: Path
) -> None:
    settings = replace(AlarmSettings(), dry_share=1.0)
    rng = np.random.default_rng(5)
    alarm = synthesise_alarm("smoke_alarm", rng, 14.0, 48_000, settings, phase_s=0.0)
    path = tmp_path / "alarm.wav"
    soundfile.write(path, alarm.samples, 48_000)
    source = plan("mic:pulse")
    collector = collect(mosquitto.port)
    with publisher_of(mosquitto.port, source) as publisher:
        daemon = Daemon([source], DEVICE, publisher)
        daemon.start()
        try:
            collector.wait(lambda: bool(collector.health()) or bool(daemon.errors))
            assert not daemon.errors
            played = datetime.now(timezone.utc)
            pulseaudio.play(path)
            collector.wait(lambda: any(e.label == "smoke_alarm" for e in collector.events()))
        finally:
            daemon.stop()
            assert daemon.wait(PATIENCE_S)
    event = next(event for event in collector.events() if event.label == "smoke_alarm")
    onset_s = (event.onset - played).total_seconds()
    print(
        f"alarm began {onset_s:.2f} s after the player was started; {json.dumps(event.to_dict())}"
    )
    assert -0.2 <= onset_s < 5.0
    assert daemon.totals["mic0"].seconds > 6.0
