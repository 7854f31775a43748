"""Changing a sensor that runs: what of it begins afresh, and that no sample is lost meanwhile."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.device.audio import AudioBlock
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.bundle import open_bundle, write_bundle
from soundpost.device.config import load_settings
from soundpost.device.control import Control
from soundpost.device.daemon import Daemon
from soundpost.device.disk_outbox import OutboxSettings
from soundpost.device.errors import BundleError, ConfigError, InputError, UsageError
from soundpost.device.health import Health
from soundpost.device.observer import Observer
from soundpost.device.overlay import Overlay, load_overlay
from soundpost.device.pipeline import Pipeline, ScoredWindow
from soundpost.device.plan import SourcePlan, plan_sources
from soundpost.device.publisher import Publisher
from soundpost.device.reload import LIVE, SourceChanges, compare_plans, needs_restart
from soundpost.device.settings import LevelSettings, ModelSettings, Settings, SourceSettings
from soundpost.device.source_health import HEALTH_INTERVAL_S
from soundpost.device.topics import Topics

PATIENCE_S = 60.0
DEVICE = "porch-pi"

# --------------------------------------------------------------------------------- what changes


BASE = Settings("porch-pi", OutboxSettings(Path("/var/outbox")))
OTHERS: dict[str, Any] = {
    "device_id": "yard-pi",
    "base_topic": "home/sound",
    "outbox": OutboxSettings(Path("/media/outbox")),
    "broker_port": 1884,
}
LIVELY: dict[str, Any] = {
    "model": ModelSettings(threads=2),
    "sources": (SourceSettings("yard"),),
    "levels": LevelSettings(enabled=True),
    "detector": {"min_gap_s": 3.0},
    "classes": {"dog": {"onset": 0.5}},
}
KEYS = {
    "device_id": "device_id",
    "base_topic": "mqtt.base_topic",
    "outbox": "outbox.path",
    "broker_port": "broker.port",
}


@given(st.sets(st.sampled_from([*OTHERS, *LIVELY])))
def test_a_restart_is_asked_for_by_name_where_one_is_needed(names: set[str]) -> None:
    changed = replace(BASE, **{name: {**OTHERS, **LIVELY}[name] for name in names})
    wanted = {KEYS[name] for name in names if name in OTHERS}
    assert set(needs_restart(BASE, changed)) == wanted
    assert set(needs_restart(changed, BASE)) == wanted


def test_another_broker_is_taken_live_but_not_the_end_of_our_own() -> None:
    broker = replace(BASE, mqtt=BrokerSettings("10.0.0.2"))
    assert needs_restart(broker, replace(broker, mqtt=BrokerSettings("10.0.0.3", 8883))) == ()
    assert needs_restart(BASE, broker) == ("mqtt.host",)
    assert needs_restart(broker, BASE) == ("mqtt.host",)


def test_every_live_field_exists() -> None:
    assert set(Settings.__dataclass_fields__) >= LIVE


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path) -> SourcePlan:
    bundle, interpreter, _ = open_bundle(tiny_bundle)
    return SourcePlan("a", "mic:", bundle, interpreter, bundle.manifest.classes)


def test_each_source_is_dealt_with_by_its_own_change(plain: SourcePlan) -> None:
    kinds: dict[str, Callable[[SourcePlan], SourcePlan]] = {
        "same": lambda plan: plan,
        "copy": lambda plan: replace(plan, options=dict(plan.options)),
        "url": lambda plan: replace(plan, url="mic:USB"),
        "channel": lambda plan: replace(plan, channel=1),
        "options": lambda plan: replace(plan, options={"rate_hz": 48_000}),
        "thresholds": lambda plan: replace(
            plan, classes=tuple(replace(known, min_gap_s=9.0) for known in plan.classes)
        ),
        "model": lambda plan: replace(
            plan, bundle=replace(plan.bundle, sha256="f" * 64), interpreter=object()
        ),
    }
    reopens = {"url", "channel", "options"}

    @given(
        st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([*kinds, "removed"])),
        st.sets(st.sampled_from("uvw")),
        st.sets(st.sampled_from("abcdef")),
    )
    def holds(change: dict[str, str], fresh: set[str], failed: set[str]) -> None:
        old = {name: replace(plain, name=name) for name in change}
        new = [kinds[how](old[name]) for name, how in change.items() if how != "removed"]
        new += [replace(plain, name=name) for name in sorted(fresh)]
        found = compare_plans(old, new, failed & set(old))
        assert set(found.added) == fresh
        assert set(found.removed) == {name for name, how in change.items() if how == "removed"}
        kept = {name: how for name, how in change.items() if how != "removed"}
        again = {name for name, how in kept.items() if how in reopens or name in failed}
        assert set(found.reopened) == again
        assert (
            set(found.retuned)
            == {name for name, how in kept.items() if how in ("thresholds", "model")} - again
        )

    holds()


def test_changes_in_words() -> None:
    assert str(SourceChanges(("a",), (), ("b", "c"), ())) == "a added; b, c reopened"
    assert str(SourceChanges()) == ""


# ------------------------------------------------------------------------------- while it runs


class Watcher(Observer):
    """What a daemon heard and scored; waits for more."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.blocks: dict[str, list[tuple[int, int]]] = {}
        self.windows: dict[str, list[ScoredWindow]] = {}
        self.streams: dict[str, list[str]] = {}
        self.samples: dict[str, list[NDArray[np.float32]]] = {}

    def opened(self, source: str, stream: str, rate_hz: int, n_channels: int) -> None:
        with self.changed:
            self.streams.setdefault(source, []).append(stream)
            self.changed.notify_all()

    def heard(self, source: str, block: AudioBlock) -> None:
        with self.changed:
            numbers = (block.first_sample, block.first_sample + len(block.samples))
            self.blocks.setdefault(source, []).append(numbers)
            self.samples.setdefault(source, []).append(block.samples.copy())
            self.changed.notify_all()

    def scored(self, source: str, window: ScoredWindow) -> None:
        with self.changed:
            self.windows.setdefault(source, []).append(window)
            self.changed.notify_all()

    def heard_samples(self, source: str = "mic0") -> int:
        return sum(last - first for first, last in self.blocks.get(source, []))

    def wait(self, met: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(met, PATIENCE_S), (self.streams, self.heard_samples())


RATE_HZ = 16_000


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    """Four seconds in which noise comes and goes; played in a loop."""
    made = 0.3 * np.random.default_rng(4).standard_normal(4 * RATE_HZ)
    made[:RATE_HZ] = made[2 * RATE_HZ :] = 0.0
    return np.clip(made, -1, 1).astype(np.float32)


@pytest.fixture
def playing(tmp_path: Path, sound: NDArray[np.float32]) -> Path:
    soundfile.write(tmp_path / "sound.wav", sound, RATE_HZ)
    return tmp_path / "sound.wav"


def write_settings(folder: Path, playing: Path, bundle: Path, port: int, more: str = "") -> Path:
    path = folder / "soundpost.toml"
    path.write_text(
        f'device_id = "{DEVICE}"\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\nretry_min_s = 0.05\nretry_max_s = 0.2\n'
        f'[outbox]\npath = "{folder}/outbox.sqlite3"\n'
        f'[model]\nbundle = "{bundle}"\n'
        f'[source.mic0]\nurl = "file:{playing}"\nloop = true\n{more}',
        "utf-8",
    )
    return path


class Sensor:
    """A daemon with its control, as `soundpost run` has them, in this process."""

    def __init__(self, path: Path) -> None:
        def read() -> Settings:
            return load_settings(path, environment={})

        self.watcher = Watcher()
        settings = read()
        assert settings.mqtt is not None
        plans = plan_sources(settings)
        states = [(plan.name, label) for plan in plans for label in plan.bundle.manifest.labels]
        self.publisher = Publisher(settings.mqtt, Topics("soundpost", DEVICE), states=states)
        self.daemon = Daemon(plans, DEVICE, self.publisher, [self.watcher])
        self.control = Control(read, settings, Overlay(), self.daemon, self.publisher)

    @contextmanager
    def run(self) -> Iterator[Sensor]:
        with self.publisher:
            self.daemon.start()
            try:
                yield self
            finally:
                self.daemon.stop()
                assert self.daemon.wait(PATIENCE_S)


def assert_contiguous(watcher: Watcher, source: str = "mic0") -> None:
    """One stream, whose blocks follow each other from sample 0 on without a hole or a repeat."""
    assert len(watcher.streams[source]) == 1
    blocks = watcher.blocks[source]
    assert blocks[0][0] == 0
    assert all(one[1] == other[0] for one, other in pairwise(blocks))


def oracle(plan: SourcePlan, samples: NDArray[np.float32], first: int = 0) -> list[ScoredWindow]:
    """What a run of its own, without any reload, makes of the sound from a sample on."""
    interpreter = plan.bundle.load_interpreter()
    pipeline = Pipeline(plan.bundle, interpreter, RATE_HZ, classes=plan.classes)
    return list(pipeline.push(AudioBlock(samples[first:], first, RATE_HZ)))


def assert_same(found: list[ScoredWindow], expected: list[ScoredWindow]) -> None:
    # The last block's windows may not have been scored when the daemon was stopped.
    assert len(expected) - 2 <= len(found) <= len(expected)
    for one, other in zip(found, expected, strict=False):
        assert one.first_sample == other.first_sample
        np.testing.assert_array_equal(one.scores, other.scores)


NEUTRAL = [
    "[levels]\nenabled = true\n",
    "[levels]\nenabled = true\ninterval_s = 5\nbands = true\n",
    "",
    '[class."water drops"]\nonset = 0.99\nrelease = 0.9\n',
    '[class."water drops"]\nonset = 0.999\n',
    "[commands]\nenabled = true\n",
]


def test_fifty_reloads_lose_no_sample_and_change_no_score(
    mosquitto: Any, tmp_path: Path, playing: Path, tiny_bundle: Path
) -> None:
    path = write_settings(tmp_path, playing, tiny_bundle, mosquitto.port)
    sensor = Sensor(path)
    watcher = sensor.watcher
    (plan,) = sensor.daemon.plans.values()
    with sensor.run():
        for turn in range(50):
            heard = watcher.heard_samples()
            more = NEUTRAL[turn % len(NEUTRAL)]
            write_settings(tmp_path, playing, tiny_bundle, mosquitto.port, more)
            sensor.control.reload()
            watcher.wait(lambda heard=heard: watcher.heard_samples() >= heard + 800)  # type: ignore[misc]
        watcher.wait(lambda: watcher.heard_samples() >= 5 * RATE_HZ)
    assert sensor.daemon.errors == {}
    assert sensor.daemon.totals["mic0"].gaps == 0
    assert_contiguous(watcher)
    samples = np.concatenate(watcher.samples["mic0"])
    windows = [window for window in watcher.windows["mic0"] if len(window.scores)]
    expected = oracle(plan, samples)
    assert_same(windows, expected)
    # A label whose settings were never touched reports as if there had been no reload.
    claps = [
        [found for window in of for found in window.detections if found.label == "clap"]
        for of in (windows, expected)
    ]
    assert len(claps[0]) >= 2
    assert claps[0] == claps[1][: len(claps[0])]


def write_other_bundle(path: Path, tiny: ModuleType, labels: tuple[str, ...]) -> None:
    student, manifest = (
        tiny.tiny_student(quantised=False),
        tiny.tiny_manifest(labels, quantised=False),
    )
    golden = tiny.tiny_golden(student, manifest)
    write_bundle(path, manifest, student.model, golden, "# other\n")


def test_another_bundle_takes_over_between_two_windows(
    mosquitto: Any,
    collect: Any,
    tmp_path: Path,
    playing: Path,
    tiny: ModuleType,
    tiny_bundle: Path,
) -> None:
    used = tmp_path / "used.bundle"
    used.write_bytes(tiny_bundle.read_bytes())
    sensor = Sensor(write_settings(tmp_path, playing, used, mosquitto.port))
    watcher = sensor.watcher
    (before,) = sensor.daemon.plans.values()
    collector = collect(mosquitto.port)
    with sensor.run():
        sensor.publisher.wait_connected(PATIENCE_S)
        watcher.wait(lambda: len(watcher.windows.get("mic0", [])) >= 20)
        # The file under the same name is another one now, as after `scp`.
        write_other_bundle(used, tiny, ("clap", "smoke_alarm", "hoot"))
        assert "mic0 retuned" in sensor.control.reload()
        (after,) = sensor.daemon.plans.values()
        topic = f"soundpost/{DEVICE}/mic0/class"
        collector.wait(lambda: collector.of(f"{topic}/hoot") == ["OFF"])
        collector.wait(lambda: collector.of(f"{topic}/water drops")[-1] == "")
        count = len(watcher.windows["mic0"])
        watcher.wait(lambda: len(watcher.windows["mic0"]) >= count + 20)
    assert_contiguous(watcher)
    samples = np.concatenate(watcher.samples["mic0"])
    windows = [window for window in watcher.windows["mic0"] if len(window.scores)]
    old = oracle(before, samples)
    switch = next(
        index
        for index, (one, other) in enumerate(zip(windows, old, strict=False))
        if one.first_sample != other.first_sample or not np.array_equal(one.scores, other.scores)
    )
    assert switch >= 20
    first = windows[switch].first_sample
    # No hole: the new one's first window begins inside the old one's last.
    assert first <= windows[switch - 1].first_sample + before.bundle.manifest.window_samples
    assert_same(windows[switch:], oracle(after, samples, first))


# What is put in the place of what in good settings, and what is said of it.
BAD = [
    ("device_id =", "device_id = =", "not TOML"),
    ("host =", "hots =", "did you mean host?"),
    ("tiny.bundle", "absent.bundle", "absent.bundle"),
    ("tiny.bundle", "damaged.bundle", "damaged.bundle"),
    ("[model]", "[class.cat]\nonset = 0.5\n[model]", "no such label"),
    ("porch-pi", "yard-pi", "device_id: restart to change"),
    ("outbox.sqlite3", "other.sqlite3", "outbox.path: restart to change"),
]


def test_what_cannot_be_used_leaves_it_as_it_was_and_health_says_why(
    mosquitto: Any, collect: Any, tmp_path: Path, playing: Path, tiny_bundle: Path
) -> None:
    (tmp_path / "tiny.bundle").write_bytes(tiny_bundle.read_bytes())
    (tmp_path / "damaged.bundle").write_bytes(tiny_bundle.read_bytes()[:-100])
    path = write_settings(tmp_path, playing, tmp_path / "tiny.bundle", mosquitto.port)
    good = path.read_text("utf-8")
    sensor = Sensor(path)
    plans = sensor.daemon.plans
    collector = collect(mosquitto.port)

    def reason() -> str | None:
        found: str | None = collector.health()[-1].reason if collector.health() else None
        return found

    with sensor.run():
        sensor.publisher.wait_connected(PATIENCE_S)
        for right, wrong, said in BAD:
            path.write_text(good.replace(right, wrong), "utf-8")
            with pytest.raises((ConfigError, BundleError, InputError)) as refused:
                sensor.control.reload()
            assert said in str(refused.value)
            assert sensor.daemon.plans == plans
            collector.wait(lambda said=said: said in (reason() or ""))
            assert collector.health()[-1].state == "degraded"
        path.write_text(good, "utf-8")
        assert sensor.control.reload().startswith("settings reloaded")
        collector.wait(lambda: reason() is None)
    assert_contiguous(sensor.watcher)


@pytest.mark.parametrize("table", ["home_assistant", "clips"])
def test_what_the_next_start_would_refuse_is_not_reloaded(
    table: str, tmp_path: Path, playing: Path, tiny: ModuleType, tiny_bundle: Path
) -> None:
    """A new bundle, under the same name, without a label that the settings name."""
    used = tmp_path / "used.bundle"
    used.write_bytes(tiny_bundle.read_bytes())
    more = f'[{table}]\nlabels = ["water drops"]\n' + ("enabled = true\n" * (table == "clips"))
    path = write_settings(tmp_path, playing, used, 1, more)
    sensor = Sensor(path)
    plans = sensor.daemon.plans
    write_other_bundle(used, tiny, ("clap", "smoke_alarm", "hoot"))
    with pytest.raises(ConfigError, match=rf"\[{table}\] labels: .* has 'water drops'") as refused:
        sensor.control.reload()
    assert sensor.daemon.plans == plans
    with pytest.raises(ConfigError) as at_start:
        plan_sources(load_settings(path, environment={}))
    assert str(at_start.value) == str(refused.value)


def test_only_sources_that_change_begin_afresh(
    mosquitto: Any, collect: Any, tmp_path: Path, playing: Path, tiny_bundle: Path
) -> None:
    def of(name: str, file: Path) -> str:
        return f'[source.{name}]\nurl = "file:{file}"\nloop = true\n'

    other = tmp_path / "other.wav"
    other.write_bytes(playing.read_bytes())
    port = mosquitto.port
    path = write_settings(
        tmp_path, playing, tiny_bundle, port, of("yard", playing) + of("gone", playing)
    )
    sensor = Sensor(path)
    watcher = sensor.watcher
    collector = collect(port)
    gone = [f"soundpost/{DEVICE}/gone/{last}" for last in ("class/clap", "health", "paused")]
    with sensor.run():
        sensor.publisher.wait_connected(PATIENCE_S)
        watcher.wait(lambda: len(watcher.streams) == 3)
        collector.wait(lambda: all(collector.of(topic) for topic in gone))
        more = of("yard", other) + of("new", playing)
        write_settings(tmp_path, playing, tiny_bundle, port, more)
        done = sensor.control.reload()
        for name, what in [("new", "added"), ("gone", "removed"), ("yard", "reopened")]:
            assert f"{name} {what}" in done
        watcher.wait(lambda: len(watcher.streams.get("yard", [])) == 2 and "new" in watcher.streams)
        collector.wait(lambda: all(collector.of(topic)[-1] == "" for topic in gone))
        heard = watcher.heard_samples("new")
        watcher.wait(lambda: watcher.heard_samples("new") > heard)
        assert set(sensor.daemon.plans) == {"mic0", "yard", "new"}
        assert not sensor.daemon.wait(0)
    assert_contiguous(watcher)
    assert len(watcher.streams["new"]) == len(watcher.streams["gone"]) == 1


def test_an_interpreter_goes_on_only_in_the_thread_that_has_it(
    tmp_path: Path, playing: Path, tiny_bundle: Path
) -> None:
    """A source that is opened afresh begins while the old one may still be scoring."""

    def plans(more: str, running: SourcePlan | None = None) -> SourcePlan:
        path = write_settings(tmp_path, playing, tiny_bundle, 1883, more)
        settings = load_settings(path, environment={})
        (plan,) = plan_sources(settings, running={"mic0": running} if running else None)
        return plan

    first = plans("")
    assert plans("[detector]\nmin_gap_s = 3.0\n", first).interpreter is first.interpreter
    for change in ("channel = 0\n", "block_s = 0.05\n"):
        again = plans(change, first)
        assert again.bundle is first.bundle
        assert again.interpreter is not first.interpreter


def test_another_broker_gets_what_waited_and_the_old_one_is_told(
    start_mosquitto: Any, collect: Any, tmp_path: Path, playing: Path, tiny_bundle: Path
) -> None:
    first, second = start_mosquitto(), start_mosquitto()
    sensor = Sensor(write_settings(tmp_path, playing, tiny_bundle, first.port))
    there, here = collect(first.port), collect(second.port)
    status = f"soundpost/{DEVICE}/status"
    with sensor.run():
        there.wait(lambda: there.of(status) == ["online"])
        write_settings(tmp_path, playing, tiny_bundle, second.port)
        assert f"mqtt: now 127.0.0.1:{second.port}" in sensor.control.reload()
        here.wait(lambda: here.of(status) == ["online"])
        # Once in order; once more by the will, where the broker saw no farewell.
        assert there.of(status)[:2] == ["online", "offline"]
        assert there.of(status)[-1] == "offline"
        here.wait(lambda: len(here.events()) >= 2)
    assert_contiguous(sensor.watcher)


# ------------------------------------------------------------------------------------- pauses


def test_a_resume_while_the_pause_is_being_told_is_obeyed_at_once(
    mosquitto: Any, tmp_path: Path, playing: Path, tiny_bundle: Path
) -> None:
    sensor = Sensor(write_settings(tmp_path, playing, tiny_bundle, mosquitto.port))
    watcher = sensor.watcher
    resumed_s: list[float] = []

    def resume(health: Health) -> None:
        if health.state == "paused":
            resumed_s.append(time.monotonic())
            sensor.control.resume(None)

    watcher.health = resume  # type: ignore[method-assign]
    with sensor.run():
        watcher.wait(lambda: watcher.heard_samples() > 0)
        sensor.control.pause(None, None)
        watcher.wait(lambda: len(watcher.streams["mic0"]) == 2)
        assert time.monotonic() - resumed_s[0] < HEALTH_INTERVAL_S / 2


def test_a_paused_source_is_closed_until_it_is_resumed(
    mosquitto: Any, collect: Any, tmp_path: Path, playing: Path, tiny_bundle: Path
) -> None:
    path = write_settings(tmp_path, playing, tiny_bundle, mosquitto.port)
    sensor = Sensor(path)
    watcher = sensor.watcher
    collector = collect(mosquitto.port)
    paused = f"soundpost/{DEVICE}/mic0/paused"
    with sensor.run():
        sensor.publisher.wait_connected(PATIENCE_S)
        watcher.wait(lambda: watcher.heard_samples() > 0)
        assert sensor.control.pause("mic0", None) == "mic0 paused"
        collector.wait(lambda: collector.of(paused) == ["OFF", "ON"])
        collector.wait(lambda: collector.health()[-1].state == "paused")
        assert sensor.daemon.listening == []
        assert not sensor.daemon.wait(0)
        heard = watcher.heard_samples()
        # A pause outlives a reload, even one that begins the source afresh.
        changed = path.read_text("utf-8").replace("loop = true", "loop = true\nblock_s = 0.05")
        path.write_text(changed, "utf-8")
        assert "mic0 reopened" in sensor.control.reload()
        collector.wait(lambda: collector.of(paused)[-2:] == ["OFF", "ON"])
        assert watcher.heard_samples() == heard
        assert len(watcher.streams["mic0"]) == 1
        sensor.control.resume(None)
        collector.wait(lambda: collector.of(paused)[-1] == "OFF")
        watcher.wait(lambda: len(watcher.streams["mic0"]) == 2)
        collector.wait(lambda: collector.health()[-1].state == "ok")
        assert sensor.daemon.listening == ["mic0"]
        # For some time only: it goes on by itself, and what it was told to miss is no loss.
        sensor.control.pause(None, 1.0)
        watcher.wait(lambda: len(watcher.streams["mic0"]) == 3)
        collector.wait(lambda: collector.of(paused)[-1] == "OFF")
        watcher.wait(lambda: watcher.blocks["mic0"][-1][0] > 0)
        assert any("until" in (one.reason or "") for one in collector.health())
        assert collector.health()[-1].gaps == 0


# --------------------------------------------------------------------------------- thresholds


def test_thresholds_set_by_command_outlive_a_restart_until_they_are_reset(
    mosquitto: Any, tmp_path: Path, playing: Path, tiny_bundle: Path
) -> None:
    path = write_settings(tmp_path, playing, tiny_bundle, mosquitto.port)
    sensor = Sensor(path)

    def onset(plans: list[SourcePlan]) -> tuple[float, float]:
        (plan,) = plans
        return plan.classes[0].onset, plan.classes[0].release

    with sensor.run():
        sensor.watcher.wait(lambda: sensor.watcher.heard_samples() > 0)
        assert sensor.control.set_threshold(None, "clap", 0.8, None) == (
            "clap: onset 0.8, release 0.516129"
        )
        assert sensor.control.set_threshold("mic0", "clap", 0.7, 0.2) == (
            "clap: onset 0.7, release 0.2"
        )
        settings = sensor.control.settings
        kept = load_overlay(settings.overlay_path)
        assert onset(plan_sources(settings, kept)) == (0.7, 0.2)
        sensor.control.reload()
        assert onset(list(sensor.daemon.plans.values())) == (0.7, 0.2)
        with pytest.raises(UsageError, match="did you mean clap"):
            sensor.control.set_threshold(None, "clapp", 0.8, None)
        with pytest.raises(UsageError, match="no such source"):
            sensor.control.set_threshold("mic9", "clap", 0.8, None)
        sensor.control.reset_threshold("mic0", "clap")
        assert onset(list(sensor.daemon.plans.values()))[0] == 0.8
        sensor.control.reset_threshold(None, None)
        assert onset(list(sensor.daemon.plans.values())) == (0.62, 0.4)
        assert load_overlay(settings.overlay_path) == Overlay()
    assert_contiguous(sensor.watcher)


@given(st.binary(max_size=200) | st.sampled_from([b"{}", b'{"schema": "soundpost.overlay/1"}']))
def test_a_damaged_file_of_thresholds_is_none(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "thresholds.json"
        path.write_bytes(content)
        assert load_overlay(path) == Overlay()
