"""Where blocks of sound come from: a microphone, or a file replayed in real time or at full speed.

A source is named by a URL, `mic:`, `mic:NAME` or `file:PATH`; other folders add schemes by the
entry points `soundpost.sources`, whose values are called with the URL and options and return a
BlockSource. PortAudio is loaded when a microphone is first asked for, never by an import.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from soundpost.device.audio import AudioBlock, AudioFile, FloatArray, check_rate
from soundpost.device.errors import CaptureError, UsageError

logger = logging.getLogger(__name__)

INSTALL_PORTAUDIO = "sudo apt-get install libportaudio2"
ASOUND = Path("/proc/asound")

# Sound kept for a reader that is busy; PortAudio's own buffer comes on top.
_RING_S = 4.0
# A microphone that delivers nothing for this long is gone, whatever its driver reports.
_SILENT_S = 3.0
# Pause between looks at the ring once a block is overdue: short against the 50 ms that an alert may
# take, long enough to cost a Pi nothing.
_POLL_S = 0.004
# Gain of the fit of sample count to clock, per chunk of some 25 ms: 50 ms of jitter (PulseAudio)
# move it by 1 ms, and a crystal that is 200 ppm off is followed within 1 ms.
_CLOCK_GAIN = 0.02
# Capture times of the first chunks are up to 0.1 s early through PulseAudio: until this many have
# come, the time of arrival stands in, which is late by the driver's buffer and never early.
_SETTLING_CHUNKS = 40
# A reported overflow is a gap in the numbering where the clock shows at least this much missing:
# ALSA's capture times are good to about a millisecond.
_MEASURABLE_GAP_S = 0.01
# Capture times further from now than this are a driver's fault; the time of arrival stands in.
_PLAUSIBLE_AGE_S = 60.0

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):")


class BlockSource(Protocol):
    """A running source of sound; also a context manager that closes it.

    rate_hz, n_channels : of every block
    name : what to call it in a message
    live : True where sound that is not read in time is lost (a microphone)
    overflows : how often sound was lost so far
    """

    rate_hz: int
    n_channels: int
    name: str
    live: bool
    overflows: int

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order until the source ends or is closed."""
        ...

    def close(self) -> None:
        """Stop; safe in any state and from any thread."""
        ...

    def __enter__(self) -> BlockSource: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_source(url: str, **options: Any) -> BlockSource:
    """Open the source that a URL names; a bare path is a file.

    options are those of the scheme's opener (open_microphone, open_file).
    Raises UsageError for an unknown scheme, else what the opener raises.
    """
    openers = {point.name: point for point in entry_points(group="soundpost.sources")}
    match = _SCHEME.match(url)
    if match is None or (match[1] not in openers and Path(url).exists()):
        return open_file(url, **options)
    if match[1] not in openers:
        known = ", ".join(f"{name}:" for name in sorted(openers))
        raise UsageError(
            f"source {url!r}: unknown kind {match[1]!r}: expected one of {known} or the path of a "
            "sound file that exists"
        )
    return cast(BlockSource, openers[match[1]].load()(url, **options))


def _block_length(block_s: float, rate_hz: int) -> int:
    if not 0 < block_s <= 10:
        raise UsageError(f"block_s {block_s}: expected more than 0 and at most 10 seconds")
    return max(1, round(block_s * rate_hz))


