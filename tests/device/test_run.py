"""`soundpost run` as a process: settings, signals, brokers; one line for whatever it cannot do."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.device.events import SoundEvent
from soundpost.device.mqtt import BrokerSettings, Subscriber

PATIENCE_S = 60.0
SOUNDPOST = [sys.executable, "-m", "soundpost.device"]


class Sensor:
    """A running `soundpost run`; its lines are collected as they come."""

    def __init__(self, arguments: list[str], cwd: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*SOUNDPOST, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, **environment},
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=pair)
            for pair in [(self.process.stdout, self.out), (self.process.stderr, self.err)]
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))

    def wait_for(self, pattern: str, lines: list[str] | None = None) -> str:
        """First line in which the pattern is found; of standard output unless told."""
        deadline_s = time.monotonic() + PATIENCE_S
        where = self.out if lines is None else lines
        while True:
            for line in list(where):
                if re.search(pattern, line):
                    return line
            assert self.process.poll() is None, (self.out, self.err)
            assert time.monotonic() < deadline_s, (self.out, self.err)
            time.sleep(0.02)

    def end(self, which: signal.Signals | None = None) -> int:
        """Exit code, with all lines in; after a signal, if one is given."""
        if which is not None:
            self.process.send_signal(which)
        code = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any("Traceback" in line for line in self.err), self.err
        return code


Start = Callable[..., Sensor]


@pytest.fixture
def start(tiny_bundle: Path, tmp_path: Path) -> Iterator[Start]:
    """Start the sensor with the tiny student, its own broker on a free port unless told."""
    started: list[Sensor] = []

    def sensor(*options: object, before: tuple[str, ...] = (), **environment: str) -> Sensor:
        arguments = [*before, "run", "--bundle", str(tiny_bundle), "--device-id", "porch-pi"]
        if not any("mqtt." in str(option) or "--config" in str(option) for option in options):
            arguments += ["--set", "broker.port=0"]
        made = Sensor([*arguments, *map(str, options)], tmp_path, environment)
        started.append(made)
        return made

    yield sensor
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def clap_wav(tmp_path: Path) -> Path:
    """1.5 s of sound with noise between 0.4 and 0.9 s."""
    path = tmp_path / "clap.wav"
    sound = np.zeros(24_000)
    sound[6_400:14_400] = 0.3 * np.random.default_rng(8).standard_normal(8_000)
    soundfile.write(path, np.clip(sound, -1, 1), 16_000)
    return path


def at(port: int) -> list[str]:
    return ["--set", "mqtt.host=127.0.0.1", "--set", f"mqtt.port={port}"]


LOOP = ["--set", "source.mic0.loop=true", "--set", "class.clap.min_gap_s=0.2"]

# ------------------------------------------------------------------------------- its whole life


def test_a_file_is_heard_to_its_end_over_a_broker_of_its_own(start: Start, clap_wav: Path) -> None:
    sensor = start("--source", f"file:{clap_wav}")
    assert sensor.end() == 0
    begin, *events, totals = sensor.out
    assert re.fullmatch(
        rf"porch-pi/mic0: listening to file:{re.escape(str(clap_wav))} with tiny 1\.2\.0-rc\.1 "
        r"\(3 labels\); own broker 127\.0\.0\.1:\d+; Ctrl-C ends it",
        begin,
    )
    assert [line.split()[1:4] for line in events] == [
        ["mic0", "clap", "start"],
        ["mic0", "clap", "end"],
    ]
    assert totals == "mic0: 1.5 s heard, 28 windows scored, 1 events"
    assert all(line.startswith("MQTT broker at 127.0.0.1:") for line in sensor.err)


@pytest.mark.parametrize(("which", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_in_order(
    which: signal.Signals, code: int, start: Start, clap_wav: Path, mosquitto: Any
) -> None:
    events: list[SoundEvent] = []
    statuses: list[bool] = []
    offline = threading.Event()

    def status(_device: str, online: bool) -> None:
        statuses.append(online)
        if not online:
            offline.set()

    with Subscriber(BrokerSettings(port=mosquitto.port), events.append, on_status=status) as heard:
        heard.wait_connected(PATIENCE_S)
        sensor = start("--source", clap_wav, *LOOP, *at(mosquitto.port))
        sensor.wait_for("clap start")
        told_s = time.monotonic()
        assert sensor.end(which) == code
        print(f"ended {time.monotonic() - told_s:.2f} s after the signal")
        assert offline.wait(PATIENCE_S)
    # An orderly end: what lasted was ended, and it said so itself.
    assert statuses[-2:] == [True, False]
    assert [event.phase for event in events][-1] == "end"
    assert {event.device for event in events} == {"porch-pi"}
    assert sensor.out[-1].startswith("mic0: ")


def test_a_signal_before_it_listens_ends_it_too(start: Start, clap_wav: Path) -> None:
    sensor = start("--source", clap_wav, *LOOP)
    sensor.wait_for("listening to")
    assert sensor.end(signal.SIGTERM) == 0


def test_a_reader_that_goes_away_does_not_stop_a_sensor(
    start: Start, tiny_bundle: Path, clap_wav: Path, mosquitto: Any
) -> None:
    events: list[SoundEvent] = []
    with Subscriber(BrokerSettings(port=mosquitto.port), events.append) as heard:
        heard.wait_connected(PATIENCE_S)
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [
                *(*SOUNDPOST, "run", "--bundle", tiny_bundle, "--source", clap_wav),
                *(*LOOP, *at(mosquitto.port)),
            ],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(writer)
        try:
            assert os.read(reader, 10)
            os.close(reader)
            deadline_s = time.monotonic() + PATIENCE_S
            while len(events) < 4:
                assert process.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert "Traceback" not in err


# ------------------------------------------------------------------------------- settings


def test_check_reads_everything_and_listens_to_nothing(
    start: Start, tmp_path: Path, tiny_bundle: Path
) -> None:
    (tmp_path / "soundpost.toml").write_text(
        f'[model]\nbundle = "{tiny_bundle}"\n[source.yard]\nurl = "mic:USB"\n'
        '[source.hall]\nurl = "file:hall.wav"\n[class.clap]\nonset = 0.7\n'
    )
    sensor = start("--config", "soundpost.toml", "--check")
    assert sensor.end() == 0
    assert sensor.err == []
    assert sensor.out == [
        "yard: mic:USB, bundle tiny 1.2.0-rc.1: in order",
        "hall: file:hall.wav, bundle tiny 1.2.0-rc.1: in order",
    ]


def test_paths_of_options_are_of_the_shells_folder(
    start: Start, tmp_path: Path, tiny_bundle: Path, clap_wav: Path
) -> None:
    """Those in a settings file are of the file's folder."""
    away = tmp_path / "etc"
    away.mkdir()
    (away / "soundpost.toml").write_text("[broker]\nport = 0\n")
    (tmp_path / "mine.bundle").write_bytes(tiny_bundle.read_bytes())
    options = ["--config", "etc/soundpost.toml", "--bundle", "mine.bundle"]
    for source in (clap_wav.name, f"file:{clap_wav.name}"):
        sensor = start(*options, "--source", source)
        assert sensor.end() == 0, sensor.err


