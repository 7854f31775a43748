"""Real peers that tests start, stop, kill and freeze: Mosquitto, PulseAudio."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyte
import pytest
from numpy.typing import NDArray

from soundpost.device.audio import read_clip
from soundpost.device.bundle import write_bundle
from soundpost.device.microphone_source import list_inputs


def load_helper(name: str) -> ModuleType:
    """A module of this folder that is no test: pytest's importlib mode has no path to it."""
    specification = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


# What stands in the decorators of tests is needed before any fixture is made.
load_helper("alert_examples")
# Functions and types of two files of tests.
load_helper("streams")


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

    def stop(self) -> None:
        """End it as systemd would: what its settings make it keep is on disk."""
        assert self._process is not None
        self._process.terminate()
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


@pytest.fixture(scope="session")
def sound_server() -> ModuleType:
    """tests/device/sound_server.py."""
    return load_helper("sound_server")


@pytest.fixture
def portaudio() -> Any:
    """sounddevice, or a skip."""
    try:
        return import_module("sounddevice")
    except OSError:
        pytest.skip("PortAudio is missing: sudo apt-get install libportaudio2")


@pytest.fixture
def pulseaudio(
    portaudio: Any, sound_server: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A PulseAudio of the test's own, which PortAudio sees as `pulse`."""
    for program, package in [("pulseaudio", "pulseaudio"), ("paplay", "pulseaudio-utils")]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: sudo apt-get install {package}")
    folder = tmp_path / "pulse"
    folder.mkdir()
    server = sound_server.PulseAudio(folder)
    for name in ("HOME", "XDG_RUNTIME_DIR", "PULSE_SERVER"):
        monkeypatch.setenv(name, server.environment[name])
    try:
        if all(item.name != "pulse" for item in list_inputs()):
            pytest.skip("ALSA's pulse plugin is missing: sudo apt-get install libasound2-plugins")
        yield server
    finally:
        server.kill()


@pytest.fixture
def yard(
    pulseaudio: Any, sound_server: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The microphone `mic:yard`, plugged in."""
    microphone = sound_server.Yard(pulseaudio, tmp_path / "pulse")
    monkeypatch.setenv("ALSA_CONFIG_PATH", pulseaudio.environment["ALSA_CONFIG_PATH"])
    microphone.plug()
    yield microphone
    microphone.hush()


class Terminal:
    """A program in a pseudo terminal, drawn by an emulator that is not ours (pyte)."""

    def __init__(
        self, columns: int, lines: int, command: list[str], environment: dict[str, str]
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._controller, terminal = pty.openpty()
        self._set_size(columns, lines)
        self.settings = termios.tcgetattr(terminal)
        self.process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", **environment},
            # The terminal is its own, so that it is in its foreground.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._terminal = terminal

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self._set_size(columns, lines)

    def _set_size(self, columns: int, lines: int) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._controller, termios.TIOCSWINSZ, size)

    def type(self, keys: str) -> None:
        os.write(self._controller, keys.encode())

    def wait(self, met: Callable[[list[str]], bool], patience_s: float = 60.0) -> list[str]:
        """Rows of the screen once they are as they should be."""
        deadline_s = time.monotonic() + patience_s
        while not met(self.rows()):
            assert time.monotonic() < deadline_s, "\n".join(self.rows())
            self._draw(0.1)
        return self.rows()

    def rows(self) -> list[str]:
        return [row.rstrip() for row in self.screen.display]

    def end(self) -> int:
        """Its exit code, once it has ended and what it wrote is on the screen."""
        deadline_s = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, "\n".join(self.rows())
            self._draw(0.05)
        while self._draw(0.0):
            pass
        return self.process.returncode

    def modes(self) -> tuple[bool, bool]:
        """Whether the emulator shows its cursor, and wraps long lines."""
        modes = self.screen.mode
        return pyte.modes.DECTCEM in modes, pyte.modes.DECAWM in modes

    def settings_now(self) -> list[Any]:
        return termios.tcgetattr(self._terminal)

    def _draw(self, wait_s: float) -> bool:
        if not select.select([self._controller], [], [], wait_s)[0]:
            return False
        self._stream.feed(os.read(self._controller, 65_536))
        return True

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)
        os.close(self._controller)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Function that runs a command in a terminal of so many columns and lines."""
    opened: list[Terminal] = []

    def run(columns: int, lines: int, command: list[str], **environment: str) -> Terminal:
        opened.append(Terminal(columns, lines, command, environment))
        return opened[-1]

    yield run
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/device/tiny_student.py: a model small enough to work out by hand."""
    return load_helper("tiny_student")


@pytest.fixture(scope="session")
def frames() -> ModuleType:
    """tests/device/tiny_frames.py: the same for a model that hears chunks and remembers."""
    return load_helper("tiny_frames")


@pytest.fixture(scope="session")
def running() -> ModuleType:
    """tests/device/running.py: a sensor's process, and what its broker passes on."""
    return load_helper("running")


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


@pytest.fixture(scope="session")
def frames_bundle(frames: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny streaming student as a bundle file; `high` and `low` hear what their names say."""
    path = tmp_path_factory.mktemp("bundle") / "frames.bundle"
    student, manifest = frames.tiny_frames(), frames.frames_manifest()
    write_bundle(path, manifest, student.model, frames.frames_golden(student, manifest), "# tiny\n")
    return path


@pytest.fixture
def collect(running: ModuleType) -> Iterator[Callable[[int], Any]]:
    made: list[Any] = []

    def collector(port: int) -> Any:
        made.append(running.Collector(port))
        return made[-1]

    yield collector
    for one in made:
        one.close()


SENTENCES = {
    "en-gb": "Please leave the parcel behind the shed, I shall be home at six.",
    "en-us+f3": "Mum, where did you put the keys of the car?",
    "de+m3": "Der Schlüssel liegt unter der Matte, wie immer.",
    "es+f2": "Mañana vamos a la casa de mi hermana.",
}


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float64]]:
    """Three seconds of a sentence of each voice at 16 kHz, RMS 0.1, spoken by eSpeak NG."""
    program = shutil.which("espeak-ng")
    if program is None:
        pytest.skip("espeak-ng is missing: sudo apt-get install espeak-ng")
    folder = tmp_path_factory.mktemp("voices")
    found = {}
    for voice, sentence in SENTENCES.items():
        path = folder / f"{voice}.wav"
        subprocess.run([program, "-v", voice, "-w", path, sentence], check=True)
        spoken = read_clip(path, 16_000).astype(np.float64)[:48_000]
        found[voice] = 0.1 * spoken / np.sqrt(np.mean(spoken**2))
    return found
