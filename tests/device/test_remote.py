"""Commands over MQTT: nothing but what is in order is obeyed, and each is answered once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device import remote
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import InputError, UsageError
from soundpost.device.publisher import Publisher
from soundpost.device.remote import (
    MAX_COMMAND_BYTES,
    RESULT_SCHEMA,
    Remote,
    Request,
    parse_request,
)
from soundpost.device.settings import COMMANDS, CommandSettings
from soundpost.device.topics import Topics

PATIENCE_S = 60.0
DEVICE = "porch-pi"
CMD = f"soundpost/{DEVICE}/cmd"

# ------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("name", "payload", "request_"),
    [
        ("pause", b"", Request("pause")),
        ("pause", b'{"duration_s": 600}', Request("pause", duration_s=600)),
        ("resume", b'{"id": "7", "source": "yard"}', Request("resume", "7", "yard")),
        ("reload", b"{}", Request("reload")),
        (
            "threshold",
            b'{"label": "dog", "onset": 0.8, "release": 0.5}',
            Request("threshold", label="dog", onset=0.8, release=0.5),
        ),
        ("threshold", b'{"reset": true}', Request("threshold", reset=True)),
        ("update", b"", Request("update", install=True)),
        ("update", b'{"install": false}', Request("update", install=False)),
    ],
)
def test_a_command_in_order(name: str, payload: bytes, request_: Request) -> None:
    assert parse_request(name, payload) == request_


@pytest.mark.parametrize(
    ("name", "payload", "line"),
    [
        ("puase", b"", "'puase': no such command; did you mean pause?"),
        ("update", b'{"install": 1}', "install: found 1, expected true or false"),
        ("update", b'{"instal": true}', "'instal': unknown field of update; did you mean install"),
        ("pause", b'{"duration": 3}', "'duration': unknown field of pause; did you mean"),
        ("pause", b'{"duration_s": 0}', "duration_s: found 0, expected a number from 1 to"),
        ("pause", b'{"duration_s": "3"}', 'duration_s: found "3", expected a number from 1 to'),
        ("pause", b'{"duration_s": NaN}', "command: not JSON: NaN is no JSON number"),
        ("pause", b"[]", "command: expected a JSON object, found list"),
        ("pause", b"\xff", "command: not JSON"),
        ("pause", b'{"id": 7}', "id: expected a text of 1 to 64 characters"),
        ("reload", b'{"source": "a"}', "'source': unknown field of reload"),
        ("threshold", b"{}", "label: is missing"),
        ("threshold", b'{"label": "dog"}', "onset: is missing"),
        ("threshold", b'{"label": "a", "onset": 0.2, "release": 0.3}', "release: found 0.3, above"),
        ("threshold", b'{"reset": true, "onset": 0.2}', "reset: stands alone"),
        ("pause", b" " * (MAX_COMMAND_BYTES + 1), "command of 4097 bytes: at most 4096"),
    ],
)
def test_a_mistake_is_one_line(name: str, payload: bytes, line: str) -> None:
    with pytest.raises((UsageError, InputError)) as refused:
        parse_request(name, payload)
    assert str(refused.value).startswith(line)


FIELDS = st.sampled_from(
    ["id", "source", "duration_s", "label", "onset", "release", "reset", "install", "x"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
JSONS = st.dictionaries(FIELDS | st.text(max_size=5), VALUES, max_size=5).map(
    lambda values: json.dumps(values).encode()
)
NESTED = st.integers(1, 4_000).map(lambda depth: b"[" * depth)


@given(st.sampled_from(COMMANDS) | st.text(max_size=10), JSONS | st.binary() | NESTED)
def test_anything_is_a_command_or_one_line(name: str, payload: bytes) -> None:
    refusal, request = None, None
    try:
        request = parse_request(name, payload)
    except (UsageError, InputError) as error:
        refusal = str(error)
    if refusal is not None:
        assert len(refusal.splitlines()) == 1
        assert len(refusal) < 400
    else:
        assert request is not None
        given = json.loads(payload) if payload else {}
        assert request.name == name
        # What is obeyed is what was said, and nothing else.
        for key, value in given.items():
            assert getattr(request, key) == value
        assert request.duration_s is None or 1 <= request.duration_s <= 31 * 86_400
        assert request.onset is None or 0.01 <= request.onset <= 1
        assert (request.release or 0) <= (request.onset or 1)


# ------------------------------------------------------------------------- a sensor that runs


class Asker:
    """Sends commands and keeps every answer."""

    def __init__(self, running: ModuleType, port: int) -> None:
        self.collector = running.Collector(port)
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, name: str, payload: bytes | dict[str, Any] = b"", retain: bool = False) -> None:
        content = json.dumps(payload) if isinstance(payload, dict) else payload
        sent = self._client.publish(f"{CMD}/{name}", content, qos=1, retain=retain)
        sent.wait_for_publish(PATIENCE_S)

    def answers(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.collector.of(f"{CMD}/{name}/result")]

    def ask(self, name: str, payload: bytes | dict[str, Any] = b"") -> dict[str, Any]:
        before = len(self.answers(name))
        self.send(name, payload)
        self.collector.wait(lambda: len(self.answers(name)) > before)
        answer = self.answers(name)[before]
        assert answer["schema"] == RESULT_SCHEMA
        assert answer["command"] == name
        return answer

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self.collector.close()


class Place:
    """A folder with settings, and the sensor that runs on them."""

    def __init__(self, running: ModuleType, folder: Path, bundle: Path, port: int) -> None:
        self._running = running
        self.folder, self.port = folder, port
        sound = np.clip(0.3 * np.random.default_rng(8).standard_normal(8_000), -1, 1)
        soundfile.write(folder / "noise.wav", sound, 16_000)
        (folder / "tiny.bundle").write_bytes(bundle.read_bytes())
        self.settings = folder / "soundpost.toml"
        self.started: list[Any] = []

    def write(self, commands: str = "enabled = true\nper_minute = 600", more: str = "") -> None:
        self.settings.write_text(
            f'device_id = "{DEVICE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {self.port}\n'
            'retry_min_s = 0.05\nretry_max_s = 0.2\n[outbox]\npath = "outbox.sqlite3"\n'
            '[model]\nbundle = "tiny.bundle"\n'
            f'[source.mic0]\nurl = "file:noise.wav"\nloop = true\n[commands]\n{commands}\n{more}',
            "utf-8",
        )

    def start(self) -> Any:
        sensor = self._running.Sensor(
            ["-v", "run", "--config", str(self.settings)], self.folder, {}
        )
        self.started.append(sensor)
        sensor.wait_for("listening to")
        sensor.wait_for("subscribed to .*/cmd/", sensor.err)
        return sensor


@pytest.fixture
def place(
    running: ModuleType, mosquitto: Any, tmp_path: Path, tiny_bundle: Path
) -> Iterator[Place]:
    made = Place(running, tmp_path, tiny_bundle, mosquitto.port)
    made.write()
    yield made
    for sensor in made.started:
        sensor.process.kill()
        sensor.process.wait()


@pytest.fixture
def asker(running: ModuleType, mosquitto: Any) -> Iterator[Asker]:
    made = Asker(running, mosquitto.port)
    yield made
    made.close()


def soundpost(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soundpost.device", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_commands_are_obeyed_and_answered_once(place: Place, asker: Asker) -> None:
    sensor = place.start()
    asker.collector.wait(lambda: bool(asker.collector.health()))
    done = asker.ask("pause", {"id": "1", "source": "mic0"})
    assert done == {
        "schema": RESULT_SCHEMA,
        "id": "1",
        "command": "pause",
        "ok": True,
        "message": "mic0 paused",
    }
    asker.collector.wait(lambda: asker.collector.health()[-1].state == "paused")
    asker.collector.wait(lambda: asker.collector.of(f"soundpost/{DEVICE}/mic0/paused")[-1] == "ON")
    assert asker.ask("resume", {"id": "2"})["ok"]
    asker.collector.wait(lambda: asker.collector.health()[-1].state == "ok")
    # A repeat, as QoS 1 makes them, is answered from memory: the sensor is not paused again.
    assert asker.ask("pause", {"id": "1", "source": "mic0"}) == done
    other = asker.ask("pause", {"id": "1"})
    assert (other["ok"], other["message"]) == (False, "id: was used for another command")
    wrong = asker.ask("pause", b'{"id": "9", "sauce": "mic0"}')
    assert (wrong["ok"], wrong["id"]) == (False, "9")
    assert wrong["message"] == "'sauce': unknown field of pause; did you mean source?"
    assert asker.ask("pause", b"not json")["id"] is None
    # Half a character is JSON, but no UTF-8.
    assert asker.ask("resume", b'{"id": "\\ud800"}')["id"] == "\ud800"
    assert not asker.ask("pause", b'{"source": "\\ud800"}')["ok"]
    # Without a repository.
    off = asker.ask("update", {"id": "u"})
    assert off["message"] == "update: updates are off: name a repository in [updates]"
    assert not asker.ask("format-disk", {"id": "a"})["ok"]
    assert asker.ask("threshold", {"label": "clap", "onset": 0.99})["ok"]
    place.write(more="[class.clap]\nmin_gap_s = 0.7\n")
    done = asker.ask("reload", {"id": "3"})
    assert (done["ok"], done["message"]) == (True, "settings reloaded: mic0 retuned")
    place.write(more="[class.cat]\n")
    assert "no such label" in asker.ask("reload", {"id": "4"})["message"]
    assert asker.collector.health()[-1].state in ("ok", "degraded")
    assert asker.collector.of(f"soundpost/{DEVICE}/mic0/paused")[-1] == "OFF"
    assert sensor.end(signal.SIGTERM) == 0
    assert sum(len(asker.answers(name)) for name in (*COMMANDS, "format-disk")) == 13


def test_what_is_not_allowed_is_not_obeyed(place: Place, asker: Asker) -> None:
    place.write('enabled = true\nallow = ["resume"]')
    sensor = place.start()
    refused = asker.ask("pause")
    assert not refused["ok"]
    assert "commands.allow" in refused["message"]
    assert asker.ask("resume")["ok"]
    # Off: not even answered. The answer to what is sent after the next reload shows the order.
    place.write("enabled = false")
    sensor.process.send_signal(signal.SIGHUP)
    sensor.wait_for("settings reloaded")
    asker.send("resume", {"id": "off"})
    place.write("enabled = true")
    sensor.process.send_signal(signal.SIGHUP)
    deadline_s = time.monotonic() + PATIENCE_S
    while sum("settings reloaded" in line for line in sensor.out) < 2:
        assert time.monotonic() < deadline_s, sensor.out
        time.sleep(0.02)
    assert asker.ask("resume", {"id": "on"})["id"] == "on"
    assert "off" not in {answer["id"] for answer in asker.answers("resume")}


def test_a_flood_is_answered_and_obeyed_by_the_minute(place: Place, asker: Asker) -> None:
    place.write("enabled = true\nper_minute = 3")
    place.start()
    answers = [asker.ask("resume", {"id": str(n)}) for n in range(5)]
    assert [answer["ok"] for answer in answers] == [True] * 3 + [False] * 2
    assert answers[-1]["message"] == "more than 3 commands a minute"
    assert [answer["id"] for answer in answers] == list("01234")


def test_a_retained_command_is_never_obeyed(place: Place, asker: Asker) -> None:
    asker.send("pause", {"id": "old"}, retain=True)
    sensor = place.start()
    sensor.wait_for("retained command on .*cmd/pause is not obeyed", sensor.err)
    assert asker.ask("resume", {"id": "new"})["ok"]
    assert asker.answers("pause") == []
    deadline_s = time.monotonic() + PATIENCE_S
    while not asker.collector.health():
        assert time.monotonic() < deadline_s, sensor.err
        time.sleep(0.02)
    assert asker.collector.health()[-1].state == "ok"


def test_commands_survive_a_broker_that_returns(
    place: Place, mosquitto: Any, running: ModuleType, asker: Asker
) -> None:
    sensor = place.start()
    assert asker.ask("resume")["ok"]
    mosquitto.kill()
    mosquitto.start()
    again = Asker(running, mosquitto.port)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while sum("subscribed to" in line and "/cmd/" in line for line in sensor.err) < 2:
            assert time.monotonic() < deadline_s, sensor.err
            time.sleep(0.02)
        assert again.ask("resume", {"id": "after"})["ok"]
    finally:
        again.close()


# ----------------------------------------------------------------------- without a microphone


class Obedient:
    """A control that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self, _source: str | None, _duration_s: float | None) -> str:
        self.told.append("pause")
        return "mic0 paused"

    def resume(self, _source: str | None) -> str:
        self.told.append("resume")
        return "mic0 listening"