class FileSource:
    """Replays a sound file; see open_file."""

    live = False
    overflows = 0

    def __init__(self, path: Path, realtime: bool, block_s: float, loop: bool) -> None:
        self._file = AudioFile(path)
        self.rate_hz = self._file.rate_hz
        self.n_channels = self._file.n_channels
        self.name = path.name
        self._realtime = realtime
        self._loop = loop
        self._block_length = _block_length(block_s, self.rate_hz)
        self._closed = False

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order; in real time each appears when its last sample would have been heard."""
        start_s = time.monotonic()
        position = 0
        while not self._closed:
            for samples in self._file.blocks(self._block_length):
                # From the sample count, never from the block before: delays do not add up.
                end_s = start_s + (position + len(samples)) / self.rate_hz
                if self._realtime:
                    self._sleep_until(end_s)
                if self._closed:
                    return
                yield AudioBlock(samples, position, self.rate_hz, end_s if self._realtime else None)
                position += len(samples)
                if self._closed:
                    return
            if not self._loop:
                return

    def _sleep_until(self, end_s: float) -> None:
        while not self._closed and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))

    def close(self) -> None:
        """Stop; a running `blocks` ends within 0.1 s."""
        self._closed = True
        self._file.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_file(
    url: str, *, realtime: bool = True, block_s: float = 0.02, loop: bool = False
) -> FileSource:
    """Replay a sound file with all its channels.

    Parameters
    ----------
    url : "file:PATH", "file:///PATH" or a bare path
    realtime : pace by sample count on the monotonic clock; False gives blocks as fast as they are
        read, with no time_s
    block_s : length of a block in seconds; the last of a file is shorter
    loop : start again at the end, numbering on

    Raises InputError as AudioFile does, and while reading where the file is damaged.
    """
    path = url[len("file:") :] if url.startswith("file:") else url
    if path.startswith("///"):
        path = path[2:]
    return FileSource(Path(path).expanduser(), realtime, block_s, loop)


@dataclass(frozen=True)
class InputDevice:
    """A sound input.

    name : stable over restarts: the ALSA card's id ("ID,N" for one device N of several on a card),
        or PortAudio's name for an input that is no card (pulse, default)
    portaudio_name : as PortAudio reports it; "hw:1,0" in it may change at the next start
    index : PortAudio's number, for this process only
    alsa_card : id of the ALSA card or None
    n_channels : most that can be captured
    default_rate_hz : the rate it prefers
    is_default : whether `mic:` means it
    """

    name: str
    portaudio_name: str
    index: int
    alsa_card: str | None
    n_channels: int
    default_rate_hz: int
    is_default: bool


def _portaudio() -> Any:
    """Return sounddevice; raises CaptureError where PortAudio is missing."""
    try:
        import sounddevice
    except OSError as error:
        raise CaptureError(
            f"PortAudio cannot be loaded ({error}), and microphones need it: {INSTALL_PORTAUDIO}"
        ) from error
    return sounddevice


def list_inputs() -> list[InputDevice]:
    """Sound inputs as PortAudio found them when it was first used by this process.

    Raises CaptureError where PortAudio is missing or fails.
    """
    portaudio = _portaudio()
    try:
        devices = portaudio.query_devices()
        default = portaudio.query_hostapis(portaudio.default.hostapi)["default_input_device"]
    except portaudio.PortAudioError as error:
        raise CaptureError(
            f"PortAudio cannot list sound devices: {_one_line(error)}; `arecord -l` shows what the "
            "system finds"
        ) from error
    return describe_inputs(devices, default)


def describe_inputs(
    devices: Sequence[dict[str, Any]], default: int, asound: Path = ASOUND
) -> list[InputDevice]:
    """Inputs among PortAudio's devices, with stable names.

    devices : PortAudio's list, each with name, index, max_input_channels, default_samplerate
    default : index of the default input, or -1
    asound : ALSA's folder in /proc, where card N's id stands in cardN/id
    """
    heard = [device for device in devices if device["max_input_channels"] > 0]
    # With no default of the system's, one microphone alone leaves no doubt.
    if default < 0 and len(heard) == 1:
        default = heard[0]["index"]
    places = [re.search(r"\(hw:(\d+),(\d+)\)", device["name"]) for device in heard]
    cards = [_card_id(place[1], asound) if place else None for place in places]
    inputs = []
    for device, place, card in zip(heard, places, cards, strict=True):
        name = device["name"]
        if place and card:
            name = card if cards.count(card) == 1 else f"{card},{place[2]}"
        inputs.append(
            InputDevice(
                name=name,
                portaudio_name=device["name"],
                index=device["index"],
                alsa_card=card,
                n_channels=device["max_input_channels"],
                default_rate_hz=round(device["default_samplerate"]),
                is_default=device["index"] == default,
            )
        )
    return inputs


def _card_id(number: str, asound: Path) -> str | None:
    try:
        return (asound / f"card{number}" / "id").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def find_input(name: str, inputs: Sequence[InputDevice]) -> InputDevice:
    """Return the one input of that stable name, PortAudio name or ALSA card id ("": the default).

    Raises CaptureError listing the candidates where none or several fit.
    """
    if name:
        found = [item for item in inputs if item.name == name] or [
            item for item in inputs if name in (item.portaudio_name, item.alsa_card)
        ]
    else:
        found = [item for item in inputs if item.is_default]
    if len(found) == 1:
        return found[0]
    if not inputs:
        raise CaptureError(
            "no microphone found: plug one in and see `arecord -l`, or replay a recording with "
            "file:PATH"
        )
    what = f"microphone {name!r}: " if name else "no default microphone: "
    problem = "names several inputs" if found else "no input has this name" if name else "choose"
    listed = ", ".join(f"mic:{item.name}" for item in found or inputs)
    raise CaptureError(f"{what}{problem}: expected one of {listed} (`soundpost devices`)")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class Run(NamedTuple):
    """Samples of one chunk, or of the rest of one, out of a ChunkRing.

    samples : (n_samples, n_channels) float32
    position : count of the first in the stream as far as this side knows
    capture_s : capture time of the chunk's first sample on PortAudio's clock
    overflow : the driver reported that sound before this chunk was lost
    chunk_length : samples of the chunk, if this is its first run, else 0
    """

    samples: FloatArray
    position: int
    capture_s: float
    overflow: bool
    chunk_length: int


class ChunkRing:
    """Chunks of sound from PortAudio's thread to the reader: preallocated, one writer, one reader.

    No lock: each side advances only its own counters, the writer's last, when the chunk is in
    place. A chunk that finds no room is dropped whole and leaves a hole in the positions.
    """

    _N_CHUNKS = 4096

    def __init__(self, n_samples: int, n_channels: int) -> None:
        self._samples = np.zeros((n_samples, n_channels), np.float32)
        self._positions = np.zeros(self._N_CHUNKS, np.int64)
        self._lengths = np.zeros(self._N_CHUNKS, np.int64)
        self._capture_s = np.zeros(self._N_CHUNKS, np.float64)
        self._overflow = np.zeros(self._N_CHUNKS, np.bool_)
        self._position = 0
        self._samples_in = self._chunks_in = 0
        self._samples_out = self._chunks_out = self._used = 0
        self.dropped_chunks = 0

    def write(self, samples: FloatArray, capture_s: float, overflow: bool) -> None:
        """Copy a (n_samples, n_channels) chunk in; called on PortAudio's thread only."""
        length, capacity = len(samples), len(self._samples)
        chunk = self._chunks_in % self._N_CHUNKS
        full = (
            self._samples_in + length - self._samples_out > capacity
            or self._chunks_in - self._chunks_out >= self._N_CHUNKS
        )
        if full:
            self._position += length
            self.dropped_chunks += 1
            return
        start = self._samples_in % capacity
        head = min(length, capacity - start)
        self._samples[start : start + head] = samples[:head]
        self._samples[: length - head] = samples[head:]
        self._positions[chunk] = self._position
        self._lengths[chunk] = length
        self._capture_s[chunk] = capture_s
        self._overflow[chunk] = overflow
        self._position += length
        self._samples_in += length
        self._chunks_in += 1

    def read(self, n_samples: int) -> Run | None:
        """Return at most n_samples of the oldest chunk, or None where there is none."""
        if self._chunks_out == self._chunks_in:
            return None
        chunk = self._chunks_out % self._N_CHUNKS
        length, used = int(self._lengths[chunk]), self._used
        count = min(n_samples, length - used)
        places = np.arange(self._samples_out, self._samples_out + count) % len(self._samples)
        run = Run(
            self._samples[places],
            int(self._positions[chunk]) + used,
            float(self._capture_s[chunk]),
            bool(self._overflow[chunk]),
            0 if used else length,
        )
        self._samples_out += count
        self._used += count
        if self._used == length:
            self._used = 0
            self._chunks_out += 1
        return run


