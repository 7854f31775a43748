"""Prints how many packets a second one core sends, against what 128 channels at 48 kHz need.

The Python sender packs and sends as fast as it can to sockets that a process of its own reads, and
at the array's pace, where its share of a core is printed. The C sender (compiled by gcc with -O2)
packs alone: on firmware the network's driver sends.

python tests/benchmarks/rtp_sender.py
python tests/benchmarks/rtp_sender.py --seconds 60 --channels 256
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import describe, one_thread, verdict
from numpy.typing import NDArray

from soundpost import firmware_bridge
from soundpost.firmware_bridge.impairments import Impairments, ImpairmentSettings
from soundpost.firmware_bridge.packetiser import (
    Packetiser,
    describe_array,
    random_starts,
    split_channels,
)
from soundpost.firmware_bridge.sender import ArraySender, UdpLink
from soundpost.firmware_bridge.session_description import SessionDescription

RATE_HZ = 48_000
PACKET = 48
BLOCK = 4_800
PORT = 20_004
# Binds the ports and throws away what comes, so that the kernel does its whole work.
SINK = """
import selectors, socket, sys
first, n_streams = int(sys.argv[1]), int(sys.argv[2])
ready = selectors.DefaultSelector()
for port in range(first, first + 2 * n_streams):
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(("127.0.0.1", port))
    ear.setblocking(False)
    ready.register(ear, selectors.EVENT_READ)
print("ready", flush=True)
buffer = bytearray(65536)
while True:
    for key, _ in ready.select():
        try:
            while True:
                key.fileobj.recv_into(buffer)
        except BlockingIOError:
            pass
"""


def noise(n_channels: int) -> NDArray[np.float32]:
    """A second of noise, (RATE_HZ, n_channels)."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (RATE_HZ, n_channels)).astype(np.float32)


def blocks(second: NDArray[np.float32], seconds: float) -> Iterator[NDArray[np.float32]]:
    """That second over and over, in blocks as `array simulate` reads them."""
    for number in range(round(seconds * RATE_HZ / BLOCK)):
        at = number * BLOCK % RATE_HZ
        yield second[at : at + BLOCK]


def sent_by_python(
    session: SessionDescription, seconds: float, *, paced: bool, bad: bool
) -> tuple[int, float, float, float]:
    """Packets, CPU seconds, seconds and the most that one was late, in seconds."""
    starts = random_starts(len(session.streams), 1)
    settings = ImpairmentSettings(loss=0.01, reorder=0.05) if bad else ImpairmentSettings()
    second = noise(session.n_channels)
    with UdpLink(session) as link:
        sender = ArraySender(
            Packetiser(session, starts, PACKET), link, Impairments(settings, 1), paced=paced
        )
        began, began_s = time.process_time(), time.monotonic()
        sender.send(blocks(second, seconds))
        cpu_s, took_s = time.process_time() - began, time.monotonic() - began_s
    return sender.sent.n_packets, cpu_s, took_s, sender.sent.most_late_s


class Stream(ctypes.Structure):
    """sp_stream of soundpost_rtp.h."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("ssrc", "offset", "time", "packets", "octets")),
        ("sequence", ctypes.c_uint16),
        ("first_channel", ctypes.c_uint16),
        *((name, ctypes.c_uint8) for name in ("n_channels", "payload_type", "bytes_per_sample")),
    ]


# Packs every stream of every millisecond: ctypes would cost more than what it calls.
LOOP = """
#include "soundpost_rtp.h"
void pack(sp_stream *streams, size_t n_streams, const int32_t *samples, uint16_t n_channels,
          size_t n_frames, size_t frames, uint8_t *out, size_t capacity);
