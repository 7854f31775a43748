"""From a sensor that runs to a folder that is labelled: over a real Mosquitto, and from a copy."""

from __future__ import annotations

import base64
import csv
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
import soundfile
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.commands.collect import COMMAND
from soundpost.device.errors import InputError, RefusedError
from soundpost.device.feedback.collected_set import CollectedSet
from soundpost.device.feedback.collecting import collect_folder, collect_sensor
from soundpost.device.feedback.example import Example
from soundpost.device.feedback.example_store import ExampleStore
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.feedback.sensor_link import NoAnswerError, SensorLink
from soundpost.device.topics import Topics

Make = Callable[..., tuple[Example, bytes]]
TOPICS = Topics("soundpost", "porch-pi")
STATE = "soundpost/porch-pi/model/feedback"


def collect_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`soundpost collect`, as its entry point runs it."""
    program = (
        "import sys\n"
        "from importlib.metadata import EntryPoint\n"
        "from soundpost.device import cli\n"
        "point = EntryPoint('collect', 'soundpost.device.commands.collect:COMMAND', cli.GROUP)\n"
        "cli._commands = lambda: {'collect': point}\n"
        "cli.main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "collect", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "clips.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def noises(path: Path, voice: NDArray[np.float64] | None = None) -> None:
    """Eight seconds with half a second of noise, which the tiny student takes for a clap (0.70)."""
    rng = np.random.default_rng(8)
    sound = 1e-3 * rng.standard_normal(128_000)
    sound[48_000:56_000] += 0.1 * rng.standard_normal(8_000)
    if voice is not None:
        sound[60_000 : 60_000 + len(voice)] += voice
    soundfile.write(path, np.clip(sound, -1, 1), 16_000)


SETTINGS = """
device_id = "porch-pi"
[mqtt]
host = "127.0.0.1"
port = {port}
[model]
bundle = "{bundle}"
[source.mic0]
url = "file:{sound}"
loop = true
[class.clap]                    # the noise scores 0.65
onset = 0.7
release = 0.69
[class.smoke_alarm]
onset = 0.99
[class."water drops"]
onset = 0.99
[feedback]
enabled = {enabled}
apart_s = 5
min_free_mb = 0
[commands]
enabled = true
allow = {allow}
"""


@pytest.fixture
def start(
    running: ModuleType,
    tiny_bundle: Path,
    mosquitto: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Any]]:
    """Function that starts a sensor which hears a file again and again, unsure of its claps."""
    started: list[Any] = []
    # The gate and the sound's own pace take their time on a machine that is busy.
    monkeypatch.setattr(running, "PATIENCE_S", 300.0)

    def begin(sound: Path, enabled: bool = True, allow: str = "feedback") -> Any:
        config = tmp_path / "soundpost.toml"
        config.write_text(
            SETTINGS.format(
                port=mosquitto.port,
                bundle=tiny_bundle,
                sound=sound,
                enabled=str(enabled).lower(),
                allow=json.dumps([allow]),
            )
        )
        started.append(running.Sensor(["run", "--config", str(config)], tmp_path, {}))
        return started[-1]

    yield begin
    for sensor in started:
        if sensor.process.poll() is None:
            sensor.process.kill()
        sensor.end()


def told(collector: Any) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in collector.of(STATE)]


def test_hard_examples_of_a_running_sensor(
    start: Callable[..., Any],
    mosquitto: Any,
    collect: Callable[[int], Any],
    tmp_path: Path,
) -> None:
    sound = tmp_path / "noises.wav"
    noises(sound)
    sensor = start(sound)
    collector = collect(mosquitto.port)
    collector.wait(lambda: any(state["waiting"] >= 2 for state in told(collector)))
    out = tmp_path / "examples"
    at = ("--port", mosquitto.port, "--out", out)
    done = collect_command("--device", "porch-*", *at)
    assert (done.returncode, done.stderr) == (0, ""), done
    rows = rows_of(out)
    assert len(rows) >= 2
    assert f"porch-pi: {len(rows)} new, 0 known" in done.stdout
    whole = soundfile.read(sound, dtype="int16")[0]
    for row in rows:
        assert (row["label"], row["suggested"], row["device"]) == ("", "clap", "porch-pi")
        assert row["reason"] == "uncertain"
        assert row["threshold"] == "0.7"
        clip, rate_hz = soundfile.read(out / row["filename"], dtype="int16")
        assert (rate_hz, len(clip)) == (16_000, 48_000)
        # A stretch of what the sensor heard, the burst in its middle; it loops without a seam.
        burst = np.abs(clip.astype(float)) > 1_500
        assert 16_000 < np.flatnonzero(burst).mean() < 32_000
        twice = np.concatenate([whole, whole]).astype(np.int32)
        begin = 48_000 - int(np.flatnonzero(burst)[0])
        found = min(
            np.abs(twice[at : at + 48_000] - clip).max() for at in range(begin - 40, begin + 40)
        )
        assert found <= 1
    # What a person writes stays, and nothing comes twice.
    rows[0]["label"] = "hand clap"
    with (out / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    again = collect_command("--device", "porch-pi", *at, "--delete")
    assert again.returncode == 0, again
    after = rows_of(out)
    assert after[: len(rows)] == rows
    assert len({row["id"] for row in after}) == len(after)
    collector.wait(lambda: told(collector)[-1]["examples"] < len(rows))
    assert sensor.end(signal.SIGTERM) == 0
    assert any("feedback: " in line and "0 gated" in line for line in sensor.out)


def test_where_someone_speaks_no_example_is_kept(
    start: Callable[..., Any],
    mosquitto: Any,
    collect: Callable[[int], Any],
    tmp_path: Path,
    voices: dict[str, NDArray[np.float64]],
) -> None:
    sound = tmp_path / "speech.wav"
    noises(sound, voices["en-gb"])
    sensor = start(sound)
    collector = collect(mosquitto.port)
    collector.wait(lambda: any(state["counts"]["gated"] >= 2 for state in told(collector)))
    assert all(state["examples"] == 0 for state in told(collector))
    done = collect_command(
        *("--device", "porch-pi", "--port", mosquitto.port, "--out", tmp_path / "examples")
    )
    assert done.returncode == 0, done
    assert "porch-pi: 0 new, 0 known" in done.stdout
    assert sensor.end(signal.SIGTERM) == 0
    assert list((tmp_path / "state" / "soundpost" / "feedback").iterdir()) == []


def test_commands_that_are_off_and_feedback_that_is_off(
    start: Callable[..., Any], mosquitto: Any, collect: Callable[[int], Any], tmp_path: Path
) -> None:
    sound = tmp_path / "noises.wav"
    noises(sound)
    sensor = start(sound, enabled=False)
    sensor.wait_for("listening to")
    at = ("--device", "porch-pi", "--port", mosquitto.port, "--out", tmp_path / "examples")
    done = collect_command(*at)
    assert done.returncode == 8
    assert "porch-pi: feedback: is off" in done.stderr
    sensor.end(signal.SIGTERM)
    sensor = start(sound, allow="pause")
    sensor.wait_for("listening to")
    done = collect_command(*at)
    assert done.returncode == 8
    assert "not among those that commands.allow" in done.stderr
    sensor.end(signal.SIGTERM)
    done = collect_command(*at, "--timeout", 0.3)
    assert done.returncode == 124
    assert "porch-pi: no answer within" in done.stderr
    done = collect_command(*at[2:], "--device", "barn-*")
    assert done.returncode == 124
    assert "no sensor is online that matches barn-*" in done.stderr


# -------------------------------------------------------------------- a sensor that misbehaves


class Peer:
    """Answers as a sensor does, from a store; `spoil` may change each answer, or withhold it."""

    def __init__(self, port: int, store: ExampleStore) -> None:
        self.store = store
        self.spoil: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda answer: answer
        self.asked: list[dict[str, Any]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._answer
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(TOPICS.cmd("feedback"), qos=1)
        self._client.loop_start()
        assert subscribed.wait(60)

    def _answer(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        asked = json.loads(message.payload)
        self.asked.append(asked)
        answer: dict[str, Any] = {"id": asked["id"], "ok": True, "message": ""}
        if asked["action"] == "list":
            found = [one for one in self.store.examples if one.id > asked.get("after", "")]
            answer |= {"examples": [one.to_dict() for one in found[:2]], "more": len(found) > 2}
            answer |= {"labels": ["clap", "dog"]}
        elif asked["action"] == "fetch":
            (example,) = (one for one in self.store.examples if one.id == asked["example"])
            part = self.store.read(example.id, asked["offset"], min(asked["length"], 4_000))
            answer |= {"offset": asked["offset"], "sha256": example.sha256}
            answer |= {"data": base64.b64encode(part).decode()}
        spoilt = self.spoil(answer)
        if spoilt is not None:
            self._client.publish(TOPICS.cmd_result("feedback"), json.dumps(spoilt), qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def peer(mosquitto: Any, tmp_path: Path, make_example: Make) -> Iterator[Peer]:
    store = ExampleStore(
        FeedbackSettings(folder=tmp_path / "kept", min_free_mb=0, max_age_days=1e3)
    )
    for _ in range(5):
        store.write(*make_example())
    made = Peer(mosquitto.port, store)
    yield made
    made.close()


def link(mosquitto: Any, timeout_s: float = 60.0) -> SensorLink:
    return SensorLink(BrokerSettings(port=mosquitto.port), TOPICS, timeout_s)


def contents(into: CollectedSet) -> dict[str, bytes]:
    return {row["id"]: (into.folder / row["filename"]).read_bytes() for row in into.rows()}


def test_all_arrive_whole_in_parts(peer: Peer, mosquitto: Any, tmp_path: Path) -> None:
    into = CollectedSet(tmp_path / "out")
    sizes: list[int] = []
    expected: list[int] = []
    with link(mosquitto) as sensor:
        done = collect_sensor(sensor, into, expect=expected.append, told=sizes.append)
    assert (done.new, done.known, done.left_out) == (5, 0, 0)
    whole = {one.id: peer.store.read(one.id, 0, 10**6) for one in peer.store.examples}
    assert contents(into) == whole
    assert [sum(sizes)] == expected == [sum(map(len, whole.values()))]
    assert into.labels == ["clap", "dog"]


def test_it_goes_on_where_it_was_broken_off(peer: Peer, mosquitto: Any, tmp_path: Path) -> None:
    into = CollectedSet(tmp_path / "out")
    fetched = 0

    def break_off(answer: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal fetched
        fetched += "data" in answer
        return None if fetched > 7 else answer

    peer.spoil = break_off
    with link(mosquitto, 0.2) as sensor, pytest.raises(NoAnswerError):
        collect_sensor(sensor, into)
    n_before = len(into.rows())
    assert 0 < n_before < 5
    (part,) = (path for path in into.folder.iterdir() if path.name.endswith(".collected"))
    offset = part.stat().st_size
    assert offset > 0
    peer.spoil = lambda answer: answer
    peer.asked.clear()
    into = CollectedSet(tmp_path / "out")
    with link(mosquitto) as sensor:
        done = collect_sensor(sensor, into)
    assert (done.new, done.known) == (5 - n_before, n_before)
    first = next(asked for asked in peer.asked if asked["action"] == "fetch")
    assert first["offset"] == offset
    assert contents(into) == {
        one.id: peer.store.read(one.id, 0, 10**6) for one in peer.store.examples
    }
    assert not [path for path in into.folder.iterdir() if path.name.endswith(".collected")]


def test_what_does_not_match_its_hash_is_left_out(
    peer: Peer, mosquitto: Any, tmp_path: Path
) -> None:
    bad = peer.store.examples[1].id
    (peer.store.folder / f"{bad}.flac").write_bytes(b"x" * peer.store.examples[1].n_bytes)
    into = CollectedSet(tmp_path / "out")
    with link(mosquitto) as sensor:
        done = collect_sensor(sensor, into, delete=True)
    assert (done.new, done.left_out) == (4, 1)
    assert "are not those of its record" in done.problems[0]
    assert bad not in {row["id"] for row in into.rows()}
    assert bad not in {asked["example"] for asked in peer.asked if asked["action"] == "done"}
    assert {asked["delete"] for asked in peer.asked if asked["action"] == "done"} == {True}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"examples": "many"}, InputError, "without a list"),
        ({"examples": ["x"]}, InputError, "no object"),
        ({"examples": [{"schema": "soundpost.example/1"}]}, InputError, "is missing"),
        ({"ok": False, "message": "no"}, RefusedError, "porch-pi: no"),
    ],
)
def test_answers_that_are_not_in_order(
    peer: Peer,
    mosquitto: Any,
    tmp_path: Path,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    peer.spoil = lambda answer: {**answer, **changes}
    with link(mosquitto) as sensor, pytest.raises(error, match=message):
        collect_sensor(sensor, CollectedSet(tmp_path / "out"))


def test_an_example_of_another_sensor_is_refused(
    peer: Peer, mosquitto: Any, make_example: Make, tmp_path: Path
) -> None:
    peer.store.write(*make_example(device="barn-pi"))
    with link(mosquitto) as sensor, pytest.raises(InputError, match="expected its own"):
        collect_sensor(sensor, CollectedSet(tmp_path / "out"))


def test_a_list_without_an_end_is_refused(peer: Peer, mosquitto: Any, tmp_path: Path) -> None:
    """A sensor that says the same page again, and that there is more."""
    page = [one.to_dict() for one in peer.store.examples[:1]]
    peer.spoil = lambda answer: {**answer, "examples": page, "more": 10**9}
    with link(mosquitto) as sensor, pytest.raises(InputError, match="in their order"):
        collect_sensor(sensor, CollectedSet(tmp_path / "out"))


def test_a_part_that_is_too_large_is_left_out(peer: Peer, mosquitto: Any, tmp_path: Path) -> None:
    def grow(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "data": base64.b64encode(b"x" * 60_000).decode()}

    peer.spoil = lambda answer: grow(answer) if "data" in answer else answer
    with link(mosquitto) as sensor:
        done = collect_sensor(sensor, CollectedSet(tmp_path / "out"))
    assert (done.new, done.left_out) == (0, 5)
    assert "has 60000 bytes" in done.problems[0]


def test_a_sensor_that_is_asked_too_often_is_asked_again(
    peer: Peer, mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soundpost.device.feedback.sensor_link._BUSY_S", 0.01)
    turn = 0

    def now_and_then(answer: dict[str, Any]) -> dict[str, Any]:
        nonlocal turn
        turn += 1
        return answer if turn % 3 == 0 else {**answer, "ok": False, "busy": True}

    peer.spoil = now_and_then
    with link(mosquitto) as sensor:
        assert collect_sensor(sensor, CollectedSet(tmp_path / "out")).new == 5


# --------------------------------------------------------------------------- folders of sensors


def test_folders_that_were_copied(peer: Peer, make_example: Make, tmp_path: Path) -> None:
    peer.store.know(["clap", "dog"])
    copies = tmp_path / "copies"
    shutil.copytree(peer.store.folder, copies / "porch-pi")
    other = ExampleStore(FeedbackSettings(folder=copies / "barn", min_free_mb=0, max_age_days=1e3))
    other.write(*make_example("rain", device="barn"))
    broken = peer.store.examples[0]
    (copies / "porch-pi" / f"{broken.id}.flac").write_bytes(b"fLaC")
    (copies / "notes.json").write_text("[]")
    out = tmp_path / "out"
    done = collect_command(copies, "--out", out)
    assert done.returncode == 3, done
    assert f"{copies}: 5 new, 0 known, 1 left out" in done.stdout
    assert "6 clips" not in done.stdout
    assert "are not those of its record" in done.stderr
    again = collect_folder(copies, CollectedSet(out))
    assert (again.new, again.known, again.left_out) == (0, 5, 1)
    assert {row["device"] for row in rows_of(out)} == {"porch-pi", "barn"}
    assert CollectedSet(out).labels == ["clap", "dog", "rain"]


def test_options_that_contradict(tmp_path: Path) -> None:
    for arguments, message in [
        ([], "either folders of feedback, or --device"),
        ([tmp_path, "--device", "x"], "either folders of feedback, or --device"),
        ([tmp_path, "--delete"], "--delete: is for sensors of a broker"),
        ([tmp_path, "--host", "x"], "--host: is for sensors of a broker"),
        (["--device", "x", "--timeout", "0"], "expected more than 0 s"),
    ]:
        done = collect_command(*arguments, "--out", tmp_path / "out")
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    done = collect_command(tmp_path / "absent", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "no such folder" in done.stderr
    (tmp_path / "empty").mkdir()
    done = collect_command(tmp_path / "empty", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "holds no examples" in done.stderr
    assert COMMAND.intermixed
