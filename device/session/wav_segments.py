"""The sound of a session on disk: 24-bit WAV files of one minute that are whole at any instant.

A header says at all times how much is written: a file whose writer was killed opens like any other,
and lacks only what had not reached the operating system. Each file is on the disk before the next
begins.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError
from soundpost.device.session.session_reader import AUDIO_FOLDER, segment_path

HEADER_BYTES: Final = 68
SAMPLE_BYTES: Final = 3
_SEGMENT_S = 60
# A WAV counts its bytes with 32 bits, and some programs with 31.
_MAX_BYTES = (1 << 31) - (1 << 16)
# What a power cut can take; a killed program loses none of it.
_SYNC_S = 0.5
_EXTENSIBLE = 0xFFFE
# KSDATAFORMAT_SUBTYPE_PCM
_PCM = bytes.fromhex("0100000000001000800000aa00389b71")
_FULL_SCALE = np.float32(2**23)


def segment_length(rate_hz: int, n_channels: int) -> int:
    """Samples of a segment: one minute, less where a WAV could not hold it."""
    return min(_SEGMENT_S * rate_hz, _MAX_BYTES // (SAMPLE_BYTES * n_channels))


def pack_24_bit(samples: FloatArray) -> NDArray[np.uint8]:
    """Samples as WAV holds them, (n_values, 3) uint8, little-endian; full scale is 2^23.

    What was read from 24 bits comes out as it was; beyond full scale it is clipped.
    """
    scaled = samples * _FULL_SCALE
    np.rint(scaled, out=scaled)
    np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1, out=scaled)
    wide = scaled.astype("<i4").view(np.uint8).reshape(-1, 4)
    packed = np.empty((len(wide), SAMPLE_BYTES), np.uint8)
    # Three strided copies: one of all three bytes takes three times as long.
    for byte in range(SAMPLE_BYTES):
        packed[:, byte] = wide[:, byte]
    return packed


def wav_header(rate_hz: int, n_channels: int, n_samples: int) -> bytes:
    """Header of a 24-bit WAV (WAVE_FORMAT_EXTENSIBLE, as more than two channels ask for)."""
    frame_bytes = SAMPLE_BYTES * n_channels
    n_bytes = n_samples * frame_bytes
    layout = struct.pack(
        "<HHIIHHHHI16s",
        *(_EXTENSIBLE, n_channels, rate_hz, rate_hz * frame_bytes, frame_bytes, 24),
        *(22, 24, 0, _PCM),
    )
    riff = struct.pack("<4sI4s4sI", b"RIFF", HEADER_BYTES - 8 + n_bytes, b"WAVE", b"fmt ", 40)
    return riff + layout + struct.pack("<4sI", b"data", n_bytes)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


class SegmentWriter:
    """Writes the sound of a session from its first sample on.

    folder : of the session; its folder of sound is made

    position : samples that lie on the timeline so far
    """

    def __init__(self, folder: Path, rate_hz: int, n_channels: int, segment_samples: int) -> None:
        self._folder = folder
        self._rate_hz = rate_hz
        self._n_channels = n_channels
        self._frame_bytes = SAMPLE_BYTES * n_channels
        self._segment_samples = segment_samples
        self._file: int | None = None
        self._synced_s = 0.0
        self.position = 0
        try:
            (folder / AUDIO_FOLDER).mkdir()
        except OSError as error:
            raise InputError(
                f"{folder / AUDIO_FOLDER}: cannot be made: {error.strerror}; give a new folder"
            ) from error

    def write(self, samples: FloatArray) -> None:
        """Append (n_samples, n_channels); OSError where the disk takes no more.

        What was written before stays valid, and `position` says how much that is.
        """
        packed = pack_24_bit(samples).reshape(len(samples), self._frame_bytes)
        done = 0
        while done < len(packed):
            number, start = divmod(self.position, self._segment_samples)
            file = self._opened(number)
            part = packed[done : done + self._segment_samples - start]
            self._write_all(file, part, start)
            done += len(part)
            self._advance(file, number, start + len(part))

    def skip(self, n_samples: int) -> None:
        """Leave samples out: they take no room on most disks, and whole files are not made."""
        end = self.position + n_samples
        while self.position < end:
            number, start = divmod(self.position, self._segment_samples)
            stop = min(self._segment_samples, start + end - self.position)
            if start == 0 and stop == self._segment_samples:
                self.position += stop
                continue
            file = self._opened(number)
            os.ftruncate(file, HEADER_BYTES + stop * self._frame_bytes)
            self._advance(file, number, stop)

    def _write_all(self, file: int, part: NDArray[np.uint8], start: int) -> None:
        at = HEADER_BYTES + start * self._frame_bytes
        view = memoryview(part.data).cast("B")
        try:
            while view:
                written = os.pwrite(file, view, at)
                view, at = view[written:], at + written
        except OSError:
            # A part of a block, and of a frame, would shift what a reader takes for samples.
            os.ftruncate(file, HEADER_BYTES + start * self._frame_bytes)
            raise

    def _opened(self, number: int) -> int:
        if self._file is None:
            path = segment_path(self._folder, number)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.pwrite(self._file, wav_header(self._rate_hz, self._n_channels, 0), 0)
            self._synced_s = time.monotonic()
        return self._file

    def _advance(self, file: int, number: int, length: int) -> None:
        """A segment holds so many samples now."""
        os.pwrite(file, wav_header(self._rate_hz, self._n_channels, length), 0)
        self.position = number * self._segment_samples + length
        if length == self._segment_samples:
            self.close()
        elif time.monotonic() - self._synced_s >= _SYNC_S:
            os.fdatasync(file)
            self._synced_s = time.monotonic()

    def close(self) -> None:
        """Let the present segment reach the disk; safe at any time."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                os.fsync(file)
            finally:
                os.close(file)
            sync_folder(self._folder / AUDIO_FOLDER)