@pytest.fixture
def obedient(mosquitto: Any) -> Iterator[tuple[Remote, Obedient]]:
    control = Obedient()
    settings = BrokerSettings(port=mosquitto.port)
    with Publisher(settings, Topics("soundpost", DEVICE)) as publisher:
        allowed = CommandSettings(enabled=True, per_minute=600)
        listening = Remote(control, publisher, allowed)  # type: ignore[arg-type]
        listening.start()
        publisher.wait_connected(PATIENCE_S)
        yield listening, control
        listening.close()


def ask_until_heard(asker: Asker) -> None:
    """The subscription of a sensor may come after it is online."""
    while not asker.answers("resume"):
        asker.send("resume")
        time.sleep(0.05)


def test_a_name_of_any_length_leaves_it_listening(
    obedient: tuple[Remote, Obedient], asker: Asker
) -> None:
    """The longest topic that MQTT has leaves no room for `/result` behind it."""
    listening, _ = obedient
    ask_until_heard(asker)
    for n_bytes in (129, 65_528 - len(CMD), 65_529 - len(CMD), 65_534 - len(CMD)):
        asker.send("a" * n_bytes)
    assert asker.ask("a" * 128)["ok"] is False
    assert asker.ask("pause", {"id": "after"})["ok"]
    assert listening.refused == 4


