"""Microphones as sources, each captured by a process of its own (capture_process.py).

A source fails promptly, with a line that says why, when its stream ends, stalls, holds nothing but
zeros or runs at a wrong rate. It can be opened again at once and as often as it takes: while its
card is absent, that costs a look at the kernel's files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from soundpost.device.audio import AudioBlock, Channel, check_rate
from soundpost.device.capture import block_length
from soundpost.device.capture_client import CaptureProcess, Chunk
from soundpost.device.chunk_clock import ChunkClock
from soundpost.device.errors import (
    CaptureError,
    DeviceAbsentError,
    DeviceLostError,
    DigitalSilenceError,
)
from soundpost.device.inputs import Card, InputDevice, read_cards
from soundpost.device.stream_watch import RateWatch, ZeroWatch

logger = logging.getLogger(__name__)

# Sound kept for a reader that is busy; the pipe (0.3 s of one channel) and PortAudio's own buffer
# come on top.
_RING_S = 4.0
# A microphone that delivers nothing for this long is gone, whatever its driver reports. It must be
# noticed within 5 s, and a block may last 1 s.
_STALLED_S = 3.0


def list_inputs() -> list[InputDevice]:
    """Sound inputs as they are now; raises CaptureError where PortAudio is missing or fails."""
    process = CaptureProcess("sound devices", {"name": None})
    try:
        return process.list_inputs()
    finally:
        process.close()


def _microphone(name: str) -> str:
    return f"microphone {name!r}" if name else "default microphone"


def _plugged(cards: list[Card]) -> list[Card]:
    """The same without who uses them, to tell whether any was plugged in or out."""
    return [card._replace(users={}) for card in cards]


class _Names:
    """What was learned of names, so that opening again is cheap and knows why.

    What a name of a card means can change only with the cards. Any other name may be a sound
    server's, whose coming shows in no file: one that has been open before is looked for each time,
    another every few seconds. So is one that a card has, which may have been away just while it was
    looked for.
    """

    _LOOK_AGAIN_S = 3.0
    # For what no look at the cards tells.
    _LOOK_AGAIN_FOR_CARD_S = 30.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: set[str] = set()
        self._silent: set[str] = set()
        self._absent: dict[str, tuple[list[Card], float, str]] = {}
        # Processes that were killed and may live on, with the cards of the time they were started.
        self._hanging: dict[str, dict[CaptureProcess, list[Card]]] = {}

    def check_absent(self, name: str, cards: list[Card]) -> None:
        """Raise again what was raised for this name, if nothing can have changed since."""
        with self._lock:
            known = None if name in self._servers else self._absent.get(name)
        if known is None:
            return
        before, due_s, line = known
        if _plugged(cards) == before and time.monotonic() < due_s:
            raise DeviceAbsentError(line)

    def absent(self, name: str, cards: list[Card], error: DeviceAbsentError) -> None:
        # Of several devices of a card each is called by its name, a comma and a number.
        there = any(name.partition(",")[0] in card.names for card in cards)
        of_card = name.startswith(("usb-", "serial-")) and not there
        wait_s = self._LOOK_AGAIN_FOR_CARD_S if of_card else self._LOOK_AGAIN_S
        with self._lock:
            self._absent[name] = (_plugged(cards), time.monotonic() + wait_s, str(error))

    def ended(self, name: str, cards: list[Card], process: CaptureProcess) -> None:
        """Remember a process that could not be ended."""
        if process.hangs:
            with self._lock:
                self._hanging.setdefault(name, {})[process] = _plugged(cards)

    def check_hanging(self, name: str, cards: list[Card]) -> None:
        """Raise DeviceLostError while a process hangs in the driver of a card that is still there.

        Another would hang beside it, and one more with every attempt. A card that was plugged in
        again has another number while a process holds the old one.
        """
        with self._lock:
            known = self._hanging.pop(name, {})
            hanging = {process: before for process, before in known.items() if process.hangs}
            if hanging:
                self._hanging[name] = hanging
        for process, before in hanging.items():
            if before == _plugged(cards):
                raise DeviceLostError(
                    f"{_microphone(name)}: process {process.pid} hangs in its driver and cannot be "
                    "ended: plug the device in again, or restart the machine"
                )

    def present(self, name: str, alsa_card: str | None) -> None:
        with self._lock:
            self._absent.pop(name, None)
            if alsa_card is None:
                self._servers.add(name)

    def silent(self, name: str, silent: bool) -> None:
        """Whether its last stream ended with nothing but zeros."""
        with self._lock:
            (self._silent.add if silent else self._silent.discard)(name)

    def was_silent(self, name: str) -> bool:
        with self._lock:
            return name in self._silent


_names = _Names()


class MicrophoneSource:
    """A microphone; see open_microphone."""

    live = True

    def __init__(
        self,
        process: CaptureProcess,
        asked_name: str,
        cards: list[Card],
        block_s: float,
        digital_silence_s: float,
    ) -> None:
        self._process = process
        self._asked_name = asked_name
        self._cards = cards
        what = _microphone(asked_name)
        stream = process.opened()
        self.alsa_card = stream.alsa_card
        self.name = stream.name
        self.rate_hz = stream.rate_hz
        self.n_channels = stream.n_channels
        self.overflows = 0
        check_rate(self.rate_hz, what)
        self._clock = ChunkClock(self.rate_hz)
        self._zeros = ZeroWatch(
            what, self.rate_hz, digital_silence_s, _names.was_silent(asked_name)
        )
        self._rate = RateWatch(what, self.rate_hz)
        self._patience_s = _STALLED_S + block_s
        logger.info("microphone %s: %s Hz, %s channels", self.name, self.rate_hz, self.n_channels)

    @property
    def pid(self) -> int:
        """Number of the process that captures for it."""
        return self._process.pid

    @property
    def channel(self) -> Channel:
        """The one that is used: zeros on it alone are a fault."""
        return self._zeros.channel

    @channel.setter
    def channel(self, channel: Channel) -> None:
        self._zeros.channel = channel

    @property
    def fault(self) -> str | None:
        """What is wrong with what it delivers, None while nothing is."""
        return self._zeros.fault

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order; the number jumps over sound that was lost.

        Raises DeviceLostError when the stream ends or stalls without a close, DigitalSilenceError
        and SampleRateError. The source is closed then.
        """
        try:
            while (chunk := self._process.chunk(self.n_channels, self._patience_s)) is not None:
                yield self._block(chunk)
        except CaptureError as error:
            self._process.kill()
            self.close()
            _names.silent(self._asked_name, isinstance(error, DigitalSilenceError))
            raise

    def _block(self, chunk: Chunk) -> AudioBlock:
        clock, length = self._clock, len(chunk.samples)
        first = clock.place(
            chunk.position, length, chunk.captured_s, chunk.arrived_s, chunk.overflow
        )
        self.overflows = clock.overflows
        self._rate.check(chunk.position + length, chunk.arrived_s, chunk.overflow)
        self._zeros.check(chunk.samples)
        return AudioBlock(chunk.samples, first, self.rate_hz, clock.time_s(first + length))

    def close(self) -> None:
        """Stop and release the device; a running `blocks` ends."""
        self._process.close()
        _names.ended(self._asked_name, self._cards, self._process)

    def __enter__(self) -> MicrophoneSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_microphone(
    url: str = "mic:",
    *,
    rate_hz: int | None = None,
    block_s: float = 0.1,
    channels: int | None = None,
    latency_s: float = 0.2,
    ring_s: float = _RING_S,
    digital_silence_s: float = 2.0,
) -> MicrophoneSource:
    """Open a microphone by its stable name.

    Parameters
    ----------
    url : "mic:" for the default input, "mic:NAME" with a name of `soundpost devices`: a USB serial
        number or port, an ALSA card's id, or exactly PortAudio's name
    rate_hz : capture rate; by default the one the device prefers
    block_s : length of a block in seconds; each costs processor time
    channels : how many to capture; by default all of a card's, and one of an input that is no card
        (a sound server mixes to what it is asked for and offers 32)
    latency_s : sound that PortAudio holds, and the longest that its process may be held up; at
        least two blocks
    ring_s : sound kept for a reader that is late
    digital_silence_s : a stream of nothing but zeros for this long is a fault; 0: it is not

    The source lives no longer than the thread that opened it.
    Raises CaptureError where PortAudio is missing or hangs, or the device is absent or ambiguous
    (DeviceAbsentError, with the candidates), busy or unable (DeviceBusyError).
    """
    name = url[len("mic:") :] if url.startswith("mic:") else url
    what = _microphone(name)
    if rate_hz is not None:
        check_rate(rate_hz, what)
    block_length(block_s, rate_hz or 1)
    cards = read_cards()
    _names.check_hanging(name, cards)
    _names.check_absent(name, cards)
    request = {
        "name": name,
        "rate_hz": rate_hz,
        "block_s": block_s,
        "channels": channels,
        "latency_s": latency_s,
        "ring_s": ring_s,
    }
    process = CaptureProcess(what, request)
    try:
        source = MicrophoneSource(process, name, cards, block_s, digital_silence_s)
    except BaseException as error:
        process.kill()
        _names.ended(name, cards, process)
        if isinstance(error, DeviceAbsentError):
            _names.absent(name, cards, error)
        raise
    _names.present(name, source.alsa_card)
    return source
