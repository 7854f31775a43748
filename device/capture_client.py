"""The daemon's end of a capture process: starts it, reads what it sends, and ends it, by force if
it hangs. capture_process.py is the other end.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import numpy as np

from soundpost.device import errors
from soundpost.device.audio import FloatArray
from soundpost.device.capture_process import (
    CHUNK,
    CHUNK_HEADER,
    FAILED,
    HEADER,
    LISTED,
    OPENED,
    STARTED,
)
from soundpost.device.errors import CaptureError, DeviceLostError, StreamStalledError
from soundpost.device.inputs import InputDevice

logger = logging.getLogger(__name__)

# To start Python, which takes long only where the machine is busy.
_START_S = 20.0
# To load PortAudio and open a device: 0.1 s here, half a second on a small machine. One that takes
# longer hangs in its driver.
_OPEN_S = 4.0
# To end in order; a little longer than the process gives itself.
_END_S = 1.5
# A process that was killed is gone in milliseconds, unless it is in the kernel. With the 3 s after
# which a stream is given up, its loss is to be told within five.
_KILLED_S = 1.0
# The wait for samples is counted in parts of this length, so that a machine or a process that was
# held up itself, and finds its time over at once, takes no stream for stalled.
_WAIT_S = 0.25
_READ_BYTES = 1 << 16


class Chunk(NamedTuple):
    """Samples that PortAudio handed over at once.

    samples : (n_samples, n_channels) float32, full scale ±1.0
    position : count of the first in the stream as far as PortAudio knows
    arrived_s : monotonic clock when they were handed over
    captured_s : monotonic clock of the first sample by the driver's word
    overflow : the driver reported that sound before this chunk was lost
    """

    samples: FloatArray
    position: int
    arrived_s: float
    captured_s: float
    overflow: bool


class OpenedStream(NamedTuple):
    """What a capture process has opened; name is the most stable of the device."""

    name: str
    alsa_card: str | None
    rate_hz: int
    n_channels: int


class CaptureProcess:
    """One capture process; `what` is what messages call its device.

    It is killed when the thread that started it ends. Raises CaptureError where none can be
    started.
    """

    def __init__(self, what: str, request: dict[str, Any]) -> None:
        self._what = what
        self._received = bytearray()
        self._closed = self._waited = False
        # Held while the pipe is read: it must not be closed meanwhile, for its number may be given
        # to another file. Who wants to close and finds it held leaves that to the reader.
        self._reading = threading.Lock()
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "soundpost.device.capture_process"),
                    json.dumps({**request, "parent": os.getpid()}),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # ALSA's library writes a page about each device that it cannot open.
                stderr=subprocess.DEVNULL,
                # A file of the current folder is no module of ours.
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
        except OSError as error:
            # Passes as a rule: too little memory, too many processes or files at this moment.
            raise CaptureError(
                f"{what}: its capture process cannot be started ({error}): check what is left of "
                "memory, processes and open files"
            ) from error
        assert self._process.stdout is not None
        self._file = self._process.stdout.fileno()
        self._readable = select.poll()
        self._readable.register(self._file, select.POLLIN)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def list_inputs(self) -> list[InputDevice]:
        """Answer of a process that was asked for the inputs; raises CaptureError."""
        listed = json.loads(self._answer(LISTED, "list sound devices"))
        return [InputDevice(name, tuple(others), *rest) for name, others, *rest in listed]

    def opened(self) -> OpenedStream:
        """What was opened; raises CaptureError where that failed or hangs."""
        return OpenedStream(**json.loads(self._answer(OPENED, f"open {self._what}")))

    def _answer(self, expected: int, job: str) -> bytes:
        message = self._message(_START_S)
        if message is not None and message[0] == STARTED:
            message = self._message(_OPEN_S)
        if message is None:
            self.kill()
            raise DeviceLostError(
                f"the sound system did not {job} within {_OPEN_S:g} s: a driver or sound server "
                "hangs; plug the device in again, or restart the sound server"
            )
        kind, payload = message
        if kind != expected:
            raise self._unexpected(kind)
        return payload

    def chunk(self, n_channels: int, timeout_s: float) -> Chunk | None:
        """Next chunk; None once it is closed from here.

        Raises StreamStalledError where none comes in time, and as the stream ends DeviceLostError.
        """
        message = self._message(timeout_s)
        if message is None:
            if self._closed:
                return None
            self.kill()
            raise StreamStalledError(
                f"{self._what} delivers nothing for {timeout_s:g} s (unplugged, or its driver "
                "hangs): check its cable and `soundpost devices`"
            )
        kind, payload = message
        if kind != CHUNK:
            raise self._unexpected(kind)
        position, arrived_s, age_s, overflow = CHUNK_HEADER.unpack_from(payload)
        samples = np.frombuffer(payload, np.float32, offset=CHUNK_HEADER.size)
        samples = samples.reshape(-1, n_channels)
        return Chunk(samples, position, arrived_s, arrived_s - age_s, overflow)

    def _unexpected(self, kind: int) -> CaptureError:
        self.kill()
        return DeviceLostError(f"{self._what}: its capture process sent message {kind} untimely")

    def _message(self, timeout_s: float) -> tuple[int, bytes] | None:
        """Kind and payload; None after the time, or once closed; raises what the process tells."""
        waited_s = 0.0
        while self._closed or (message := self._parse()) is None:
            with self._reading:
                if not self._closed and not self._readable.poll(1e3 * min(_WAIT_S, timeout_s)):
                    waited_s += _WAIT_S
                    if waited_s >= timeout_s:
                        return None
                    continue
                received = b"" if self._closed else os.read(self._file, _READ_BYTES)
            if not received:
                self._ended()
                return None
            self._received += received
        kind, payload = message
        if kind == FAILED:
            self.close()
            name, line = json.loads(payload)
            raise getattr(errors, name)(line)
        return message

    def _ended(self) -> None:
        """Take note of the pipe's end; raises DeviceLostError unless it was closed from here."""
        closed = self._closed
        self.close()
        if not closed:
            raise DeviceLostError(
                f"{self._what}: its capture process ended ({self._end()}): the driver or the sound "
                "system crashed"
            )

    def _end(self) -> str:
        status = self._process.returncode
        return f"signal {-status}" if status is not None and status < 0 else f"status {status}"

    def _parse(self) -> tuple[int, bytes] | None:
        """A whole message out of what was received, if there is one."""
        if len(self._received) < HEADER.size:
            return None
        kind, size = HEADER.unpack_from(self._received)
        end = HEADER.size + size
        if len(self._received) < end:
            return None
        payload = bytes(memoryview(self._received)[HEADER.size : end])
        del self._received[:end]
        return kind, payload

    def close(self) -> None:
        """Let it close its device and end, or kill it; safe in any state and from any thread."""
        self._end_within(_END_S)

    def kill(self) -> None:
        """End it at once, where it hangs."""
        self._end_within(0.0)

    @property
    def hangs(self) -> bool:
        """Whether it was killed and lives: in the kernel, until its driver lets it end."""
        return self._waited and self._process.poll() is None

    def _end_within(self, patience_s: float) -> None:
        """Kill it after that time; returns at once where that was done before."""
        self._closed = True
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        # While it waits for room in the pipe it hears only of this end; then nobody is reading.
        self._close_pipe()
        if not self._waited and not self._ends(patience_s):
            process.kill()
            if not self._ends(_KILLED_S):
                logger.warning("%s: process %s hangs in its driver", self._what, process.pid)
        self._waited = True
        self._close_pipe()

    def _ends(self, patience_s: float) -> bool:
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _close_pipe(self) -> None:
        if self._reading.acquire(blocking=False):
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._reading.release()