class ChunkReader:
    """Puts chunks in their place in the stream and on the clock.

    A chunk that the ring dropped is a jump of known length. What a driver lost is measured: how far
    a chunk with an overflow flag lies behind the line of samples against capture times. The line
    follows capture times slowly and never lies later than a chunk's arrival.
    """

    def __init__(self, ring: ChunkRing, rate_hz: int) -> None:
        self._ring = ring
        self._rate_hz = rate_hz
        self._lost = 0
        self._origin_s = math.inf
        self._n_chunks = 0
        self._expected = 0
        self.overflows = 0

    def read(
        self, n_samples: int, clock_offset_s: float, now_s: float
    ) -> tuple[int, FloatArray] | None:
        """First sample and (≤ n_samples, n_channels) consecutive samples, or None.

        clock_offset_s : what to add to capture times to get the monotonic clock
        now_s : that clock now
        """
        run = self._ring.read(n_samples)
        if run is None:
            return None
        if run.chunk_length:
            self._place(run, run.capture_s + clock_offset_s, now_s)
        self._expected = run.position + len(run.samples)
        return run.position + self._lost, run.samples

    def _place(self, run: Run, capture_s: float, now_s: float) -> None:
        if run.position != self._expected or run.overflow:
            self.overflows += 1
        if abs(now_s - capture_s) > _PLAUSIBLE_AGE_S:
            capture_s = now_s - run.chunk_length / self._rate_hz
        settled = self._n_chunks >= _SETTLING_CHUNKS
        self._n_chunks += 1
        if settled:
            late_s = capture_s - self.time_s(run.position + self._lost)
            if run.overflow and late_s >= _MEASURABLE_GAP_S:
                self._lost += round(late_s * self._rate_hz)
            else:
                self._origin_s += _CLOCK_GAIN * late_s
        # A chunk cannot end after it was read. PulseAudio's plugin leaves a chunk out of the age of
        # its sound, which would put its end into the future.
        end = run.position + self._lost + run.chunk_length
        self._origin_s = min(self._origin_s, now_s - end / self._rate_hz)

    def time_s(self, sample: int) -> float:
        """Monotonic clock at the start of a sample, by the fit; infinite before the first read."""
        return self._origin_s + sample / self._rate_hz


