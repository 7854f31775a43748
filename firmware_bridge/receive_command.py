"""`soundpost array receive`: hears an array on the network and tells how well it comes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from soundpost.device.command import Command
from soundpost.device.errors import UsageError
from soundpost.device.interrupt import interrupts_wait

if TYPE_CHECKING:
    from soundpost.firmware_bridge.rtp_source import RtpSource
    from soundpost.firmware_bridge.stream_counters import StreamCounters

_DESCRIPTION = """\
Hears the RTP streams that a session description (SDP) names, keeps nothing, and tells how well they
come: packets lost, late, out of order and sent by others, for each stream; gaps; and by how much
the array's clock is faster or slower than this machine's. Ctrl-C ends it before its time.

examples:
  soundpost array receive array.sdp                       for ten seconds
  soundpost array receive array.sdp --seconds 600         long enough for a drift to 0.1 ppm
  soundpost array receive array.sdp --interface 192.168.1.40    multicast, with several networks
  soundpost array receive array.sdp --json > array.json
"""
_COUNTED = ("received", "lost", "late", "duplicates", "reordered", "other_senders", "malformed")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sdp", metavar="FILE.sdp", help="description that the array's sender wrote")
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="N", help="how long to hear it (default: 10)"
    )
    parser.add_argument("--interface", metavar="ADDRESS", help="of this machine, for multicast")
    parser.add_argument(
        "--window-ms",
        type=float,
        default=50.0,
        metavar="MS",
        help="how long a packet is waited for once a later one has come (default: 50)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _run(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from tqdm import tqdm

        from soundpost.device.gaps import GapLog
        from soundpost.firmware_bridge.rtp_source import open_rtp

    if not 0 < arguments.seconds <= 1e6:
        raise UsageError(f"--seconds {arguments.seconds:g}: expected more than 0 and at most 1e6")
    gaps = GapLog(keep=0)
    with open_rtp(
        arguments.sdp, window_s=arguments.window_ms / 1e3, interface=arguments.interface
    ) as source:
        wanted = round(arguments.seconds * source.rate_hz)
        with tqdm(
            total=wanted, desc=source.name, unit="S", unit_scale=True, disable=arguments.quiet
        ) as bar:
            try:
                for block in source.blocks():
                    gaps.add(block)
                    done = block.first_sample + len(block.samples)
                    bar.update(min(done, wanted) - bar.n)
                    bar.set_postfix(gaps=gaps.count, refresh=False)
                    if done >= wanted:
                        break
            except KeyboardInterrupt:
                # What was heard until now is told.
                pass
        _tell(source, gaps.count, as_json=arguments.json)
    return 0


def _tell(source: RtpSource, gaps: int, as_json: bool) -> None:
    statistics = source.statistics()
    seconds = statistics.n_samples / source.rate_hz
    if as_json:
        print(json.dumps({"seconds": seconds, "gaps": gaps, **statistics.to_dict()}))
        return
    missing_s = statistics.missing_samples / source.n_channels / source.rate_hz
    print(
        f"{source.name}: {seconds:.3f} s of {source.n_channels} channels at {source.rate_hz} Hz; "
        f"{gaps} gaps, {1e3 * missing_s:.3f} ms of each channel on average"
    )
    print(f"{'stream':>8} {'channels':>10} " + " ".join(f"{name:>13}" for name in _COUNTED))
    for line in _lines(source, statistics.streams):
        print(line)
    own = [
        f"{count} {what}"
        for count, what in (
            (statistics.kernel_drops, "packets for which the kernel had no room"),
            (statistics.blocks_dropped, "blocks that this program was too slow for"),
        )
        if count
    ]
    print(f"lost by this machine: {', '.join(own) or 'nothing'}")
    print(f"clock of the array: {statistics.drift or 'too short to tell (at least 10 s)'}")


def _lines(source: RtpSource, streams: tuple[StreamCounters, ...]) -> Iterator[str]:
    for number, (stream, counted) in enumerate(
        zip(source.session.streams, streams, strict=True), 1
    ):
        channels = f"{stream.first_channel}-{stream.first_channel + stream.n_channels - 1}"
        values = " ".join(f"{getattr(counted, name):>13}" for name in _COUNTED)
        yield f"{number:>8} {channels:>10} {values}"


COMMAND = Command(
    "hear an array on the network and tell how well it comes",
    _DESCRIPTION,
    _add_arguments,
    _run,
)
