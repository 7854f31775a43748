"""PNG files (ISO/IEC 15948) from arrays: for a device that has no imaging library."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.device.files import write_atomically

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS, _RGB = 8, 2
# Each row is told as the difference to the one above it, which compresses pictures best of the
# filters that numpy makes in one step.
_UP = 2


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of a picture, (height, width, 3) uint8 RGB; ValueError for any other array."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"picture {picture.shape} {picture.dtype}: expected (h, w, 3) uint8")
    height, width, _ = picture.shape
    rows = picture.reshape(height, width * 3)
    filtered = np.full((height, 1 + width * 3), _UP, np.uint8)
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]
    header = struct.pack(">IIBBBBB", width, height, _BITS, _RGB, 0, 0, 0)
    content = zlib.compress(filtered.tobytes(), 6)
    parts = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return _SIGNATURE + b"".join(_part(name, data) for name, data in parts)


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture as encode_png makes it; raises InputError where that cannot be done."""
    write_atomically(path, encode_png(picture))


def _part(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
