"""An array that sends a known pattern over RTP, for rtp_receiver.py: a process of its own.

Every sample tells its channel and where it belongs, so that one that is shifted is found; the
pattern repeats every 997 packets, which no other period here divides. What is lost and what is
delayed is drawn from the seed, packet by packet, in the same way by whoever asks.
"""

from __future__ import annotations

import heapq
import socket
import struct
import sys
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from soundpost.firmware_bridge.rtp_packet import Encoding, encode_samples
from soundpost.firmware_bridge.session_description import (
    Origin,
    SessionDescription,
    StreamDescription,
)

PERIOD = 997
PAYLOAD_TYPE = 96
_CHUNK = 1_000


class Plan(NamedTuple):
    """What is sent. reorder: the part of the packets that others overtake, by 1 to 20 places."""

    port: int
    n_streams: int
    n_channels: int
    rate_hz: int
    packet_samples: int
    seconds: float
    loss: float
    reorder: float
    drift_ppm: float
    seed: int

    @property
    def n_packets(self) -> int:
        """Of each stream."""
        return round(self.seconds * self.rate_hz / self.packet_samples)

    def starts(self) -> list[tuple[int, int]]:
        """Sequence number and timestamp of each stream's first packet, at random."""
        rng = np.random.default_rng([self.seed, 0])
        return [
            (int(rng.integers(1 << 16)), int(rng.integers(1 << 32))) for _ in range(self.n_streams)
        ]

    def fates(self, chunk: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Of 1,000 packets of each stream: which are lost, and how many places others are late."""
        rng = np.random.default_rng([self.seed, 1, chunk])
        shape = (_CHUNK, self.n_streams)
        lost = rng.random(shape) < self.loss
        late = np.where(rng.random(shape) < self.reorder, rng.integers(1, 21, shape), 0)
        return lost, late

    def lost(self) -> list[set[int]]:
        """Numbers of the lost packets of each stream."""
        found: list[set[int]] = [set() for _ in range(self.n_streams)]
        for chunk in range(-(-self.n_packets // _CHUNK)):
            for number, stream in zip(*np.nonzero(self.fates(chunk)[0]), strict=True):
                if chunk * _CHUNK + number < self.n_packets:
                    found[stream].add(chunk * _CHUNK + int(number))
        return found

    def pattern(self) -> NDArray[np.int32]:
        """(samples of a period, all channels), 24-bit."""
        place = np.arange(PERIOD * self.packet_samples, dtype=np.int64)[:, None]
        channel = np.arange(self.n_streams * self.n_channels, dtype=np.int64)
        mixed = (place * 2_654_435_761 + channel * 40_503 + 12_345) & 0xFFFFFF
        return (mixed - (1 << 23)).astype(np.int32)

    def session(self) -> SessionDescription:
        """The description that the array would write."""
        encoding: Encoding = "L24"
        streams = tuple(
            StreamDescription(
                "127.0.0.1",
                self.port + 2 * index,
                PAYLOAD_TYPE,
                encoding,
                self.rate_hz,
                self.n_channels,
                packet_ms=1e3 * self.packet_samples / self.rate_hz,
                media_clock_offset=timestamp,
                clock_reference="localmac=00-11-22-33-44-55",
                first_channel=index * self.n_channels,
            )
            for index, (_, timestamp) in enumerate(self.starts())
        )
        return SessionDescription("benchmark", Origin("127.0.0.1"), streams)


def send(plan: Plan) -> None:
    """Wait for a line, send all of it at the pace of sound, print how late the slowest was (ms)."""
    pattern, starts = plan.pattern(), plan.starts()
    n_samples, width = plan.packet_samples, plan.n_channels
    payloads = [
        [
            encode_samples(
                pattern[
                    number * n_samples : (number + 1) * n_samples,
                    stream * width : (stream + 1) * width,
                ],
                "L24",
            )
            for number in range(PERIOD)
        ]
        for stream in range(plan.n_streams)
    ]
    sockets = []
    for stream in range(plan.n_streams):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.connect(("127.0.0.1", plan.port + 2 * stream))
        sockets.append(opened)
    print("ready", flush=True)
    sys.stdin.readline()
    header = struct.Struct("!BBHII").pack
    packet_s = n_samples / plan.rate_hz / (1 + 1e-6 * plan.drift_ppm)
    delayed: list[tuple[int, int, int]] = []
    began_s, latest_s = time.perf_counter(), 0.0
    for chunk in range(-(-plan.n_packets // _CHUNK)):
        lost, late = (array.tolist() for array in plan.fates(chunk))
        for offset in range(min(_CHUNK, plan.n_packets - chunk * _CHUNK)):
            number = chunk * _CHUNK + offset
            # A packet goes when its last sample has been taken.
            left_s = began_s + (number + 1) * packet_s - time.perf_counter()
            if left_s > 0:
                time.sleep(left_s)
            else:
                latest_s = max(latest_s, -left_s)
            due = [
                (number, stream)
                for stream in range(plan.n_streams)
                if not lost[offset][stream] and not late[offset][stream]
            ]
            for stream, places in enumerate(late[offset]):
                if places and not lost[offset][stream]:
                    heapq.heappush(delayed, (number + places, number, stream))
            while delayed and delayed[0][0] <= number:
                due.append(heapq.heappop(delayed)[1:])
            for which, stream in due:
                sequence, timestamp = starts[stream]
                head = header(
                    0x80,
                    PAYLOAD_TYPE,
                    sequence + which & 0xFFFF,
                    timestamp + which * n_samples & 0xFFFFFFFF,
                    stream + 1,
                )
                sockets[stream].send(head + payloads[stream][which % PERIOD])
    # What is held back now is never sent; rtp_receiver.py leaves out the last 20 packets.
    print(f"{1e3 * latest_s:.0f}")


if __name__ == "__main__":
    types = Plan.__annotations__
    values = [
        (float if name in ("seconds", "loss", "reorder", "drift_ppm") else int)(text)
        for name, text in zip(types, sys.argv[1:], strict=True)
    ]
    send(Plan(*values))  # type: ignore[arg-type]
