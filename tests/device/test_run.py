"""`soundpost run` as a process: settings, signals, brokers; one line for whatever it cannot do."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.events import SoundEvent
from soundpost.device.subscriber import Subscriber

PATIENCE_S = 60.0
SOUNDPOST = [sys.executable, "-m", "soundpost.device"]
Start = Callable[..., Any]


@pytest.fixture
def start(running: ModuleType, tiny_bundle: Path, tmp_path: Path) -> Iterator[Start]:
    """Start the sensor with the tiny student, its own broker on a free port unless told."""
    started: list[Any] = []

    def sensor(*options: object, before: tuple[str, ...] = (), **environment: str) -> Any:
        arguments = [*before, "run", "--bundle", str(tiny_bundle), "--device-id", "porch-pi"]
        if not any("mqtt." in str(option) or "--config" in str(option) for option in options):
            arguments += ["--set", "broker.port=0"]
        made = running.Sensor([*arguments, *map(str, options)], tmp_path, environment)
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
    running: ModuleType,
    start: Start,
    tiny_bundle: Path,
    clap_wav: Path,
    mosquitto: Any,
    tmp_path: Path,
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
            env=running.environment_of(tmp_path, {}),
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


def test_levels_are_told_with_their_reference(start: Start, tmp_path: Path) -> None:
    (tmp_path / "soundpost.toml").write_text(
        "[levels]\nenabled = true\ninterval_s = 10\n"
        '[source.yard]\nprofile = "m.toml"\n[source.hall]\n'
    )
    profile = 'schema = "soundpost.microphone/1"\nname = "M1"\nsensitivity_dbfs = -26\n'
    (tmp_path / "m.toml").write_text(profile)
    sensor = start("--config", "soundpost.toml", "--check")
    assert sensor.end() == 0
    assert [line for line in sensor.out if "levels" in line] == [
        "yard: levels every 10 s in dB SPL by the profile M1",
        "hall: levels every 10 s in dBFS, not calibrated: no profile gives a sensitivity",
    ]
    sensor = start("--config", "soundpost.toml", "--set", "levels.enabled=false", "--check")
    assert sensor.end() == 0
    assert [line for line in sensor.out if "levels" in line] == [
        "yard: levels of events in dB SPL by the profile M1"
    ]
    (tmp_path / "m.toml").write_text(profile + "gain = 3\n")
    sensor = start("--config", "soundpost.toml", "--check")
    assert sensor.end() == 2
    (line,) = sensor.err
    assert line.startswith("m.toml: gain: unknown key; known: schema, name, ")


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


def test_a_microphone_that_is_not_there_is_waited_for(start: Start) -> None:
    """A USB microphone may come up after the sensor, or be plugged in later."""
    sensor = start("--source", "mic:none of this name", "--set", "broker.port=0")
    sensor.wait_for(r"source mic0: .*(none of this name|no microphone found)", sensor.err)
    assert sensor.end(signal.SIGTERM) == 0
    assert sum("source mic0" in line for line in sensor.err) == 1


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


def test_an_absent_broker_does_not_stop_it_but_what_waits_is_told(
    start: Start, clap_wav: Path, tmp_path: Path
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
    outbox = tmp_path / "state" / "soundpost" / "outbox-porch-pi.sqlite3"
    assert last.startswith(
        f"MQTT broker at 127.0.0.1:{port}: 2 messages were not delivered, 2 wait in {outbox} for "
        "the next start: start it"
    )


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


# ------------------------------------------------------------------------------- the outbox


def test_what_a_killed_sensor_said_arrives_after_its_restart(
    start: Start, clap_wav: Path, mosquitto: Any
) -> None:
    """Killed without a broker, and again with one: each event that it told of is received."""
    received: list[SoundEvent] = []
    said: list[list[tuple[str, str]]] = []
    mosquitto.kill()
    for life in range(3):
        if life == 1:
            mosquitto.start()
            subscriber = Subscriber(BrokerSettings(port=mosquitto.port), received.append).start()
            subscriber.wait_connected(PATIENCE_S)
        sensor = start("--source", clap_wav, *LOOP, *at(mosquitto.port))
        deadline_s = time.monotonic() + PATIENCE_S
        while sum("clap end" in line for line in sensor.out) < 2:
            assert time.monotonic() < deadline_s, (sensor.out, sensor.err)
            time.sleep(0.01)
        assert sensor.end(signal.SIGKILL if life < 2 else signal.SIGTERM) in (-signal.SIGKILL, 0)
        lines = [line.split() for line in sensor.out]
        said.append([(words[2], words[3]) for words in lines if words[1:2] == ["mic0"]])
    deadline_s = time.monotonic() + PATIENCE_S
    while sum(one.phase == "end" for one in received) < sum(
        phase == "end" for events in said for _, phase in events
    ):
        assert time.monotonic() < deadline_s, received
        time.sleep(0.01)
    subscriber.close()
    streams = list(dict.fromkeys(one.stream for one in received))
    assert len(streams) == 3
    for stream, events in zip(streams, said, strict=True):
        heard = [(one.label, one.phase) for one in received if one.stream == stream]
        # What was put in the last instant may not have been told of.
        assert heard[: len(events)] == events
        assert len(heard) - len(events) <= 1
    assert [one.stream for one in received] == [
        one.stream for stream in streams for one in received if one.stream == stream
    ]


def test_a_second_sensor_with_the_same_outbox_refuses(start: Start, clap_wav: Path) -> None:
    first = start("--source", clap_wav, *LOOP)
    first.wait_for("listening to")
    second = start("--source", clap_wav, *LOOP)
    assert second.end() == 3
    (line,) = second.err
    assert line.endswith(
        "outbox-porch-pi.sqlite3: another soundpost uses it; end that one, or give this sensor a "
        "file of its own with outbox.path"
    )
    assert second.out == []
    assert first.end(signal.SIGTERM) == 0


def test_an_outbox_that_cannot_be_used_does_not_stop_it(
    start: Start, clap_wav: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "garbage").write_bytes(b"RIFF" * 5_000)
    for name, told in [("file/outbox", "cannot be used"), ("garbage", "is damaged")]:
        path = tmp_path / name
        sensor = start("--source", clap_wav, "--set", f"outbox.path={path}")
        assert sensor.end() == 0
        assert sum(" clap " in line for line in sensor.out) == 2
        (line,) = [line for line in sensor.err if not line.startswith("MQTT broker at")]
        assert f"outbox {path}" in line
        assert told in line


def test_what_waits_in_memory_only_is_told_to_be_lost(
    start: Start, clap_wav: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        sensor = start(
            *("--source", clap_wav, *at(port)), *("--set", f"outbox.path={tmp_path}/file/outbox")
        )
        assert sensor.end() == 4
    assert "2 messages were not delivered, 0 wait in" in sensor.err[-1]
    assert ", 2 are lost: " in sensor.err[-1]


def test_check_touches_no_outbox(start: Start, clap_wav: Path, tmp_path: Path) -> None:
    assert start("--source", clap_wav, "--check").end() == 0
    assert not (tmp_path / "state").exists()


# ------------------------------------------------------------------------- clips and privacy

CLIPS = [
    *("--set", "clips.enabled=true", "--set", "clips.folder=kept", "--set", "clips.min_free_mb=0"),
    *("--set", "clips.labels=['clap']", "--set", "class.clap.min_gap_s=0.2"),
]
# Everything by which bytes can come to lie in a file, or in memory that has a name.
TRACED = (
    "open,openat,openat2,creat,memfd_create,mknod,mknodat,rename,renameat,renameat2,link,linkat,"
    "write,writev,pwrite64,pwritev,pwritev2,sendfile,splice,copy_file_range"
)
_OPENED = re.compile(r'\b(?:open|openat|openat2|creat)\(.*?"(.*?)"(.*)')


def clap_with(voice: NDArray[np.float64] | None, path: Path) -> None:
    """Six seconds with a clap of noise from 2.0 to 2.6 s; the voice comes half a second later."""
    rng = np.random.default_rng(8)
    sound = 1e-3 * rng.standard_normal(96_000)
    sound[32_000:41_600] += 0.3 * rng.standard_normal(9_600)
    if voice is not None:
        sound[49_600 : 49_600 + len(voice)] += voice[: len(sound) - 49_600]
    soundfile.write(path, np.clip(sound, -1, 1), 16_000)


def traced(
    running: ModuleType, sound: Path, bundle: Path, folder: Path
) -> tuple[Any, set[Path], list[str]]:
    """A run on a file under strace: the sensor, files it opened to write, and its writing calls."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is missing: sudo apt-get install strace")
    log = folder / "calls"
    under = [strace, "-f", "-y", "-s", "0", "-o", str(log), "-e", f"trace={TRACED}"]
    arguments = ["run", "--bundle", str(bundle), "--source", f"file:{sound}"]
    arguments += ["--set", "broker.port=0", *CLIPS]
    sensor = running.Sensor(arguments, folder, {"PYTHONDONTWRITEBYTECODE": "1"}, under)
    assert sensor.end() == 0, sensor.err
    calls = log.read_text(encoding="utf-8", errors="replace").splitlines()
    opened = set()
    for call in calls:
        found = _OPENED.search(call)
        writing = found and re.search("O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE|creat", call)
        if found and writing and "= -1 E" not in call:
            opened.add(folder / found[1])
    return sensor, opened, [call for call in calls if not _OPENED.search(call)]


