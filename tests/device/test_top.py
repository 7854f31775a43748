"""`soundpost top` beside a sensor that really runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
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

SOUNDPOST = [sys.executable, "-m", "soundpost.device"]
RATE_HZ = 16_000
PATIENCE_S = 60.0


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder of the test's own, as a session of systemd has one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    return tmp_path / "soundpost"


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture
def sensor(
    runtime: Path, tiny_bundle: Path, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Function that runs `soundpost run` on noise, in real time; its own broker, no other."""
    noise = 0.3 * np.random.default_rng(8).standard_normal(60 * RATE_HZ)
    soundfile.write(tmp_path / "noise.wav", noise.clip(-1, 1), RATE_HZ)
    running: list[subprocess.Popen[str]] = []

    def run(device: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *(*SOUNDPOST, "run", "--device-id", device, "--bundle", str(tiny_bundle)),
                *("--source", f"file:{tmp_path / 'noise.wav'}", "--set", "broker.port=0"),
                *("--set", "source.mic0.loop=true"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        deadline_s = time.monotonic() + PATIENCE_S
        while not answers(runtime / f"{device}.sock"):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


Sensor = Callable[..., "subprocess.Popen[str]"]


def top(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SOUNDPOST, "top", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_one_picture_as_text_or_json(sensor: Sensor, runtime: Path) -> None:
    process = sensor("porch-pi")
    assert stat.S_IMODE((runtime / "porch-pi.sock").stat().st_mode) == 0o600
    told = top("--once", "--json")
    assert (told.returncode, told.stderr) == (0, "")
    record = json.loads(told.stdout)
    assert (record["schema"], record["device"]) == ("soundpost.monitor/1", "porch-pi")
    deadline_s = time.monotonic() + PATIENCE_S
    while "\nbroker connected  " not in (told := top("--once")).stdout:
        # It listens before its broker has answered.
        assert "\nbroker connecting  " in told.stdout
        assert time.monotonic() < deadline_s
    assert told.stdout.startswith("porch-pi  up ")
    assert "\x1b" not in told.stdout
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert not (runtime / "porch-pi.sock").exists()
    assert "windows scored" in out


def test_the_live_picture_ends_with_q_and_with_its_sensor(
    sensor: Sensor, terminal: Any, runtime: Path
) -> None:
    process = sensor("porch-pi")
    for end in ("q", "the sensor ends"):
        running = terminal(80, 24, [*SOUNDPOST, "top"])
        rows = running.wait(lambda rows: any("clap" in row and "█" in row for row in rows))
        assert rows[0].startswith("porch-pi  up ")
        bar = next(row for row in rows if "clap" in row)
        # What the tiny student makes of noise; see the fixture tiny_bundle.
        assert 0.6 < float(bar.split()[1]) < 0.8
        running.resize(40, 8)
        running.wait(lambda rows: any("clap" in row for row in rows) and len(rows) == 8)
        if end == "q":
            running.type("q")
            assert running.end() == 0
        else:
            process.send_signal(signal.SIGKILL)
            assert running.end() == 3
            assert "the sensor has ended" in "".join(running.rows())
        assert running.modes() == (True, True)
        assert running.settings_now() == running.settings
    # What a killed sensor leaves is replaced by the next.
    assert (runtime / "porch-pi.sock").exists()
    sensor("porch-pi")
    assert top("--once").returncode == 0


def test_of_several_sensors_one_must_be_named(sensor: Sensor) -> None:
    sensor("porch")
    sensor("attic")
    told = top("--once")
    assert told.returncode == 2
    assert told.stderr == "several sensors run here: attic, porch; name one: --device ID\n"
    told = top("--once", "--json", "--device", "attic")
    assert json.loads(told.stdout)["device"] == "attic"
    told = top("--once", "--device", "cellar")
    assert told.returncode == 2
    assert told.stderr == "no sensor 'cellar' runs here; there is attic, porch\n"


def test_no_sensor_is_one_line_with_a_remedy(runtime: Path) -> None:
    told = top()
    assert (told.returncode, told.stdout) == (3, "")
    assert told.stderr.startswith(f"no sensor runs on this machine (none has a socket in {runtime}")
    assert "start one with soundpost run" in told.stderr
    assert told.stderr.count("\n") == 1
    # Nor does one that is dead.
    runtime.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(runtime / "porch-pi.sock"))
    assert top("--once").stderr.startswith("no sensor runs on this machine")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else: sudo make test")
def test_a_sensor_of_somebody_else_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        theirs.listen()
        path.chmod(0o600)
        for folder in (path.parent, *path.parent.parents):
            if folder.stat().st_uid == os.getuid() and "pytest" in str(folder):
                folder.chmod(0o755)
        code = (
            "import os; from soundpost.device.commands.top import _records; "
            "from pathlib import Path; from soundpost.device.errors import InputError; "
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"try: next(_records(Path({str(path)!r})))\n"
            "except InputError as error: print(error)"
        )
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    assert "only its owner and group may watch this sensor: sudo soundpost top" in told.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"schema": "soundpost.monitor/2"}\n', "update the older of sensor and command"),
        (b"hello\n", "not JSON"),
        (b"[1]\n", "expected a JSON object"),
        (b"", "the sensor has ended"),
    ],
)
def test_a_peer_that_is_no_sensor_is_one_line(line: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(line)

        thread = threading.Thread(target=answer)
        thread.start()
        told = top("--socket", str(path))
        thread.join()
    assert told.returncode == 3
    assert said in told.stderr
    assert told.stderr.count("\n") == 1


def test_json_lines_end_with_sigterm(sensor: Sensor) -> None:
    sensor("porch-pi")
    process = subprocess.Popen([*SOUNDPOST, "top", "--json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    times = [json.loads(process.stdout.readline())["uptime_s"] for _ in range(3)]
    assert times == sorted(times)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