class MicrophoneSource:
    """A microphone; see open_microphone."""

    live = True

    def __init__(
        self,
        device: InputDevice,
        rate_hz: int,
        n_channels: int,
        block_s: float,
        latency_s: float,
        ring_s: float = _RING_S,
    ) -> None:
        self.name = device.name
        self.rate_hz = rate_hz
        self.n_channels = n_channels
        self.overflows = 0
        self._block_length = _block_length(block_s, rate_hz)
        ring = ChunkRing(max(round(ring_s * rate_hz), 2 * self._block_length), n_channels)
        self._reader = ChunkReader(ring, rate_hz)
        self._closed = False
        # Held around every call into the stream, which must not be closed meanwhile; reentrant,
        # because a signal handler may close.
        self._gate = threading.RLock()
        self._portaudio = _portaudio()

        def copy(samples: FloatArray, _frames: int, times: Any, status: Any) -> None:
            ring.write(samples, times.inputBufferAdcTime, status.input_overflow)

        self._stream: Any = None
        try:
            self._stream = self._portaudio.InputStream(
                device=device.index,
                samplerate=rate_hz,
                channels=n_channels,
                dtype="float32",
                latency=latency_s,
                callback=copy,
            )
            self._stream.start()
        except self._portaudio.PortAudioError as error:
            self.close()
            raise CaptureError(
                f"microphone {self.name!r}: cannot be opened at {rate_hz} Hz with {n_channels} "
                f"channels: {_one_line(error)}; it offers {device.n_channels} channels and prefers "
                f"{device.default_rate_hz} Hz; close other programs that use it "
                "(`soundpost devices`)"
            ) from error
        self._heard_s = time.monotonic()
        logger.info("microphone %s: %s Hz, %s channels", self.name, rate_hz, n_channels)

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order; one that ends at lost sound is shorter, and the next number jumps.

        Raises CaptureError when the stream ends or falls silent without a close.
        """
        self._heard_s = time.monotonic()
        parts: list[FloatArray] = []
        first = filled = 0
        offset_s = self._clock_offset_s()
        while not self._closed:
            run = self._reader.read(self._block_length - filled, offset_s, time.monotonic())
            if run is None:
                self._wait((self._block_length - filled) / self.rate_hz)
                offset_s = self._clock_offset_s()
                continue
            self._heard_s = time.monotonic()
            self.overflows = self._reader.overflows
            position, samples = run
            if filled and position != first + filled:
                yield self._block(parts, first, filled)
                parts, filled = [], 0
            if not filled:
                first = position
            parts.append(samples)
            filled += len(samples)
            if filled == self._block_length:
                yield self._block(parts, first, filled)
                parts, filled = [], 0

    def _block(self, parts: list[FloatArray], first: int, length: int) -> AudioBlock:
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return AudioBlock(samples, first, self.rate_hz, self._reader.time_s(first + length))

    def _wait(self, missing_s: float) -> None:
        """Sleep until the missing samples are due, then by polls."""
        with self._gate:
            running = self._closed or self._stream.active
        overdue_s = time.monotonic() - self._heard_s
        if not running or overdue_s > _SILENT_S:
            state = f"delivers nothing for {_SILENT_S:g} s" if running else "stopped"
            raise CaptureError(
                f"microphone {self.name!r} {state} (unplugged, or its sound server ended): check "
                "its cable and `soundpost devices`, then start again"
            )
        due_s = missing_s - overdue_s
        time.sleep(min(due_s, 0.1) if due_s > _POLL_S else _POLL_S)

    def _clock_offset_s(self) -> float:
        """Monotonic clock minus PortAudio's, which may be the wall clock and be set meanwhile."""
        with self._gate:
            if self._closed:
                return 0.0
            before_s = time.monotonic()
            stream_s: float = self._stream.time
            return (before_s + time.monotonic()) / 2 - stream_s

    def close(self) -> None:
        """Stop and release the device; a running `blocks` ends within 0.1 s."""
        with self._gate:
            if not self._closed and self._stream is not None:
                self._stream.abort()
                self._stream.close()
            self._closed = True

    def __enter__(self) -> MicrophoneSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_microphone(
    url: str = "mic:",
    *,
    rate_hz: int | None = None,
    block_s: float = 0.02,
    channels: int | None = None,
    latency_s: float = 0.1,
    ring_s: float = _RING_S,
) -> MicrophoneSource:
    """Open a microphone by its stable name.

    Parameters
    ----------
    url : "mic:" for the default input, "mic:NAME" with a name of `soundpost devices`: an ALSA
        card's id or exactly PortAudio's name
    rate_hz : capture rate; by default the one the device prefers
    block_s : length of a block in seconds
    channels : how many to capture; by default all of a card's, and one of an input that is no card
        (a sound server mixes to what it is asked for and offers 32)
    latency_s : sound that PortAudio holds, and the longest that this process may be held up
    ring_s : sound kept for a reader that is late

    Raises CaptureError where PortAudio is missing, or the device absent, ambiguous, busy or unable.
    """
    name = url[len("mic:") :] if url.startswith("mic:") else url
    device = find_input(name, list_inputs())
    if rate_hz is None:
        rate_hz = device.default_rate_hz
    if channels is None:
        channels = device.n_channels if device.alsa_card else 1
    check_rate(rate_hz, f"microphone {device.name!r}")
    return MicrophoneSource(device, rate_hz, channels, block_s, latency_s, ring_s)