def holds_sound(content: bytes, sound: Path) -> bool:
    """Whether a stretch of the recording lies in it, in any usual form of samples."""
    if b"fLaC" in content or b"RIFF" in content or b"OggS" in content:
        return True
    whole = soundfile.read(sound, dtype="int16")[0]
    forms = [whole.astype("<i2"), (whole / 32_768).astype("<f4"), (whole / 32_767).astype("<f4")]
    return any(
        form[at : at + 16].tobytes() in content
        for form in forms
        for at in range(0, len(whole) - 16, 800)
        if np.ptp(form[at : at + 16]) > 0
    )


def test_no_sound_of_speech_is_written_anywhere(
    running: ModuleType, tiny_bundle: Path, tmp_path: Path, voices: dict[str, NDArray[np.float64]]
) -> None:
    sound = tmp_path / "speech.wav"
    clap_with(voices["en-gb"], sound)
    sensor, opened, calls = traced(running, sound, tiny_bundle, tmp_path)
    # The detection went out, its sound did not.
    assert any(" mic0 clap start " in line for line in sensor.out)
    assert any(" mic0 clap end " in line for line in sensor.out)
    assert "clips: 0 written, 1 gated, 0 unjudged, 0 failed" in sensor.out[-1]
    state = tmp_path / "state" / "soundpost"
    outbox = [path for path in opened if path.parent == state]
    assert {path.name.split(".sqlite3")[0] for path in outbox} == {outbox[0].name.split(".")[0]}
    assert opened - set(outbox) <= {Path("/dev/null")}
    assert list((tmp_path / "kept").iterdir()) == []
    # Nor into memory with a name, nor by a name given later.
    later = (
        "memfd_create",
        "mknod",
        "rename",
        "link(",
        "linkat",
        "sendfile",
        "splice",
        "copy_file",
    )
    assert not [call for call in calls if any(f" {name}" in call for name in later)]
    written = {found[1] for call in calls if (found := re.search(r"write\w*\(\d+<(.*?)>", call))}
    files = {Path(target) for target in written if target.startswith("/")}
    assert files <= set(outbox) | {Path("/dev/null")}
    for path in outbox:
        assert not path.exists() or not holds_sound(path.read_bytes(), sound)