def test_an_id_that_is_always_the_same_is_obeyed_again_after_a_while(
    obedient: tuple[Remote, Obedient], asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An automation has one text for each command: pause, resume, and on the next day pause."""
    _, control = obedient
    ask_until_heard(asker)
    control.told.clear()
    for _ in range(2):
        assert asker.ask("pause", {"id": "fixed"})["message"] == "mic0 paused"
    assert control.told == ["pause"]
    # As if the while had passed.
    monkeypatch.setattr(remote, "_REPEATED_S", 0.0)
    for _ in range(2):
        assert asker.ask("resume", {"id": "of resume"})["ok"]
    assert asker.ask("pause", {"id": "of resume"})["ok"]
    assert control.told == ["pause", "resume", "resume", "pause"]


# --------------------------------------------------------------------------- soundpost command


def test_the_command_line_asks_and_tells_by_its_exit_code(place: Place, asker: Asker) -> None:
    sensor = place.start()
    at = ("--device", DEVICE, "--port", place.port)
    done = soundpost("command", "pause", *at, "--source", "mic0", "--duration", "600")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "porch-pi: mic0 paused for 600 s\n"
    done = soundpost("command", "resume", "--config", place.settings)
    assert (done.returncode, done.stdout) == (0, "porch-pi: mic0 listening\n")
    done = soundpost("command", "threshold", *at, "--label", "clap", "--onset", "0.8")
    assert (done.returncode, done.stdout) == (0, "porch-pi: clap: onset 0.8, release 0.516129\n")
    shown = soundpost("config", "show", place.settings)
    assert "# clap: onset 0.8" in shown.stdout
    done = soundpost("command", "threshold", *at, "--label", "clop", "--onset", "0.8")
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr == "porch-pi: label 'clop': no such label; did you mean clap?\n"
    # What the sensor would refuse is told before it is asked.
    done = soundpost("command", "threshold", *at, "--label", "clap", "--onset", "8")
    assert done.returncode == 2
    assert "expected a number from 0.01 to 1" in done.stderr
    assert soundpost("command", "pause").returncode == 2
    away = ("--device", "yard-pi", "--port", place.port, "--timeout", "0.5")
    done = soundpost("command", "pause", *away)
    assert (done.returncode, done.stdout) == (124, "")
    assert "no answer within 0.5 s" in done.stderr
    done = soundpost("command", "threshold", *at, "--reset")
    assert done.returncode == 0
    assert sensor.end(signal.SIGTERM) == 0
    asker.collector.wait(lambda: len(asker.answers("threshold")) == 3)


def test_sighup_reloads_and_a_bad_file_is_told(place: Place, asker: Asker) -> None:
    sensor = place.start()
    place.write(more="[class.clap]\nmin_gap_s = 0.3\n")
    sensor.process.send_signal(signal.SIGHUP)
    sensor.wait_for("settings reloaded: mic0 retuned")
    place.write(more="[class.clap]\nonset = 3\n")
    sensor.process.send_signal(signal.SIGHUP)
    sensor.wait_for(r"settings were not reloaded: .*onset: found 3", sensor.err)
    asker.collector.wait(lambda: "onset: found 3" in (asker.collector.health()[-1].reason or ""))
    assert sensor.end(signal.SIGTERM) == 0
