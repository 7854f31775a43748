"""A sound file as a source: replayed in real time or at full speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from soundpost.device.audio import AudioBlock, AudioFile, Channel, FloatArray
from soundpost.device.capture import block_length
from soundpost.device.files import expand_home

# Read from the disk at once.
_READ_S = 0.5


class FileSource:
    """Replays a sound file; see open_file."""

    live = False
    channel: Channel = "mix"
    overflows = 0
    fault: str | None = None

    def __init__(self, path: Path, realtime: bool, block_s: float, loop: bool) -> None:
        self._file = AudioFile(path)
        self.rate_hz = self._file.rate_hz
        self.n_channels = self._file.n_channels
        self.name = path.name
        self._realtime = realtime
        self._loop = loop
        self._block_length = block_length(block_s, self.rate_hz)
        self._closed = False

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order; in real time each appears when its last sample would have been heard."""
        start_s = time.monotonic()
        position = 0
        while not self._closed:
            for samples in self._parts():
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

    def _parts(self) -> Iterator[FloatArray]:
        """The file in blocks; read by several at once, which costs less."""
        length = self._block_length
        together = max(1, round(_READ_S * self.rate_hz / length))
        for samples in self._file.blocks(together * length):
            for start in range(0, len(samples), length):
                yield samples[start : start + length]

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
    return FileSource(expand_home(path), realtime, block_s, loop)