@pytest.mark.parametrize(
    ("options", "settings", "code", "said"),
    [
        (["--set", "mqtt.hots=x"], "", 2, "option mqtt.hots: unknown key; did you mean host?"),
        (["--set", "broker.port"], "", 2, "'broker.port': expected KEY=VALUE"),
        (["--set", "class.clap.onset=2"], "", 2, "option class.clap.onset: found 2, expected"),
        (["--set", "class.dog.onset=0.5"], "", 2, "settings: [class.dog]: the bundle has no such"),
        (["--bundle", "none.bundle"], "", 3, "none.bundle: cannot be read (No such file"),
        (["--config", "none.toml"], "", 3, "none.toml: cannot read the settings: No such file"),
        ([], "[mqtt]\nprot = 1884\n", 2, "s.toml:2: [mqtt] prot: unknown key; did you mean port?"),
        ([], "device_id = \n", 2, "s.toml: not TOML: "),
        (["--channel", "left"], "", 2, "option source.mic0.channel: found 'left', expected"),
        (
            ["--source", "mic:"],
            '[source.a]\nurl="mic:"\n[source.b]\nurl="mic:"\n',
            2,
            "--source: there are 2 sources, a, b; use --set source.NAME.url=VALUE",
        ),
        (["--source", "ftp://x"], "", 2, ""),
        (["--source", "mic:none of this name"], "", 5, ""),
        (["--source", "none.wav"], "", 3, ""),
    ],
)
def test_a_wrong_setting_is_one_line(
    options: list[str], settings: str, code: int, said: str, start: Start, tmp_path: Path
) -> None:
    if settings:
        (tmp_path / "s.toml").write_text(settings)
        options = ["--config", "s.toml", *options]
    sensor = start(*options, "--set", "broker.port=0") if not settings else start(*options)
    assert sensor.end() == code
    lines = [line for line in sensor.err if not line.startswith("MQTT broker at 127.0.0.1")]
    assert len(lines) == 1
    assert said in lines[0]


def test_a_source_that_fails_is_told_at_once_and_the_other_goes_on(
    start: Start, tmp_path: Path, clap_wav: Path
) -> None:
    (tmp_path / "s.toml").write_text(
        '[broker]\nport = 0\n[source.yard]\nurl = "file:none.wav"\n'
        f'[source.hall]\nurl = "file:{clap_wav}"\nloop = true\n[class.clap]\nmin_gap_s = 0.2\n'
    )
    sensor = start("--config", "s.toml")
    sensor.wait_for(r"source yard: none\.wav: cannot be read", sensor.err)
    seen = len(sensor.out)
    deadline_s = time.monotonic() + PATIENCE_S
    while sum("hall clap start" in line for line in sensor.out[seen:]) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    assert sensor.end(signal.SIGTERM) == 3
    assert sum("yard" in line for line in sensor.err) == 1


