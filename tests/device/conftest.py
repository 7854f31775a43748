"""Real peers that tests start, stop, kill and freeze: Mosquitto, PulseAudio."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from soundpost.device.bundle import write_bundle


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One broker process; it keeps its port, and forgets everything else, over a restart."""

    def __init__(self, program: str, folder: Path, settings: str) -> None:
        self.port = free_port()
        self._program = program
        self._config = folder / "mosquitto.conf"
        # Started by root, it would become the user mosquitto, who cannot read a test's folder.
        user = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(f"{user}listener {self.port} 127.0.0.1\n{settings}\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Mosquitto:
        process = subprocess.Popen(
            [self._program, "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._process = process
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert process.poll() is None, "mosquitto ended at once"
            time.sleep(0.02)
        raise AssertionError("mosquitto does not listen")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


StartMosquitto = Callable[..., Mosquitto]


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[StartMosquitto]:
    """Function that starts a Mosquitto with the given lines of settings."""
    # Debian puts it into /usr/sbin, which a user's PATH lacks.
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is missing: sudo apt-get install mosquitto")
    started: list[Mosquitto] = []

    def start(settings: str = "allow_anonymous true") -> Mosquitto:
        folder = tmp_path / f"mosquitto{len(started)}"
        folder.mkdir()
        started.append(Mosquitto(program, folder, settings))
        return started[-1].start()

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture
def mosquitto(start_mosquitto: StartMosquitto) -> Mosquitto:
    """An anonymous Mosquitto on a free port."""
    return start_mosquitto()


class PulseAudio:
    """One sound server with a stereo sink that leads nowhere and can be listened to."""

    RATE_HZ = 48_000

    def __init__(self, folder: Path) -> None:
        socket_path = folder / "native"
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{socket_path}",
        }
        self._playing: list[subprocess.Popen[bytes]] = []
        self._process = subprocess.Popen(
            [
                *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"),
                *("--use-pid-file=no", "--disable-shm=yes"),  # killed, it would leave its memory
                f"--load=module-native-protocol-unix auth-anonymous=1 socket={socket_path}",
                f"--load=module-null-sink rate={self.RATE_HZ} channels=2",
            ],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + 20
        while subprocess.run(
            ["pactl", "info"], env=self.environment, capture_output=True, check=False
        ).returncode:
            assert self._process.poll() is None, "pulseaudio ended at once"
            assert time.monotonic() < deadline_s, "pulseaudio does not answer"
            time.sleep(0.05)

    def play(self, path: Path) -> None:
        """Play a sound file in the background."""
        self._playing.append(subprocess.Popen(["paplay", path], env=self.environment))

    def kill(self) -> None:
        """End the server as a crash would."""
        self._process.kill()
        self._process.wait()
        for player in self._playing:
            player.kill()
            player.wait()


@pytest.fixture
def portaudio() -> Any:
    """sounddevice, or a skip."""
    try:
        return import_module("sounddevice")
    except OSError:
        pytest.skip("PortAudio is missing: sudo apt-get install libportaudio2")


@pytest.fixture
def pulseaudio(
    portaudio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PulseAudio]:
    """A PulseAudio of the test's own, which PortAudio in this process sees as `pulse`."""
    for program, package in [("pulseaudio", "pulseaudio"), ("paplay", "pulseaudio-utils")]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: sudo apt-get install {package}")
    folder = tmp_path / "pulse"
    folder.mkdir()
    server = PulseAudio(folder)
    for name in ("HOME", "XDG_RUNTIME_DIR", "PULSE_SERVER"):
        monkeypatch.setenv(name, server.environment[name])
    # PortAudio looks for devices when it is initialised, and no public call repeats that.
    portaudio._terminate()
    portaudio._initialize()
    try:
        if all(device["name"] != "pulse" for device in portaudio.query_devices()):
            pytest.skip("ALSA's pulse plugin is missing: sudo apt-get install libasound2-plugins")
        yield server
    finally:
        server.kill()
        monkeypatch.undo()
        portaudio._terminate()
        portaudio._initialize()


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/device/tiny_student.py: a model small enough to work out by hand."""
    path = Path(__file__).with_name("tiny_student.py")
    specification = spec_from_file_location("tiny_student", path)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules["tiny_student"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student as a bundle file.

    Of its labels, `clap` hears noise (0.70, silence 0.09), `water drops` a low tone (0.65, noise
    0.49), and `smoke_alarm` confirms T3 (a tone at 3.1 kHz 0.50, silence 0.44).
    """
    path = tmp_path_factory.mktemp("bundle") / "tiny.bundle"
    student, manifest = tiny.tiny_student(), tiny.tiny_manifest()
    write_bundle(path, manifest, student.model, tiny.tiny_golden(student, manifest), "# tiny\n")
    return path