def test_the_trace_sees_a_clip_that_is_written(
    running: ModuleType, tiny_bundle: Path, tmp_path: Path
) -> None:
    """What the test above looks for is there where nobody speaks."""
    sound = tmp_path / "clap.wav"
    clap_with(None, sound)
    sensor, opened, calls = traced(running, sound, tiny_bundle, tmp_path)
    assert "clips: 1 written, 0 gated, 0 unjudged, 0 failed" in sensor.out[-1]
    kept = sorted((tmp_path / "kept").iterdir())
    assert [path.suffix for path in kept] == [".flac", ".json"]
    assert [path for path in opened if path.parent == tmp_path / "kept"]
    assert [call for call in calls if " rename" in call]
    assert holds_sound(kept[0].read_bytes(), sound)
    clip, rate_hz = soundfile.read(kept[0], dtype="int16")
    whole = soundfile.read(sound, dtype="int16")[0]
    assert rate_hz == 16_000
    first = json.loads(kept[1].read_text(encoding="utf-8"))["first_sample"]
    # The file's full scale is 32,768, the clip's 32,767.
    assert np.abs(clip - whole[first : first + len(clip)].astype(np.int32)).max() <= 1
    assert first < 32_000 < 41_600 < first + len(clip)


def test_without_settings_no_sound_is_written(start: Start, tmp_path: Path, clap_wav: Path) -> None:
    sensor = start("--source", f"file:{clap_wav}", "--set", "class.clap.min_gap_s=0.2")
    assert sensor.end() == 0
    assert "clips" not in " ".join(sensor.out)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path != clap_wav]
    assert not [path for path in left if holds_sound(path.read_bytes(), clap_wav)]


