"""One stream's packets: whose they are, in which order, and which of them count.

Anybody can send anything to a port. A stream therefore belongs to the sender (address and SSRC) of
the first two packets that follow each other, and no other is heard while that one is. One that
comes after it has fallen silent is taken for the same sender, restarted: RFC 3550 has it choose a
new SSRC and begin its numbers anew, so that the stream cannot go on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from soundpost.device.errors import DeviceLostError
from soundpost.firmware_bridge.rtp_packet import Bytes, PacketError, RtpPacket, parse_packet
from soundpost.firmware_bridge.session_description import StreamDescription
from soundpost.firmware_bridge.stream_counters import StreamCounters

Address = tuple[str, int]

# Packets that come after each other are no farther apart than this, in any order.
_NEAR_PACKETS: Final = 64
_NEAR_S: Final = 2.0
# Senders that were heard once: enough for those who are there, few enough for those who pretend.
_MAX_CANDIDATES: Final = 64
# Silence after which another sender is taken for this one, restarted.
RESTART_S: Final = 0.25
# Numbers that are remembered, to know a packet that comes twice: half a second of the shortest
# packets that are in use (0.125 ms).
_REMEMBERED: Final = 4_096
# RFC 3550, A.1: numbers further apart are not those of packets that were lost, or came late.
_MAX_DROPOUT: Final = 3_000


class StreamRestartedError(DeviceLostError):
    """The sender of a stream has begun anew: its samples cannot be counted on."""


class Placed(NamedTuple):
    """Samples of a packet that counts.

    sequence : 0 to 65,535
    timestamp : of the first sample, 0 to 2^32 - 1
    payload : view of the packet's bytes, valid until the next is read
    n_samples : instants in it
    arrived_s : monotonic clock when it came
    """

    sequence: int
    timestamp: int
    payload: Bytes
    n_samples: int
    arrived_s: float


class _Seen(NamedTuple):
    """end : timestamp at its end."""

    sequence: int
    timestamp: int
    end: int = 0


def signed(difference: int, bits: int) -> int:
    """A difference of two counters that wrap around at 2^bits, as the nearest whole number."""
    half = 1 << bits - 1
    return ((difference + half) & (1 << bits) - 1) - half


def follows(seen: _Seen, sequence: int, timestamp: int, rate_hz: int) -> bool:
    """Whether a packet can be a neighbour of one that was seen, before it or after it."""
    packets = signed(sequence - seen.sequence, 16)
    samples = signed(timestamp - seen.timestamp, 32)
    near = 0 < abs(packets) <= _NEAR_PACKETS and 0 < abs(samples) <= _NEAR_S * rate_hz
    return near and (packets > 0) == (samples > 0)


class StreamInput:
    """Takes the packets of one stream, and leaves out what does not count.

    what : name of the stream in messages
    """

    def __init__(self, stream: StreamDescription, what: str) -> None:
        self.stream = stream
        self.what = what
        self.counters = StreamCounters()
        self.last_arrival_s = 0.0
        # Timestamp at the end of the packet that was heard before the sender was chosen.
        self.heard_until: int | None = None
        self._sender: Address | None = None
        self._ssrc = 0
        self._candidates: OrderedDict[tuple[Address, int], _Seen] = OrderedDict()
        self._frame_bytes = stream.frame_bytes
        self._payload_type = stream.payload_type
        self._stray: _Seen | None = None
        # Sequence numbers, extended beyond 16 bits.
        self._highest = self._base = self._taken = self._lost_before = 0
        self._remembered = [-1] * _REMEMBERED

    @property
    def ssrc(self) -> int | None:
        """SSRC of the sender that was chosen, None before."""
        return None if self._sender is None else self._ssrc

    @property
    def sender(self) -> Address | None:
        """Where the packets that count come from, None before there were any."""
        return self._sender

    def take(self, data: Bytes, address: Address, arrived_s: float) -> Placed | None:
        """A datagram; None where it does not count, or holds no samples.

        Raises StreamRestartedError where its sender has begun anew.
        """
        counters = self.counters
        try:
            packet = parse_packet(data)
        except PacketError:
            counters.malformed += 1
            return None
        if packet.payload_type != self._payload_type:
            counters.wrong_type += 1
            return None
        n_samples, rest = divmod(len(packet.payload), self._frame_bytes)
        if rest:
            counters.malformed += 1
            return None
        if address != self._sender or packet.ssrc != self._ssrc:
            if not self._choose(packet, n_samples, address, arrived_s):
                return None
        elif not self._is_new(packet.sequence):
            return None
        self.last_arrival_s = arrived_s
        if n_samples == 0:
            return None
        return Placed(packet.sequence, packet.timestamp, packet.payload, n_samples, arrived_s)

    def _choose(
        self, packet: RtpPacket, n_samples: int, address: Address, arrived_s: float
    ) -> bool:
        """Whether this packet makes its sender the stream's."""
        senders = self.stream.senders
        heard = self._sender is not None and arrived_s - self.last_arrival_s < RESTART_S
        if senders is not None and not senders.admits(address[0]):
            self.counters.other_senders += 1
            return False
        who = (address, packet.ssrc)
        seen = self._candidates.pop(who, None)
        if heard or seen is None or not self._continues(seen, packet):
            end = packet.timestamp + n_samples & 0xFFFFFFFF
            self._candidates[who] = _Seen(packet.sequence, packet.timestamp, end)
            if len(self._candidates) > _MAX_CANDIDATES:
                self._candidates.popitem(last=False)
            if self._sender is not None:
                self.counters.other_senders += 1
            return False
        if self._sender is not None:
            raise StreamRestartedError(
                f"{self.what}: its sender has begun anew ({_named(self._sender)} was silent, "
                f"{_named(address)} sends now): a new stream begins"
            )
        self._sender, self._ssrc, self.heard_until = address, packet.ssrc, seen.end
        self._candidates.clear()
        self._begin_numbers(packet.sequence)
        self.counters.received += 1
        return True

    def _continues(self, seen: _Seen, packet: RtpPacket) -> bool:
        """Whether a sender's packet makes sense beside its last one."""
        if packet.sequence == (seen.sequence + 1) & 0xFFFF and packet.timestamp != seen.end:
            # One of the two is wrong, and with it the beginning would be.
            return False
        return follows(seen, packet.sequence, packet.timestamp, self.stream.rate_hz)

    def _begin_numbers(self, sequence: int) -> None:
        # Far enough from 0 that a number before the first is not negative.
        self._highest = self._base = sequence + (1 << 16)
        self._taken = 1
        self._remembered[self._highest % _REMEMBERED] = self._highest

    def _is_new(self, sequence: int) -> bool:
        """Count a packet of the stream by its number; whether it came for the first time."""
        counters = self.counters
        ahead = ((sequence - self._highest + 0x8000) & 0xFFFF) - 0x8000
        number = self._highest + ahead
        if ahead > 0:
            if ahead > _MAX_DROPOUT:
                self._restart_numbers(sequence)
                counters.received += 1
                return True
            self._highest = number
        elif ahead <= -_MAX_DROPOUT:
            self._restart_numbers(sequence)
            counters.received += 1
            return True
        elif self._remembered[number % _REMEMBERED] == number:
            counters.duplicates += 1
            return False
        else:
            counters.reordered += 1
            # Before the first number that was counted.
            self._base = min(self._base, number)
        self._remembered[number % _REMEMBERED] = number
        counters.received += 1
        self._taken += 1
        return True

    def _restart_numbers(self, sequence: int) -> None:
        self._lost_before += self._highest - self._base + 1 - self._taken
        self.counters.sequence_jumps += 1
        self._remembered = [-1] * _REMEMBERED
        self._begin_numbers(sequence)

    def count(self) -> StreamCounters:
        """Counters as they are now."""
        if self._sender is not None:
            missed = self._highest - self._base + 1 - self._taken
            self.counters.lost = self._lost_before + missed
        return self.counters

    def stray(self, sequence: int, timestamp: int) -> None:
        """A packet whose timestamp is far from where the stream is.

        Raises StreamRestartedError where it follows the last such one: the stream has jumped.
        """
        before = self._stray
        self._stray = _Seen(sequence, timestamp)
        if before is not None and follows(before, sequence, timestamp, self.stream.rate_hz):
            raise StreamRestartedError(
                f"{self.what}: its timestamps have jumped: a new stream begins"
            )
        self.counters.strays += 1


def _named(address: Address) -> str:
    return f"{address[0]} port {address[1]}"