def test_one_channel_of_many(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "array.wav"
    sound = np.zeros((16_000, 96))
    sound[4_000:9_000, 7] = 0.3 * np.random.default_rng(8).standard_normal(5_000)
    soundfile.write(path, np.clip(sound, -1, 1), 16_000)
    sensor = start("--source", path, "--channel", 7)
    assert sensor.end() == 0
    assert any("clap start" in line for line in sensor.out)
    sensor = start("--source", path)
    assert sensor.end() == 3
    (line,) = [line for line in sensor.err if "channels" in line]
    assert line.startswith("source mic0: array.wav: 96 channels")
    assert "--channel 0 to --channel 95" in line


# ------------------------------------------------------------------------------- brokers


def test_an_absent_broker_does_not_stop_it_but_what_is_lost_is_told(
    start: Start, clap_wav: Path
) -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody else gets the port, and it refuses.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        sensor = start("--source", clap_wav, *at(port))
        assert sensor.end() == 4
    assert sum(" clap " in line for line in sensor.out) == 2
    first, last = sensor.err
    assert first.startswith(f"MQTT broker at 127.0.0.1:{port}: connection refused: nothing listens")
    assert last.startswith(f"MQTT broker at 127.0.0.1:{port}: 2 messages were not delivered: ")


def test_a_taken_port_is_one_line(start: Start, clap_wav: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        sensor = start("--source", clap_wav, "--set", f"broker.port={port}")
        assert sensor.end() == 4
    (line,) = sensor.err
    assert line.startswith(f"embedded MQTT broker: 127.0.0.1:{port} is taken by another program")


@pytest.fixture
def guarded(start_mosquitto: Callable[..., Any], tmp_path: Path) -> Any:
    """A Mosquitto that knows `sensor` with the password `s3cret-enough`."""
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", passwords, "sensor", "s3cret-enough"],
        check=True,
        capture_output=True,
    )
    passwords.chmod(0o644)
    return start_mosquitto(f"allow_anonymous false\npassword_file {passwords}")


def test_a_broker_that_refuses_is_named(guarded: Any, start: Start, clap_wav: Path) -> None:
    sensor = start("--source", clap_wav, *at(guarded.port))
    assert sensor.end() == 4
    first, last = sensor.err
    assert re.match(rf"MQTT broker at 127\.0\.0\.1:{guarded.port}: not authorised: set the", first)
    assert "2 messages were not delivered" in last


@pytest.mark.parametrize("way", ["variable", "file"])
def test_the_password_lets_it_in_and_is_shown_nowhere(
    way: str, guarded: Any, start: Start, clap_wav: Path, tmp_path: Path
) -> None:
    password = "s3cret-enough"
    options = [*at(guarded.port), "--set", "mqtt.username=sensor"]
    environment = {}
    if way == "variable":
        environment["SOUNDPOST_MQTT_PASSWORD"] = password
    else:
        (tmp_path / "password").write_text(f"{password}\n")
        options += ["--set", "mqtt.password_file=password"]
    sensor = start("--source", clap_wav, *LOOP, *options, before=("-v", "-v"), **environment)
    sensor.wait_for("connected$", sensor.err)
    sensor.wait_for("clap end")
    shown = Path(f"/proc/{sensor.process.pid}/cmdline").read_bytes()
    assert b"mqtt.username=sensor" in shown
    assert password.encode() not in shown
    assert sensor.end(signal.SIGTERM) == 0
    assert any(" DEBUG " in line or " INFO " in line for line in sensor.err)
    assert not any(password in line for line in sensor.out + sensor.err)


def test_a_wrong_password_is_not_shown_either(guarded: Any, start: Start, clap_wav: Path) -> None:
    sensor = start(
        *("--source", clap_wav, *at(guarded.port), "--set", "mqtt.username=sensor"),
        SOUNDPOST_MQTT_PASSWORD="not-the-one",
    )
    assert sensor.end() == 4
    assert "not authorised" in sensor.err[0] or "bad user name or password" in sensor.err[0]
    assert not any("not-the-one" in line for line in sensor.out + sensor.err)


def test_a_password_among_the_settings_is_refused_and_not_repeated(start: Start) -> None:
    sensor = start("--set", "mqtt.host=x", "--set", "mqtt.password=hunter22")
    assert sensor.end() == 2
    (line,) = sensor.err
    assert "SOUNDPOST_MQTT_PASSWORD" in line
    assert "hunter22" not in line
