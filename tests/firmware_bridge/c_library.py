"""The C sender as a shared library: its structures, and its functions with their types."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from receivers import need

from soundpost import firmware_bridge

FOLDER = Path(firmware_bridge.__file__).parent / "c"
INT16, INT24, INT32, LOW24 = range(4)


class Stream(ctypes.Structure):
    """sp_stream."""

    _fields_ = [
        ("ssrc", ctypes.c_uint32),
        ("clock_offset", ctypes.c_uint32),
        ("timestamp", ctypes.c_uint32),
        ("n_packets", ctypes.c_uint32),
        ("n_octets", ctypes.c_uint32),
        ("sequence", ctypes.c_uint16),
        ("first_channel", ctypes.c_uint16),
        ("n_channels", ctypes.c_uint8),
        ("payload_type", ctypes.c_uint8),
        ("bytes_per_sample", ctypes.c_uint8),
    ]


class Block(ctypes.Structure):
    """sp_block."""

    _fields_ = [
        ("samples", ctypes.c_void_p),
        ("frame_stride", ctypes.c_size_t),
        ("channel_stride", ctypes.c_size_t),
        ("n_frames", ctypes.c_size_t),
        ("first_channel", ctypes.c_uint16),
        ("n_channels", ctypes.c_uint16),
        ("format", ctypes.c_int),
    ]


class Session(ctypes.Structure):
    """sp_session."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("origin", ctypes.c_char_p),
        ("destination", ctypes.c_char_p),
        ("reference_clock", ctypes.c_char_p),
        ("id", ctypes.c_uint32),
        ("rate_hz", ctypes.c_uint32),
        ("packet_us", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("ttl", ctypes.c_uint8),
    ]


def make(target: str, build: Path) -> str:
    done = subprocess.run(
        ["make", "-C", FOLDER, target, f"BUILD={build}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


_SIZE = ctypes.c_size_t
_U32 = ctypes.c_uint32
_STREAMS = ctypes.POINTER(Stream)
_SIGNATURES = {
    "sp_interleaved": (Block, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint16, _SIZE),
    "sp_planar": (Block, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint16, _SIZE, _SIZE),
    "sp_split": (
        *(_SIZE, _STREAMS, _SIZE, ctypes.c_uint16, ctypes.c_int, ctypes.c_uint8),
        ctypes.POINTER(_U32),
    ),
    "sp_packet_bytes": (_SIZE, _STREAMS, _SIZE),
    "sp_max_frames": (_SIZE, _STREAMS, _SIZE),
    "sp_packet": (
        *(_SIZE, _STREAMS, ctypes.POINTER(Block), _SIZE, _SIZE),
        *(ctypes.c_char_p, _SIZE),
    ),
    "sp_skip": (None, _STREAMS, _U32),
    "sp_report": (
        *(_SIZE, _STREAMS, _U32, _U32, ctypes.c_char_p, ctypes.c_bool),
        *(ctypes.c_char_p, _SIZE),
    ),
    "sp_ntp_fraction": (_U32, _U32),
    "sp_describe": (
        *(_SIZE, ctypes.POINTER(Session), _STREAMS, _SIZE),
        *(ctypes.c_char_p, _SIZE),
    ),
}


def load(build: Path) -> tuple[ctypes.CDLL, str]:
    """Build the library below a folder; what `make` printed comes with it."""
    need("gcc", "gcc")
    said = make("host", build)
    library = ctypes.CDLL(str(build / "libsoundpost_rtp.so"))
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library, said
