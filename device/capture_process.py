"""The process that captures from one microphone, so that its driver can hang or crash alone.

PortAudio looks for devices once in the life of a process, and a driver that hangs takes its process
along. Every stream therefore has a process of its own, started by capture_client.py, which opens
one device, sends its samples and ends with it. It imports little, numpy least of all: several of
these run beside each other on a small machine.

It gets its request as JSON in the first argument and answers on its standard output in messages of
a kind, a length and that many bytes. It ends when its standard input does, and dies with the thread
that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
from typing import Any

from soundpost.device.errors import CaptureError, DeviceBusyError, DeviceLostError
from soundpost.device.inputs import InputDevice, describe_inputs, find_input, read_cards

INSTALL_PORTAUDIO = "sudo apt-get install libportaudio2"

# Of every message: kind, bytes that follow.
HEADER = struct.Struct("<II")
# kinds: Python runs (JSON null); the inputs; the stream that was opened; samples; why it ends
STARTED, LISTED, OPENED, CHUNK, FAILED = range(5)
# Of a chunk, before its samples (interleaved float32): position of the first, monotonic clock when
# PortAudio handed it over, its age then by the driver in seconds, overflow reported before it.
CHUNK_HEADER = struct.Struct("<qdd?7x")

_PR_SET_PDEATHSIG = 1
# A stream that ended is noticed this soon where PortAudio does not tell.
_LOOK_S = 0.25
# Time to close a device in order, once the parent is gone or wants no more.
_CLOSE_S = 1.0


class ChunkRing:
    """Chunks from PortAudio's thread to the one that sends them: preallocated, one of each.

    No lock: each side advances only its own count, the writer's when the chunk is in place. A chunk
    that finds no room is dropped and leaves a hole in the positions. Slots hold whole messages.
    """

    def __init__(self, n_chunks: int, chunk_bytes: int) -> None:
        self._n_chunks = n_chunks
        self._slot = HEADER.size + CHUNK_HEADER.size + chunk_bytes
        self._memory = memoryview(bytearray(n_chunks * self._slot))
        self._lengths = [0] * n_chunks
        self._position = 0
        self._written = self._sent = 0

    def write(
        self, samples: Any, n_samples: int, arrived_s: float, age_s: float, overflow: bool
    ) -> bool:
        """Copy a chunk's bytes in; whether it found room. For PortAudio's thread only."""
        position = self._position
        self._position += n_samples
        if self._written - self._sent >= self._n_chunks:
            return False
        number = self._written % self._n_chunks
        start, size = number * self._slot, len(samples)
        HEADER.pack_into(self._memory, start, CHUNK, CHUNK_HEADER.size + size)
        start += HEADER.size
        CHUNK_HEADER.pack_into(self._memory, start, position, arrived_s, age_s, overflow)
        start += CHUNK_HEADER.size
        self._memory[start : start + size] = samples
        self._lengths[number] = HEADER.size + CHUNK_HEADER.size + size
        self._written += 1
        return True

    def oldest(self) -> memoryview | None:
        """Message of the oldest chunk, valid until it is released; None where there is none."""
        if self._sent == self._written:
            return None
        number = self._sent % self._n_chunks
        return self._memory[number * self._slot :][: self._lengths[number]]

    def release(self) -> None:
        """Give the oldest chunk's room back."""
        self._sent += 1


class _Pipe:
    """The way to the parent; whatever a library prints on standard output goes nowhere."""

    def __init__(self) -> None:
        self._file = os.dup(1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)

    def send(self, kind: int, value: Any) -> None:
        payload = json.dumps(value).encode()
        self.write(memoryview(HEADER.pack(kind, len(payload)) + payload))

    def write(self, message: memoryview) -> None:
        while len(message):
            message = message[os.write(self._file, message) :]


# What wakes the sender: True for a chunk in the ring or the end of the stream, False to end.
_News = queue.SimpleQueue[bool]


def _end_with_parent(parent: int, news: _News) -> None:
    """Let this process outlive its parent in no case, and the end of its input by a second."""
    # Ctrl-C and systemd's stop reach the whole group: the parent decides what ends when.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)

    def wait_for_the_end() -> None:
        while os.read(0, 1):
            pass
        news.put(False)
        time.sleep(_CLOSE_S)
        os._exit(0)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def _load_portaudio() -> Any:
    try:
        import sounddevice
    except OSError as error:
        raise CaptureError(
            f"PortAudio cannot be loaded ({error}), and microphones need it: {INSTALL_PORTAUDIO}"
        ) from error
    return sounddevice


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _list_inputs(portaudio: Any, cards: list[Any]) -> list[InputDevice]:
    try:
        devices = portaudio.query_devices()
        default = portaudio.query_hostapis(portaudio.default.hostapi)["default_input_device"]
    except portaudio.PortAudioError as error:
        raise CaptureError(
            f"PortAudio cannot list sound devices: {_one_line(error)}; `arecord -l` shows what the "
            "system finds"
        ) from error
    return describe_inputs(devices, default, cards)


