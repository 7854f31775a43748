"""Samples of one stream by their place, while packets come in any order."""

from __future__ import annotations

import numpy as np

from soundpost.device.audio import FloatArray
from soundpost.firmware_bridge.rtp_packet import Bytes, decode_floats
from soundpost.firmware_bridge.session_description import StreamDescription

_EMPTY, _FILLED = b"\x00", b"\x01"


class SampleRing:
    """Holds as many instants as its capacity, whatever is sent.

    Places are counted from the stream's first sample; who writes keeps them within one capacity of
    the last that was read.
    """

    def __init__(self, stream: StreamDescription, capacity: int) -> None:
        self.first_channel = stream.first_channel
        self.n_channels = stream.n_channels
        # End of what was ever written.
        self.end = 0
        self._encoding = stream.encoding
        self._capacity = capacity
        self._frame_bytes = stream.frame_bytes
        self._bytes = memoryview(bytearray(capacity * stream.frame_bytes))
        self._filled = bytearray(capacity)

    def write(self, place: int, payload: Bytes, n_samples: int) -> None:
        """Put samples where they belong; those that came before are written over."""
        if place + n_samples > self.end:
            self.end = place + n_samples
        start = place % self._capacity
        size = self._frame_bytes
        before_wrap = self._capacity - start
        if n_samples <= before_wrap:
            self._bytes[start * size : (start + n_samples) * size] = payload
            self._filled[start : start + n_samples] = _FILLED * n_samples
            return
        view = memoryview(payload)
        self.write(place, view[: before_wrap * size], before_wrap)
        self.write(place + before_wrap, view[before_wrap * size :], n_samples - before_wrap)

    def is_complete(self, first: int, end: int) -> bool:
        """Whether all samples of a stretch have come."""
        return self._lacks(_EMPTY, first, end)

    def is_empty(self, first: int, end: int) -> bool:
        """Whether no sample of a stretch has come."""
        return self._lacks(_FILLED, first, end)

    def _lacks(self, wanted: bytes, first: int, end: int) -> bool:
        start, stop = first % self._capacity, first % self._capacity + end - first
        if stop <= self._capacity:
            return self._filled.find(wanted, start, stop) < 0
        rest = self._filled.find(wanted, 0, stop - self._capacity)
        return self._filled.find(wanted, start) < 0 and rest < 0

    def read(self, first: int, out: FloatArray) -> list[tuple[int, int]]:
        """Take a stretch out of the ring, to make room.

        out : (n_samples, n_channels) float32 to be written, zeros where nothing has come

        Returns first sample and length of each part that is missing.
        """
        n_samples = len(out)
        start = first % self._capacity
        before_wrap = self._capacity - start
        if n_samples > before_wrap:
            missing = self.read(first, out[:before_wrap])
            rest = self.read(first + before_wrap, out[before_wrap:])
            if missing and rest and sum(missing[-1]) == rest[0][0]:
                place, length = missing.pop()
                rest[0] = (place, length + rest[0][1])
            return missing + rest
        raw = self._bytes[start * self._frame_bytes : (start + n_samples) * self._frame_bytes]
        out[:] = decode_floats(raw, self._encoding, self.n_channels)
        missing = []
        stop = start + n_samples
        if self._filled.find(_EMPTY, start, stop) >= 0:
            lacks = np.frombuffer(self._filled, np.uint8)[start:stop] == 0
            out[lacks] = 0.0
            edges = np.flatnonzero(np.diff(lacks, prepend=False, append=False))
            missing = [(first + int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]
        self._filled[start:stop] = _EMPTY * n_samples
        return missing