def test_a_folder_for_clips_that_cannot_be_used_does_not_stop_it(
    start: Start, clap_wav: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("no folder")
    sensor = start("--source", clap_wav, *CLIPS)
    assert sensor.end() == 0
    assert sum(" clap " in line for line in sensor.out) == 2
    (line,) = [line for line in sensor.err if "kept" in line]
    assert "kept: cannot hold clips (" in line
    assert line.endswith("; it listens without clips, and tries again")


def test_a_label_of_clips_that_no_bundle_has(start: Start) -> None:
    sensor = start("--check", "--set", "clips.enabled=true", "--set", "clips.labels=['clab']")
    assert sensor.end() == 2
    assert sensor.err == [
        "settings: [clips] labels: no source's bundle has 'clab'; did you mean clap?"
    ]


def test_what_it_prints_may_go_nowhere(
    running: ModuleType,
    tiny_bundle: Path,
    clap_wav: Path,
    mosquitto: Any,
    collect: Callable[[int], Any],
    tmp_path: Path,
) -> None:
    """Its log lies on a full disk: broker and settings come back as if somebody read it."""
    settings = tmp_path / "sensor.toml"
    settings.write_text(f'''
        device_id = "{running.DEVICE}"
        [model]
        bundle = "{tiny_bundle}"
        [mqtt]
        host = "127.0.0.1"
        port = {mosquitto.port}
        retry_min_s = 0.1
        retry_max_s = 0.2
        [source.mic0]
        url = "file:{clap_wav}"
        loop = true
    ''')
    nowhere = ["sh", "-c", 'exec "$@" > /dev/full 2> /dev/full', "sh"]
    sensor = running.Sensor(["run", "--config", str(settings)], tmp_path, {}, under=nowhere)
    try:
        first = collect(mosquitto.port)
        first.wait(lambda: len(first.events()) > 0)
        mosquitto.kill()
        mosquitto.start()
        second = collect(mosquitto.port)
        second.wait(lambda: len(second.events()) > 0)
        settings.write_text(settings.read_text().replace("mic0", "yard"))
        sensor.process.send_signal(signal.SIGHUP)
        second.wait(lambda: len(second.events("yard")) > 0)
    finally:
        sensor.process.kill()
        sensor.process.wait()