class _Capture:
    """One stream from its opening to its end."""

    def __init__(
        self, portaudio: Any, device: InputDevice, request: dict[str, Any], news: _News
    ) -> None:
        self.name = device.name
        self.rate_hz: int = request["rate_hz"] or device.default_rate_hz
        # All of a card's; a sound server mixes to what it is asked for and offers 32.
        all_channels = device.n_channels if device.alsa_card else 1
        self.n_channels: int = request["channels"] or all_channels
        length = max(1, round(request["block_s"] * self.rate_hz))
        n_chunks = max(2, round(request["ring_s"] * self.rate_hz / length))
        self._ring = ChunkRing(n_chunks, 4 * self.n_channels * length)
        self._news = news
        try:
            self._stream = portaudio.RawInputStream(
                device=device.portaudio_index,
                samplerate=self.rate_hz,
                channels=self.n_channels,
                blocksize=length,
                dtype="float32",
                latency=max(request["latency_s"], 2 * request["block_s"]),
                callback=self._copy,
                finished_callback=lambda: news.put(True),
            )
            self._stream.start()
        except portaudio.PortAudioError as error:
            raise DeviceBusyError(
                f"microphone {device.name!r}: cannot be opened at {self.rate_hz} Hz with "
                f"{self.n_channels} channels: {_one_line(error)}; it offers {device.n_channels} "
                f"channels and prefers {device.default_rate_hz} Hz; close other programs that use "
                "it (`soundpost devices`)"
            ) from error

    def _copy(self, samples: Any, n_samples: int, times: Any, status: Any) -> None:
        age_s = times.currentTime - times.inputBufferAdcTime
        overflow = status.input_overflow
        if self._ring.write(samples, n_samples, time.monotonic(), age_s, overflow):
            # Only for what is in the ring, so that the queue is as bounded.
            self._news.put(True)

    def send_all(self, pipe: _Pipe) -> None:
        """Send chunks until the stream ends, with DeviceLostError, or the parent wants no more."""
        while True:
            try:
                if not self._news.get(timeout=_LOOK_S):
                    return
            except queue.Empty:
                pass
            while (message := self._ring.oldest()) is not None:
                pipe.write(message)
                self._ring.release()
            if not self._stream.active:
                raise DeviceLostError(
                    f"microphone {self.name!r} has stopped: unplugged, or its sound server ended; "
                    "check its cable and `soundpost devices`"
                )

    def close(self) -> None:
        """Release the device."""
        self._stream.abort()
        self._stream.close()


def _serve(request: dict[str, Any], pipe: _Pipe) -> None:
    news: _News = queue.SimpleQueue()
    _end_with_parent(request["parent"], news)
    # What follows may hang.
    pipe.send(STARTED, None)
    portaudio = _load_portaudio()
    cards = read_cards()
    inputs = _list_inputs(portaudio, cards)
    if request["name"] is None:
        pipe.send(LISTED, inputs)
        return
    device = find_input(request["name"], inputs, cards)
    capture = _Capture(portaudio, device, request, news)
    opened = {
        "name": device.name,
        "alsa_card": device.alsa_card,
        "rate_hz": capture.rate_hz,
        "n_channels": capture.n_channels,
    }
    with contextlib.suppress(BrokenPipeError):  # The parent wants no more.
        pipe.send(OPENED, opened)
        capture.send_all(pipe)
    capture.close()


def main() -> None:
    """Do what the first argument asks; ends without exit handlers, for a library may hang there."""
    pipe = _Pipe()
    with contextlib.suppress(BrokenPipeError):
        try:
            _serve(json.loads(sys.argv[1]), pipe)
        except CaptureError as error:
            pipe.send(FAILED, [type(error).__name__, str(error)])
        except Exception as error:  # Told by the parent: this process has no log.
            pipe.send(FAILED, ["CaptureError", f"fault in the capture process: {error!r}"])
    os._exit(0)


if __name__ == "__main__":
    main()
