"""A real sound server, and microphones in it that can be unplugged, held and made to fail."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The microphone that comes and goes, as an ALSA device of its own.
ALSA = """\
</usr/share/alsa/alsa.conf>
pcm.yard { type pulse device "yard" }
"""


class PulseAudio:
    """One sound server with a stereo sink that leads nowhere and can be listened to."""

    RATE_HZ = 48_000

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "native"
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{self._socket}",
        }
        self._playing: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"),
                *("--use-pid-file=no", "--disable-shm=yes"),  # killed, it would leave its memory
                f"--load=module-native-protocol-unix auth-anonymous=1 socket={self._socket}",
                f"--load=module-null-sink rate={self.RATE_HZ} channels=2",
            ],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + 20
        while self._pactl("info").returncode:
            assert self._process.poll() is None, "pulseaudio ended at once"
            assert time.monotonic() < deadline_s, "pulseaudio does not answer"
            time.sleep(0.05)

    def _pactl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pactl", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def pactl(self, *arguments: str) -> str:
        """Answer of a command that succeeds."""
        answer = self._pactl(*arguments)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def play(self, path: Path) -> None:
        """Play a sound file in the background."""
        self._playing.append(subprocess.Popen(["paplay", path], env=self.environment))

    def stop_playing(self) -> None:
        """End what is being played."""
        for player in self._playing:
            player.kill()
            player.wait()
        self._playing.clear()

    def freeze(self) -> None:
        """Let it hang."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server as a crash would."""
        self._process.kill()
        self._process.wait()
        self._socket.unlink(missing_ok=True)
        self.stop_playing()


class Yard:
    """The microphone `mic:yard` of a sound server, which hears what `sound` gives.

    sound : from a number of samples n and the count of the first, (n,) in ±1; white noise by
        default, since a microphone is never quite silent
    speed : of its clock; 0: it delivers nothing
    """

    RATE_HZ = 48_000

    def __init__(self, server: PulseAudio, folder: Path) -> None:
        self._server = server
        self._fifo = folder / "yard"
        self._noise = np.random.default_rng(0).normal(0, 0.05, self.RATE_HZ)
        alsa = folder / "asound.conf"
        alsa.write_text(ALSA)
        # For programs that are to see it.
        server.environment["ALSA_CONFIG_PATH"] = str(alsa)
        self._feeder: threading.Thread | None = None
        self._unplugging = threading.Event()
        self._module = ""
        self.sound: Callable[[int, int], NDArray[np.float64]] = self.noise
        self.speed = 1.0
        self.position = 0

    def noise(self, n_samples: int, first: int) -> NDArray[np.float64]:
        """The same second of noise, over and over."""
        return self._noise[(first + np.arange(n_samples)) % len(self._noise)]

    def plug(self) -> None:
        """Let it appear, and hear."""
        self._module = self._server.pactl(
            "load-module",
            "module-pipe-source",
            "source_name=yard",
            f"file={self._fifo}",
            "format=s16le",
            f"rate={self.RATE_HZ}",
            "channels=1",
        )
        self._unplugging.clear()
        # Read and write: the other end may go away, which must not end the test.
        fifo = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        # While nobody listens the server does not read: little old sound is to wait then.
        fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, 4 * 4_096)
        self._feeder = threading.Thread(target=self._feed, args=[fifo], daemon=True)
        self._feeder.start()

    def unplug(self) -> None:
        """Let it disappear."""
        self._server.pactl("unload-module", self._module)
        self.hush()

    def hush(self) -> None:
        """End the feeding of one whose server was killed."""
        self._unplugging.set()
        if self._feeder is not None:
            self._feeder.join()
        self._fifo.unlink(missing_ok=True)

    def _feed(self, fifo: int) -> None:
        due, before_s = 0.0, time.monotonic()
        while not self._unplugging.wait(0.01):
            now_s = time.monotonic()
            due += (now_s - before_s) * self.RATE_HZ * self.speed
            before_s = now_s
            # What a busy machine left undone comes in parts that the pipe can hold.
            n_samples = min(int(due), 8_192)
            if n_samples:
                sound = 32_767 * np.clip(self.sound(n_samples, self.position), -1, 1)
                with contextlib.suppress(BlockingIOError):  # Nobody listens.
                    written = os.write(fifo, sound.astype("<i2").tobytes()) // 2
                    self.position += written
                    due -= written
                due = min(due, self.RATE_HZ)
        os.close(fifo)
