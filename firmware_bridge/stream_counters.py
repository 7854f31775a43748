"""What a receiver counts: of one stream, and of all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from soundpost.firmware_bridge.clock_drift import Drift


@dataclass
class StreamCounters:
    """Packets of one stream since its sender was chosen.

    received : that count, each once, late ones included
    lost : that never came, by their sequence numbers
    late : came after their place in the stream had been given out
    duplicates : came again
    reordered : came after one with a higher number
    other_senders : came from another address or under another SSRC
    wrong_type : had another payload type
    malformed : were no RTP, or held no whole number of samples
    strays : had a timestamp that did not fit the stream's, and that no other one confirmed
    early : came before the array's first sample, while its streams were being put in step
    sequence_jumps : numbering that began afresh while the timestamps went on
    """

    received: int = 0
    lost: int = 0
    late: int = 0
    duplicates: int = 0
    reordered: int = 0
    other_senders: int = 0
    wrong_type: int = 0
    malformed: int = 0
    strays: int = 0
    early: int = 0
    sequence_jumps: int = 0

    def rejected(self) -> str:
        """Why packets were not taken, in words; empty where all were."""
        reasons = {
            "from other senders": self.other_senders,
            "of another payload type": self.wrong_type,
            "malformed": self.malformed,
            "with a stray timestamp": self.strays,
        }
        return ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)


@dataclass(frozen=True)
class ReceiverStatistics:
    """All that a receiver counted so far.

    streams : as described, in the order of their channels
    n_samples : instants given out or jumped over
    missing_samples : summed over channels, zeros and jumps
    blocks_dropped : blocks that nobody fetched in time
    kernel_drops : datagrams that the kernel dropped as a socket's buffer was full; None where
        /proc/net/udp does not tell
    drift : of the array's clock against this machine's, where there is enough to tell
    """

    streams: tuple[StreamCounters, ...]
    n_samples: int = 0
    missing_samples: int = 0
    blocks_dropped: int = 0
    kernel_drops: int | None = None
    drift: Drift | None = None

    @property
    def total(self) -> StreamCounters:
        """Counters of all streams together."""
        return StreamCounters(
            **{
                field.name: sum(getattr(stream, field.name) for stream in self.streams)
                for field in fields(StreamCounters)
            }
        )

    def to_dict(self) -> Mapping[str, Any]:
        """The same as JSON has it."""
        return asdict(self)