void pack(sp_stream *streams, size_t n_streams, const int32_t *samples, uint16_t n_channels,
          size_t n_frames, size_t frames, uint8_t *out, size_t capacity)
{
    const sp_block block = sp_interleaved(samples, SP_INT32, n_channels, n_frames);
    for (size_t first = 0; first + frames <= n_frames; first += frames) {
        for (size_t i = 0; i < n_streams; i++) {
            sp_packet(&streams[i], &block, first, frames, out, capacity);
        }
    }
}
"""


def packed_by_c(n_channels: int, seconds: float) -> tuple[int, float]:
    """Packets and CPU seconds."""
    folder = Path(firmware_bridge.__file__).parent / "c"
    with tempfile.TemporaryDirectory() as built:
        loop = Path(built) / "loop.c"
        loop.write_text(LOOP)
        library = Path(built) / "pack.so"
        subprocess.run(
            [
                *("gcc", "-std=c99", "-O2", "-fPIC", "-shared", f"-I{folder}"),
                *("-o", library, folder / "soundpost_rtp.c", loop),
            ],
            check=True,
        )
        pack = ctypes.CDLL(str(library)).pack
    n_streams = -(-n_channels // 8)
    streams = (Stream * n_streams)()
    for number, stream in enumerate(streams):
        stream.first_channel, stream.n_channels = 8 * number, min(8, n_channels - 8 * number)
        stream.payload_type, stream.bytes_per_sample = 98, 3
    words = np.random.default_rng(0).integers(-(2**31), 2**31, (BLOCK, n_channels), np.int64)
    samples = np.ascontiguousarray(words, np.int32)
    out = ctypes.create_string_buffer(1_500)
    size = ctypes.c_size_t
    began = time.process_time()
    for _ in range(round(seconds * RATE_HZ / BLOCK)):
        pack(
            streams, size(n_streams), ctypes.c_void_p(samples.ctypes.data),
            ctypes.c_uint16(n_channels), size(BLOCK), size(PACKET), out, size(1_500),
        )  # fmt: skip
    return sum(stream.packets for stream in streams), time.process_time() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of sound in each run")
    parser.add_argument("--channels", type=int, default=128)
    options = parser.parse_args()
    one_thread()
    describe()
    channels = split_channels(options.channels)
    session = describe_array(
        RATE_HZ,
        channels,
        random_starts(len(channels), 1),
        address="127.0.0.1",
        port=PORT,
        packet_samples=PACKET,
    )
    need = len(channels) * RATE_HZ / PACKET
    print(
        f"{options.channels} channels of L24 at {RATE_HZ} Hz: {len(channels)} streams, packets of "
        f"{PACKET} samples, {need:.0f} packets/s; {options.seconds:g} s of sound a run"
    )
    sink = subprocess.Popen(
        [sys.executable, "-c", SINK, str(PORT), str(len(channels))],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert sink.stdout is not None
        sink.stdout.readline()
        for bad in (False, True):
            n, cpu_s, _, _ = sent_by_python(session, options.seconds, paced=False, bad=bad)
            network = "1 % lost, 5 % reordered" if bad else "nothing lost"
            print(
                f"  Python, as fast as it can, {network}: {n / cpu_s:8.0f} packets/s of CPU, "
                f"{n / cpu_s / need:.1f} x the need, {1e6 * cpu_s / n:.1f} us a packet"
            )
        n, cpu_s, took_s, late_s = sent_by_python(session, options.seconds, paced=True, bad=True)
        # Of the sound's time: on a machine with no core to spare it takes longer than that.
        share = 100 * cpu_s / options.seconds
        print(
            f"  Python, paced: {share:.1f} % of one core ({verdict(share, 100)} one core), "
            f"{n / took_s:.0f} packets/s, at most {1000 * late_s:.1f} ms late"
        )
    finally:
        sink.kill()
    n, cpu_s = packed_by_c(options.channels, options.seconds)
    print(
        f"  C, packing alone: {n / cpu_s:8.0f} packets/s of CPU, {n / cpu_s / need:.0f} x the "
        f"need, {1e9 * cpu_s / n / 8 / PACKET:.2f} ns a sample"
    )


if __name__ == "__main__":
    main()
