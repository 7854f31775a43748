"""Packets of an array's streams in any order in, blocks of all its channels out.

Each packet says by its timestamp where it belongs, so that order, losses and repeats move nothing:
a sample lies at its place or is missing there. A block is given out once it is complete, or once
something later has waited for it for as long as the window; what has not come by then is zeros, and
marked. All memory is made at the beginning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from soundpost.device.audio import AudioBlock
from soundpost.device.clock import SampleClock
from soundpost.device.errors import CaptureError
from soundpost.device.gaps import Missing, by_place
from soundpost.firmware_bridge.clock_drift import DriftEstimator
from soundpost.firmware_bridge.rtcp_report import parse_reports
from soundpost.firmware_bridge.rtp_packet import Bytes, PacketError
from soundpost.firmware_bridge.sample_ring import SampleRing
from soundpost.firmware_bridge.session_description import SessionDescription
from soundpost.firmware_bridge.stream_alignment import Alignment
from soundpost.firmware_bridge.stream_counters import ReceiverStatistics
from soundpost.firmware_bridge.stream_input import Address, Placed, StreamInput, signed
from soundpost.firmware_bridge.timestamp_guard import TimestampGuard

_MASK: Final = (1 << 32) - 1
# Sound that is held at most, beside a few windows: a sender may send so much at once.
_HELD_S: Final = 1.0
# Streams that begin further apart than this do not belong together.
_APART_S: Final = 10.0
# An array that sends nothing for so long has ended, or makes a longer break.
_ENDED_S: Final = 0.5
# Packets that come too late: how many may be a hiccup, and from what part on a stream lags.
_FEW_LATE: Final = 100
_MUCH_LATE: Final = 0.05
# After a break, the array's clock still says how long it was, give or take this.
_BREAK_ERROR_S: Final = 0.5
_BREAK_DRIFT: Final = 0.01


class Assembler:
    """Assembles the blocks of one array.

    Parameters
    ----------
    session : its streams
    what : its name in messages
    window_s : how long a packet is waited for once a later one has come
    block_s : length of a block; it is shorter before silence of the whole array
    start_s : how long a stream is waited for that sends nothing, before the others begin

    Attributes
    ----------
    last_arrival_s : monotonic clock when the last packet came that counts, None before the first
    """

    def __init__(
        self,
        session: SessionDescription,
        what: str,
        *,
        window_s: float = 0.05,
        block_s: float = 0.02,
        start_s: float = 1.0,
    ) -> None:
        rate_hz = session.rate_hz
        self._rate_hz = rate_hz
        self._what = what
        self._n_channels = session.n_channels
        self._window_s = window_s
        self._start_s = start_s
        self._block = max(1, round(block_s * rate_hz))
        self._window = round(window_s * rate_hz)
        self._capacity = round(_HELD_S * rate_hz) + 2 * (self._window + self._block)
        self._inputs = [
            StreamInput(stream, f"{what}, stream {number}")
            for number, stream in enumerate(session.streams, 1)
        ]
        self._guards = [TimestampGuard(rate_hz) for _ in session.streams]
        self._rings = [SampleRing(stream, self._capacity) for stream in session.streams]
        self._alignment = Alignment(session)
        self._clock = SampleClock(rate_hz)
        self._drift = DriftEstimator(rate_hz)
        # Of each stream before the start: timestamp at the end of what it has sent.
        self._begun: list[int | None] = [None] * len(self._inputs)
        self._begun_s: float | None = None
        # Timestamp of each stream at the array's first sample; None before the start.
        self._origins: list[int] | None = None
        # Next sample to be given out; end of the latest that has come, and when that was.
        self._next = 0
        self._head = 0
        self._head_arrived_s = 0.0
        self._told = 0
        self._blocks: deque[AudioBlock] = deque()
        self._missing = 0
        self.last_arrival_s: float | None = None

    @property
    def by_reports(self) -> bool:
        """Whether sender reports have to be pushed, as nothing else puts the streams in step."""
        return self._alignment.by_reports

    def origin(self, index: int) -> int | None:
        """RTP timestamp of a stream at the array's first sample; None before that is known."""
        return None if self._origins is None else self._origins[index]

    @property
    def head(self) -> int:
        """End of the latest sample that has come."""
        return self._head

    def push(self, index: int, data: Bytes, address: Address, arrived_s: float) -> None:
        """Take a datagram that came to a stream's port, from an address (host, port).

        Raises StreamRestartedError where the stream's sender has begun anew.
        """
        stream = self._inputs[index]
        placed = stream.take(data, address, arrived_s)
        if placed is None:
            return
        if placed.n_samples > self._capacity // 2:
            # No sender makes packets of half a second.
            stream.counters.malformed += 1
            return
        self.last_arrival_s = arrived_s
        for each in self._guards[index].take(placed):
            if self._origins is None:
                self._await(index, each)
            else:
                self._place(index, self._origins[index], each)

    def _place(self, index: int, origin: int, placed: Placed) -> None:
        """Put a packet's samples where they belong."""
        _, timestamp, payload, n_samples, arrived_s = placed
        # As `signed`, which a call would make slower.
        ahead = ((timestamp - origin - self._head + 0x80000000) & _MASK) - 0x80000000
        place = self._head + ahead
        end = place + n_samples
        if place < self._next:
            if end <= self._next:
                self._too_late(index, placed, end)
                return
            # The part of it that is not too late.
            skip = self._next - place
            payload = memoryview(payload)[skip * self._inputs[index].stream.frame_bytes :]
            place, n_samples = self._next, n_samples - skip
        if end > self._next + self._capacity and not self._make_room(
            index, placed, place, end, arrived_s
        ):
            return
        self._rings[index].write(place, payload, n_samples)
        if end > self._head:
            self._head, self._head_arrived_s = end, arrived_s

    def push_report(self, index: int, data: Bytes, address: Address) -> None:
        """Take a datagram that came to a stream's port for RTCP."""
        stream = self._inputs[index]
        senders = stream.stream.senders
        if senders is not None and not senders.admits(address[0]):
            stream.counters.other_senders += 1
            return
        try:
            reports = parse_reports(data)
        except PacketError:
            stream.counters.malformed += 1
            return
        for report in reports:
            # Before a sender is chosen, any may turn out to be it.
            if stream.ssrc in (None, report.ssrc):
                self._alignment.report(index, report)

    def _await(self, index: int, placed: Placed) -> None:
        """A packet before the start tells where its stream is."""
        stream = self._inputs[index]
        stream.counters.early += 1
        end = placed.timestamp + placed.n_samples & _MASK
        known = self._begun[index]
        if known is None:
            known = stream.heard_until
        self._begun[index] = end if known is None or signed(end - known, 32) > 0 else known

    def _start(self, now_s: float) -> None:
        """Begin once all streams are there and in step, at the end of the latest of them."""
        if self._begun_s is None:
            if all(end is None for end in self._begun):
                return
            self._begun_s = now_s
        if None in self._begun and now_s - self._begun_s < self._start_s:
            return
        bases = self._alignment.bases([stream.ssrc for stream in self._inputs], now_s)
        if bases is None:
            return
        times = {
            index: end - bases[index] & _MASK
            for index, end in enumerate(self._begun)
            if end is not None
        }
        first = next(iter(times.values()))
        leads = {index: signed(time - first, 32) for index, time in times.items()}
        latest, earliest = max(leads, key=leads.__getitem__), min(leads, key=leads.__getitem__)
        apart_s = (leads[latest] - leads[earliest]) / self._rate_hz
        if apart_s > _APART_S:
            raise CaptureError(
                f"{self._what}: streams {earliest + 1} and {latest + 1} are {apart_s:.0f} s apart "
                "by their clocks: their a=mediaclk or their sender reports are not of one clock; "
                "correct the sender"
            )
        origin = first + leads[latest]
        self._origins = [base + origin & _MASK for base in bases]

    def _too_late(self, index: int, placed: Placed, end: int) -> None:
        stream = self._inputs[index]
        if end < self._next - self._capacity and self._guards[index].jumped:
            stream.stray(placed.sequence, placed.timestamp)
        elif end <= 0:
            stream.counters.early += 1
        else:
            stream.counters.late += 1

    def _make_room(
        self, index: int, placed: Placed, place: int, end: int, arrived_s: float
    ) -> bool:
        """Give out or jump over what lies too far back; whether the place is to be believed."""
        if self._guards[index].jumped and place - self._head > self._capacity // 2:
            # After a break of the whole array, or of another beginning. Where numbers and
            # timestamps go on together, all between has been lost on the way instead.
            break_s = arrived_s - self._head_arrived_s
            error_s = (place - self._head) / self._rate_hz - break_s
            if abs(error_s) > _BREAK_ERROR_S + _BREAK_DRIFT * break_s:
                self._inputs[index].stray(placed.sequence, placed.timestamp)
                return False
        while end > self._next + self._capacity:
            if self._head > self._next:
                self._give_out(min(self._block, self._head - self._next))
            else:
                whole = (place - self._next) // self._block * self._block
                self._missing += whole * self._n_channels
                self._next += whole
        return True

    def ready(self, now_s: float, horizon: int | None = None) -> Iterator[AudioBlock]:
        """Blocks that are due.

        now_s : monotonic clock; all that had come by then has been pushed
        horizon : `head` at that time, where packets that came later have been pushed as well: of
            several sockets that are read one after the other, the last must not hurry the first

        Raises CaptureError where the streams cannot be put in step.
        """
        if self._origins is None:
            self._start(now_s)
        if horizon is None:
            horizon = self._head
        while self._head - self._next >= self._block:
            end = self._next + self._block
            waited = horizon - end >= self._window
            if not waited and not self._is_complete(end):
                break
            self._give_out(self._block)
        silent_s = now_s - self._head_arrived_s
        if self._head > self._next and silent_s > self._window_s:
            end = min(self._head, self._next + self._block)
            # What is missing may still come when its sender goes on, unless it has ended.
            if silent_s > _ENDED_S or self._is_complete(end):
                self._give_out(end - self._next)
        yield from self._taken()

    def flush(self) -> Iterator[AudioBlock]:
        """All that has come, at the end of the array's sound."""
        if self._origins is not None:
            for index, guard in enumerate(self._guards):
                for placed in guard.rest():
                    self._place(index, self._origins[index], placed)
        while self._head > self._next:
            self._give_out(min(self._block, self._head - self._next))
        yield from self._taken()

    def _taken(self) -> Iterator[AudioBlock]:
        while self._blocks:
            yield self._blocks.popleft()

    def _is_complete(self, end: int) -> bool:
        return all(ring.is_complete(self._next, end) for ring in self._rings)

    def _give_out(self, n_samples: int) -> None:
        first = self._next
        self._next = end = first + n_samples
        if all(ring.is_empty(first, end) for ring in self._rings):
            # The numbering jumps: there is nothing to hear.
            self._missing += n_samples * self._n_channels
            return
        samples = np.empty((n_samples, self._n_channels), np.float32)
        marks = []
        for ring in self._rings:
            low, high = ring.first_channel, ring.first_channel + ring.n_channels
            for place, length in ring.read(first, samples[:, low:high]):
                cause = "lost" if ring.end >= place + length else "silent"
                marks.append(Missing(place, length, low, high - low, cause))
                self._missing += length * (high - low)
        if self._head > self._told:
            self._clock.update(self._head, self._head_arrived_s)
            self._drift.update(self._head, self._head_arrived_s)
            self._told = self._head
        self._blocks.append(
            AudioBlock(
                samples, first, self._rate_hz, self._clock.monotonic_s(end), tuple(by_place(marks))
            )
        )

    def statistics(self) -> ReceiverStatistics:
        """What was counted so far, of packets and samples."""
        return ReceiverStatistics(
            tuple(
                replace(stream.count(), strays=stream.counters.strays + guard.strays)
                for stream, guard in zip(self._inputs, self._guards, strict=True)
            ),
            n_samples=self._next,
            missing_samples=self._missing,
            drift=self._drift.estimate(),
        )

    def lagging(self) -> list[int]:
        """Numbers, from 1, of the streams of which much comes too late."""
        return [
            number
            for number, stream in enumerate(self._inputs, 1)
            if stream.counters.late > max(_FEW_LATE, _MUCH_LATE * stream.counters.received)
        ]

    def silent(self, now_s: float, for_s: float) -> list[int]:
        """Numbers, from 1, of the streams from which nothing that counts has come for so long."""
        return [
            number
            for number, stream in enumerate(self._inputs, 1)
            if stream.sender is None or now_s - stream.last_arrival_s > for_s
        ]
