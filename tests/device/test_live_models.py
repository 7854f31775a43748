"""What an updater asks of a running sensor: two models at once, another one, and what they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.device.bundle import Bundle, read_bundle, write_bundle
from soundpost.device.config import load_settings
from soundpost.device.control import Control
from soundpost.device.daemon import Daemon
from soundpost.device.errors import ConfigError
from soundpost.device.events import SoundEvent
from soundpost.device.live_models import LiveModels, installed
from soundpost.device.observer import Observer
from soundpost.device.overlay import Overlay
from soundpost.device.pipeline import ScoredWindow
from soundpost.device.plan import plan_sources
from soundpost.device.publisher import Publisher
from soundpost.device.settings import Settings
from soundpost.device.topics import Topics
from soundpost.device.updates.live_sensor import LiveSensor
from soundpost.device.updates.model_state import ModelState

PATIENCE_S = 90.0
DEVICE = "porch-pi"
RATE_HZ = 16_000


class Watcher(Observer):
    """Windows of each source, and events."""

    def __init__(self) -> None:
        self.windows: dict[str, list[ScoredWindow]] = {}
        self.events: list[SoundEvent] = []

    def scored(self, source: str, window: ScoredWindow) -> None:
        self.windows.setdefault(source, []).append(window)

    def reported(self, event: SoundEvent, decided_s: float) -> None:
        self.events.append(event)

    def scored_at(self, source: str) -> int:
        """Windows of a source so far."""
        return sum(len(window.scores) > 0 for window in self.windows.get(source, []))


def listening(sensor: Sensor) -> list[str]:
    """Sources that deliver sound."""
    return [name for name, one in sensor.daemon._by_name.items() if one.is_open]


def until(met: Callable[[], object], told: Callable[[], object] = lambda: None) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < deadline_s, told()
        time.sleep(0.02)


class Sensor:
    """A daemon with what an updater holds of it, in this process."""

    def __init__(self, path: Path, model: Bundle | None = None) -> None:
        def read() -> Settings:
            return load_settings(path, environment={})

        self.watcher = Watcher()
        settings = read()
        assert settings.mqtt is not None
        plans = plan_sources(settings, model=model)
        states = [(plan.name, label) for plan in plans for label in plan.bundle.manifest.labels]
        self.publisher = Publisher(settings.mqtt, Topics("soundpost", DEVICE), states=states)
        self.daemon = Daemon(plans, DEVICE, self.publisher, [self.watcher])
        self.control = Control(
            read,
            settings,
            Overlay(),
            self.daemon,
            self.publisher,
            on_settings=lambda *_: self.live.follow_reload(),
            model=model,
        )
        self.live = LiveModels(self.control, self.daemon, self.publisher)
        self.seam: LiveSensor = self.live

    @contextmanager
    def run(self) -> Iterator[Sensor]:
        with self.publisher:
            self.daemon.start()
            try:
                yield self
            finally:
                self.daemon.stop()
                assert self.daemon.wait(PATIENCE_S)


class Site:
    """A folder with settings of two sources that hear the same, and one with its own bundle."""

    def __init__(self, folder: Path, port: int, bundle: Path) -> None:
        self.folder, self.port = folder, port
        self.path = folder / "soundpost.toml"
        sound = np.zeros(4 * RATE_HZ)
        sound[RATE_HZ : 3 * RATE_HZ] = 0.3 * np.random.default_rng(4).standard_normal(2 * RATE_HZ)
        soundfile.write(folder / "sound.wav", np.clip(sound, -1, 1), RATE_HZ)
        (folder / "used.bundle").write_bytes(bundle.read_bytes())
        (folder / "own.bundle").write_bytes(bundle.read_bytes())

    def write(self, more: str = "", sources: tuple[str, ...] = ("yard", "porch")) -> Path:
        of_sources = "".join(
            f'[source.{name}]\nurl = "file:sound.wav"\nloop = true\n' for name in sources
        )
        self.path.write_text(
            f'device_id = "{DEVICE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {self.port}\n'
            "retry_min_s = 0.05\nretry_max_s = 0.2\n"
            '[outbox]\npath = "outbox.sqlite3"\n[model]\nbundle = "used.bundle"\n'
            f"{of_sources}"
            '[source.own]\nurl = "file:sound.wav"\nloop = true\nbundle = "own.bundle"\n'
            f"{more}",
            "utf-8",
        )
        return self.path


@pytest.fixture
def site(mosquitto: Any, tmp_path: Path, tiny_bundle: Path) -> Site:
    made = Site(tmp_path, mosquitto.port, tiny_bundle)
    made.write()
    return made


def another(
    folder: Path, tiny: ModuleType, name: str = "another", labels: tuple[str, ...] | None = None
) -> Bundle:
    """The same student under another name, perhaps with other labels."""
    student = tiny.tiny_student()
    manifest = tiny.tiny_manifest(labels) if labels else tiny.tiny_manifest()
    manifest = replace(manifest, name=name)
    path = folder / f"{name}.bundle"
    write_bundle(path, manifest, student.model, tiny.tiny_golden(student, manifest), f"# {name}\n")
    return read_bundle(path)


def test_two_models_hear_the_same_and_nothing_of_the_second_is_told(
    site: Site, tiny: ModuleType
) -> None:
    sensor = Sensor(site.path)
    live, other = sensor.seam, another(site.folder, tiny)
    with sensor.run():
        until(lambda: [tally.windows > 5 for tally in live.tally()] == [True, True])
        assert live.shadow() == ()
        live.begin_shadow(other)
        until(lambda: len(live.shadow()) == 2 and all(t.new.windows > 60 for t in live.shadow()))
        for tally in live.shadow():
            assert tally.old.source == tally.new.source
            assert abs(tally.old.windows - tally.new.windows) <= 40
            assert all(one[1] + one[2] == 0 for one in tally.agreement.values())
            assert sum(sum(seconds) for seconds in tally.agreement.values()) > 0
        assert {tally.old.source for tally in live.shadow()} == {"yard", "porch"}
        # A source that a reload brings is heard with both, too.
        site.write(sources=("yard", "porch", "hall"))
        sensor.control.reload()
        until(lambda: {tally.old.source for tally in live.shadow()} == {"yard", "porch", "hall"})
        kept = {tally.new.source: tally.new.windows for tally in live.shadow()}
        assert kept["yard"] > 60
        live.end_shadow()
        assert live.shadow() == ()
    assert sensor.daemon.errors == {}
    assert {event.model.name for event in sensor.watcher.events} <= {"tiny"}


def test_a_swap_is_of_all_sources_but_those_with_a_bundle_of_their_own(
    site: Site, tiny: ModuleType
) -> None:
    sensor = Sensor(site.path)
    live, other = sensor.seam, another(site.folder, tiny)
    first = live.running
    assert (first.name, first.sha256) == ("tiny", read_bundle(site.folder / "used.bundle").sha256)
    with sensor.run():
        until(lambda: [tally.windows > 20 for tally in live.tally()] == [True, True])
        assert live.swapped
        live.swap(other)
        assert live.running == installed(other)
        until(lambda: live.swapped)
        assert all(tally.windows < 200 for tally in live.tally())
        # One that is paused is not waited for, and hears with the right one when it goes on.
        sensor.control.pause("yard", None)
        until(lambda: sensor.daemon.listening == ["porch", "own"])
        live.swap(read_bundle(site.folder / "used.bundle"))
        until(lambda: live.swapped)
        assert live.running == first
        sensor.control.resume("yard")
        until(lambda: sensor.daemon.models["yard"].scored_with == first.sha256)
        assert sensor.daemon.plans["own"].bundle.manifest.name == "tiny"
        live.swap(other)
        until(lambda: live.swapped)
        until(lambda: len(sensor.watcher.events) > 4)
    plans = sensor.daemon.plans
    assert {name: plan.bundle.manifest.name for name, plan in plans.items()} == {
        "yard": "another",
        "porch": "another",
        "own": "tiny",
    }
    assert sensor.daemon.errors == {}
    # No window is lost or doubled on the source that was never paused.
    firsts = [w.first_sample for w in sensor.watcher.windows["porch"] if len(w.scores)]
    assert firsts == list(range(0, 800 * len(firsts), 800))


@pytest.mark.parametrize("sources", [("yard", "porch"), ("yard",)])
def test_a_paused_source_does_not_speak_for_the_model_before(
    site: Site, tiny: ModuleType, sources: tuple[str, ...]
) -> None:
    """What it counted until then was of another model, of which nobody asks any more."""
    site.write(sources=sources)
    sensor = Sensor(site.path)
    live, other = sensor.seam, another(site.folder, tiny)

    def counted() -> dict[str, int]:
        return {tally.source: tally.windows for tally in live.tally()}

    with sensor.run():
        # A source that has heard nothing yet says nothing.
        assert set(counted().values()) == set() or min(counted().values()) > 0
        until(lambda: sorted(counted()) == sorted(sources) and min(counted().values()) > 20)
        sensor.control.pause("yard", None)
        until(lambda: "yard" not in listening(sensor))
        before = sensor.watcher.scored_at("yard")
        live.swap(other)
        until(lambda: live.swapped)
        deadline_s = time.monotonic() + 0.5
        while time.monotonic() < deadline_s:
            assert set(counted()) <= set(sources) - {"yard"}
            time.sleep(0.01)
        until(lambda: set(counted()) == set(sources) - {"yard"})
        sensor.control.resume("yard")
        until(lambda: set(counted()) == set(sources))
        # A window is counted, and then told.
        assert 0 < counted()["yard"] <= sensor.watcher.scored_at("yard") - before + 1
    assert sensor.daemon.errors == {}


def test_what_runs_by_hand_is_what_is_counted(site: Site, tiny: ModuleType) -> None:
    sensor = Sensor(site.path)
    live = sensor.seam
    with sensor.run():
        until(lambda: len(live.tally()) == 2)
        mine = another(site.folder, tiny, name="mine")
        (site.folder / "used.bundle").write_bytes((site.folder / "mine.bundle").read_bytes())
        sensor.control.reload()
        until(lambda: live.swapped)
        heard = {models.scored_with for models in sensor.daemon.models.values()}
        assert heard == {mine.sha256}
        assert len(live.tally()) == 2


def onsets(sensor: Sensor, source: str, label: str) -> list[float]:
    """Of the model that runs, and of the one that is tried."""
    plan = sensor.daemon.plans[source]
    shadow = sensor.daemon.models[source]._shadow
    assert shadow is not None
    both = (plan.classes, shadow.classes)
    return [one.onset for classes in both for one in classes if one.label == label]


@pytest.mark.parametrize("how", ["command", "reload"])
def test_other_thresholds_are_those_of_both_models(site: Site, tiny: ModuleType, how: str) -> None:
    site.write("[commands]\nenabled = true\n")
    sensor = Sensor(site.path)
    live, other = sensor.seam, another(site.folder, tiny)

    def change(source: str, onset: float) -> None:
        if how == "command":
            sensor.control.set_threshold(source, "clap", onset, None)
            return
        site.write(f"[commands]\nenabled = true\n[source.{source}.class.clap]\nonset = {onset}\n")
        sensor.control.reload()

    def windows() -> dict[str, tuple[int, int]]:
        return {one.new.source: (one.old.windows, one.new.windows) for one in live.shadow()}

    with sensor.run():
        live.begin_shadow(other)
        until(lambda: len(windows()) == 2 and min(windows()["yard"]) > 0)
        missed = sensor.watcher.scored_at("yard") - min(windows()["yard"])
        until(lambda: min(min(one) for one in windows().values()) > missed + 20)
        before = windows()
        change("yard", 0.3)
        after = windows()
        assert min(after["porch"]) >= min(before["porch"])
        until(lambda: min(windows()["yard"]) > 0)
        # Counted anew, not on from `before`: all together are no more than were scored.
        again = windows()["yard"]
        most = sensor.watcher.scored_at("yard") + 1
        assert all(one + other <= most for one, other in zip(before["yard"], again, strict=True))
        assert onsets(sensor, "yard", "clap") == [0.3, 0.3]
        assert onsets(sensor, "porch", "clap") == [0.62, 0.62]
        until(lambda: max(windows()["yard"]) > 40)
        # What is there already is no change.
        before = windows()
        change("yard", 0.3)
        time.sleep(0.2)
        assert all(min(windows()[name]) >= min(before[name]) for name in ("yard", "porch"))
        until(lambda: all(min(windows()[name]) > 60 for name in ("yard", "porch")))
        (yard,) = (one for one in live.shadow() if one.new.source == "yard")
        # The noise is heard by both now, and at no time by one alone.
        both, only_old, only_new, _ = yard.agreement["clap"]
        assert both > 0.0
        assert only_old == only_new == 0.0
        if how == "command":
            sensor.control.reset_threshold("yard", "clap")
            assert onsets(sensor, "yard", "clap") == [0.62, 0.62]
        live.end_shadow()
        change("yard", 0.4)
        assert live.shadow() == ()
    assert sensor.daemon.errors == {}


def test_an_event_that_is_open_goes_on_under_its_id(site: Site, tiny: ModuleType) -> None:
    """Label `clap`, whose scores lie about a half in this noise: open nearly all the time."""
    site.write("[class.clap]\nonset = 0.3\nrelease = 0.02\nmin_gap_s = 30\n", sources=("yard",))
    sensor = Sensor(site.path)
    live, other = sensor.seam, another(site.folder, tiny)

    def claps(phase: str) -> list[SoundEvent]:
        of_label = (event for event in sensor.watcher.events if event.label == "clap")
        return [event for event in of_label if event.source == "yard" and event.phase == phase]

    with sensor.run():
        until(lambda: claps("start"))
        live.swap(other)
        until(lambda: live.swapped)
        count = len(claps("update"))
        until(lambda: len(claps("update")) > count)
    assert len(claps("start")) == len(claps("end")) == 1
    ids = {event.id for phase in ("start", "update", "end") for event in claps(phase)}
    assert len(ids) == 1
    assert claps("start")[0].model.name == "tiny"
    assert claps("update")[-1].model.name == claps("end")[0].model.name == "another"
    assert claps("start")[0].sample == claps("end")[0].sample


def test_labels_that_would_be_lost_are_refused_before_and_left_out_after(
    site: Site, collect: Any, tiny: ModuleType
) -> None:
    more = (
        '[class."water drops"]\nonset = 0.9\nrelease = 0.8\n[source.yard.class.clap]\nonset = 0.7\n'
    )
    site.write(more, sources=("yard",))
    # Its own bundle would know the label: only sources that hear with the model count here.
    site.path.write_text(site.path.read_text().replace('bundle = "own.bundle"\n', ""))
    sensor = Sensor(site.path)
    other = another(site.folder, tiny, labels=("clap", "smoke_alarm", "hoot"))
    collector = collect(site.port)
    with sensor.run():
        sensor.publisher.wait_connected(PATIENCE_S)
        with pytest.raises(ConfigError, match=r"\[class.water drops\].*no such label"):
            sensor.live.begin_shadow(other)
        assert sensor.live.shadow() == ()
        # But what is installed is heard with, and a start with it is no error.
        sensor.live.swap(other)
        until(lambda: sensor.live.swapped)
        topic = f"soundpost/{DEVICE}/yard/class"
        collector.wait(lambda: collector.of(f"{topic}/hoot")[-1:] == ["OFF"])
        collector.wait(lambda: collector.of(f"{topic}/water drops")[-1:] == [""])
        assert sensor.control.set_threshold("yard", "clap", 0.6, None).startswith("clap: onset 0.6")
        assert sensor.control.reload().startswith("settings reloaded")
        assert sensor.live.running == installed(other)
        sensor.live.begin_shadow(other)
    again = Sensor(site.path, model=other)
    assert again.live.running == installed(other)
    (clap, *_) = again.daemon.plans["yard"].classes
    assert (clap.label, clap.onset) == ("clap", 0.7)


def test_a_bundle_that_changed_by_hand_wins(site: Site, tiny: ModuleType) -> None:
    sensor = Sensor(site.path)
    other = another(site.folder, tiny)
    chosen: list[Path | None] = []
    sensor.control.on_choice = chosen.append
    with sensor.run():
        sensor.live.swap(other)
        assert "in place" not in sensor.control.reload()
        assert sensor.live.running == installed(other)
        assert chosen == []
        mine = another(site.folder, tiny, name="mine")
        (site.folder / "used.bundle").write_bytes((site.folder / "mine.bundle").read_bytes())
        assert "the settings' model is in place of the installed one" in sensor.control.reload()
        assert sensor.live.running == installed(mine)
        assert chosen == [site.folder / "used.bundle"]


def test_the_state_is_retained_and_told_again_on_each_connection(
    site: Site, collect: Any, running: ModuleType
) -> None:
    sensor = Sensor(site.path)
    state = ModelState(
        DEVICE, datetime(2026, 11, 20, tzinfo=timezone.utc), "off", sensor.live.running
    )
    with sensor.run():
        sensor.live.show(state)
        sensor.publisher.wait_connected(PATIENCE_S)
        assert sensor.publisher.flush(PATIENCE_S)
        collector = collect(site.port)
        topic = f"soundpost/{DEVICE}/model/state"
        collector.wait(lambda: collector.of(topic))
        assert ModelState.from_json(collector.of(topic)[0]) == state
