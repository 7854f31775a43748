"""Whether a packet's timestamp is to be believed: others of its stream must agree with it.

A timestamp that is wrong by half a second, believed at once, makes half a second of silence of what
is still on its way. Within a stream the sequence number says which packet comes before it, and so
where it must begin. One that begins elsewhere is held back until another packet continues it: then
the stream has jumped, and is followed. If instead a later one fits the stream as it was, the
timestamp was wrong, and the packet is lost.
"""

from __future__ import annotations

from typing import Final

from soundpost.firmware_bridge.stream_input import Placed, signed

_MASK: Final = (1 << 32) - 1
# Places that are remembered: packets that come late lie beside one of these.
_REMEMBERED: Final = 1_024
# From so many packets of one length on, those that are lost are taken to be as long.
_REGULAR: Final = 64
# Else they may be as long as packets are by default (RFC 3551, 4.2), or as the last that came.
_LONGEST_S: Final = 0.02
# Packets held back; there is more than one only where a stream jumps and is disturbed as well.
_MAX_HELD: Final = 4
# As long as packets may be out of order.
_NEAR: Final = 64


class TimestampGuard:
    """Lets through the packets of one stream whose places fit each other.

    rate_hz : of the stream

    Attributes
    ----------
    strays : packets left out, as no other agreed with their timestamp
    jumped : the last packets let through do not fit what came before, but each other
    """

    def __init__(self, rate_hz: int) -> None:
        self._longest = round(_LONGEST_S * rate_hz)
        # The packet with the highest number of those let through, and the timestamp at its end.
        self._last: Placed | None = None
        # The same before the stream last jumped: beside it lie those that come late.
        self._before: Placed | None = None
        self._end = -1
        # (sequence, timestamp, timestamp at the end) by the sequence's last digits.
        self._places: list[tuple[int, int, int]] = [(-1, 0, 0)] * _REMEMBERED
        self._length = 0
        self._n_alike = 0
        self._varies = False
        self._held: list[Placed] = []
        self.strays = 0
        self.jumped = False

    def take(self, placed: Placed) -> tuple[Placed, ...]:
        """The packets that are to be placed now that this one has come, mostly this one alone.

        What is held back has a copy of its samples.
        """
        self.jumped = False
        if placed.timestamp == self._end:
            # It goes on where the last one ended, whatever its number: no sound is left out.
            self._accept(placed)
            return (placed, *self._settled(placed)) if self._held else (placed,)
        if self._last is None or self._fits(placed):
            late = self._last is not None and signed(placed.sequence - self._last.sequence, 16) < 0
            self._accept(placed, late=late)
            return (placed, *self._settled(placed)) if self._held else (placed,)
        return self._doubt(placed)

    def rest(self) -> list[Placed]:
        """Of those held back, at the end of all, what may well be right."""
        last, held = self._last, self._held
        self._held = []
        through = [
            each
            for each in held
            if last is not None
            and self._beside(each) is not False
            and self._may_be_near(last, each)
        ]
        self.strays += len(held) - len(through)
        return through

    def _accept(self, placed: Placed, *, late: bool = False) -> None:
        sequence, timestamp, _, n_samples, _ = placed
        end = (timestamp + n_samples) & _MASK
        self._places[sequence % _REMEMBERED] = (sequence, timestamp, end)
        if n_samples == self._length:
            self._n_alike += 1
        else:
            self._length, self._n_alike = n_samples, 1
        if not late:
            self._last, self._end = placed, end

    def _fits(self, placed: Placed) -> bool:
        """Whether a packet lies where its number has it among those let through."""
        assert self._last is not None
        beside = self._beside(placed)
        if beside is not None:
            return beside
        return self._is_near(self._last, placed) or (
            self._before is not None
            and signed(placed.sequence - self._before.sequence, 16) < 0
            and self._is_near(self._before, placed)
        )

    def _beside(self, placed: Placed) -> bool | None:
        """Whether a packet touches one of its two neighbours; None: neither was let through."""
        sequence, timestamp, _, n_samples, _ = placed
        before = self._places[(sequence - 1) % _REMEMBERED]
        after = self._places[(sequence + 1) % _REMEMBERED]
        is_known = False
        if before[0] == (sequence - 1) & 0xFFFF:
            is_known = True
            if timestamp == before[2]:
                return True
        if after[0] == (sequence + 1) & 0xFFFF:
            is_known = True
            if (timestamp + n_samples) & _MASK == after[1]:
                return True
        return False if is_known else None

    def _is_near(self, one: Placed, other: Placed) -> bool:
        """Whether two packets lie as far from each other as those between them are long."""
        if self._varies or self._n_alike < _REGULAR:
            return self._may_be_near(one, other)
        between, gap = _apart(one, other)
        return gap == between * self._length

    def _may_be_near(self, one: Placed, other: Placed) -> bool:
        """The same where it is not known how long those between them are."""
        between, gap = _apart(one, other)
        return 0 <= gap <= between * max(self._longest, self._length)

    def _settled(self, placed: Placed) -> list[Placed]:
        """What of those held back is let through or given up, as a packet was let through."""
        kept, through = [], []
        for held in self._held:
            ahead = signed(held.sequence - placed.sequence, 16)
            if 0 < ahead <= _NEAR:
                # Its time to be continued has not come.
                kept.append(held)
            elif -_NEAR <= ahead < 0 and self._fits(held):
                self._accept(held, late=True)
                through.append(held)
            else:
                self.strays += 1
        self._held = kept
        return through

    def _doubt(self, placed: Placed) -> tuple[Placed, ...]:
        """Hold a packet back, unless one that is held back already agrees with it."""
        for held in self._held:
            if self._agree(held, placed):
                self._held.remove(held)
                return self._follow(held, placed)
        self._held.append(placed._replace(payload=bytes(placed.payload)))
        if len(self._held) > _MAX_HELD:
            del self._held[0]
            self.strays += 1
        return ()

    def _agree(self, held: Placed, placed: Placed) -> bool:
        if not 0 < abs(signed(placed.sequence - held.sequence, 16)) <= _NEAR:
            return False
        if self._may_be_near(held, placed):
            return True
        # Of a sender that counts time, and not samples, neighbours are a little off.
        between, gap = _apart(held, placed)
        return between == 0 and abs(gap) < held.n_samples

    def _follow(self, held: Placed, placed: Placed) -> tuple[Placed, ...]:
        """Go on from where two packets agree to be."""
        assert self._last is not None
        first, second = held, placed
        if signed(placed.sequence - held.sequence, 16) < 0:
            first, second = placed, held
        self.jumped = True
        self._before = self._last
        # Both are right, and do not lie by what was taken for the length of all packets.
        self._varies = self._varies or not self._is_near(first, second)
        # What was lost before it is not known to be as long as the others.
        self._n_alike = 0
        late = signed(second.sequence - self._last.sequence, 16) < 0
        near = signed(second.sequence - self._last.sequence, 16) > -_NEAR
        self._accept(first, late=late and near)
        self._accept(second, late=late and near)
        return (first, second, *self._settled(second))


def _apart(one: Placed, other: Placed) -> tuple[int, int]:
    """How many packets of a stream lie between two of it, and how many samples."""
    between = signed(other.sequence - one.sequence, 16)
    if between < 0:
        one, other, between = other, one, -between
    return between - 1, signed(other.timestamp - one.timestamp - one.n_samples, 32)
