"""`soundpost array simulate`: a file of many channels as an array on the network."""

from __future__ import annotations

import argparse
import ipaddress
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from soundpost.device.audio import AudioFile, FloatArray
from soundpost.device.command import Command
from soundpost.device.errors import UsageError
from soundpost.device.interrupt import interrupts_wait

if TYPE_CHECKING:
    from soundpost.firmware_bridge.impairments import What
    from soundpost.firmware_bridge.sender import ArraySender, UdpLink

_DESCRIPTION = """\
Plays a sound file as an array of microphones would: as RTP streams of up to 8 channels over UDP, in
real time, with RTCP sender reports, described by an SDP file. What receives cannot tell it from
hardware. `soundpost scene render` makes files of simulated arrays.

The network can lose packets, hold them back, double them and delay them; microphones can be dead,
and plugs exchanged. --truth FILE.csv tells which packets were lost, reordered or doubled, and what
--seed was used makes the same happen again.

examples:
  soundpost array simulate scene.wav
  soundpost array simulate scene.wav --loop --to 239.69.1.50 --interface 192.168.1.40
  soundpost array simulate scene.wav --loss 0.01 --reorder 0.05 --drift-ppm 100 --truth truth.csv
  soundpost array simulate scene.wav --dead 3,17 --swap 4:9
  soundpost run --source rtp:scene.sdp         hears it, from another terminal
  ffmpeg -protocol_whitelist file,udp,rtp -i scene.sdp -t 5 heard.wav
"""
_DEFAULT_PORT = 5_004
# Of a file's sound, read and packed at once.
_BLOCK_S = 0.1
# Ethernet's MTU less the headers of IPv4 and UDP.
_LARGEST_WHOLE_BYTES = 1_472


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="sound file, a channel for each "
                        "microphone")  # fmt: skip
    parser.add_argument(
        "--sdp", type=Path, metavar="OUT.sdp", help="description to write (default: FILE.sdp)"
    )
    parser.add_argument(
        "--to",
        default="127.0.0.1",
        metavar="ADDRESS[:PORT]",
        help="where to send, one receiver or a multicast group (default: 127.0.0.1:5004)",
    )
    parser.add_argument("--interface", metavar="ADDRESS", help="send from this address of ours")
    parser.add_argument(
        "--ttl", type=int, default=1, metavar="N", help="multicast: routers to pass"
    )
    parser.add_argument(
        "--streams",
        default="auto",
        metavar="auto|N",
        help="number of streams (default: as few as have at most 8 channels each)",
    )
    parser.add_argument("--encoding", choices=("L16", "L24"), default="L24")
    parser.add_argument(
        "--packet-ms", type=float, default=1.0, metavar="MS", help="sound in a packet (default: 1)"
    )
    parser.add_argument(
        "--no-media-clock",
        action="store_true",
        help="leave a=mediaclk out: only the sender reports then tell how streams lie",
    )
    parser.add_argument("--loop", action="store_true", help="begin anew at the end, until Ctrl-C")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--loss", type=float, default=0.0, metavar="SHARE", help="of packets, as 0.01"
    )
    network.add_argument(
        "--reorder", type=float, default=0.0, metavar="SHARE", help="overtaken by 1 to 3 others"
    )
    network.add_argument("--duplicate", type=float, default=0.0, metavar="SHARE", help="come twice")
    network.add_argument(
        "--jitter-ms", type=float, default=0.0, metavar="MS", help="packets are late by up to this"
    )
    network.add_argument(
        "--drift-ppm", type=float, default=0.0, metavar="PPM", help="how much too fast the clock is"
    )
    network.add_argument("--truth", type=Path, metavar="FILE.csv", help="what was done to packets")
    faults = parser.add_argument_group("microphones")
    faults.add_argument("--dead", default="", metavar="N,N", help="channels that are silent")
    faults.add_argument("--swap", default="", metavar="N:N,N:N", help="channels that are exchanged")
    parser.add_argument("--seed", type=int, metavar="N", help="of all that is random")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def parse_target(text: str) -> tuple[str, int]:
    """Address and port of ADDRESS, ADDRESS:PORT, or an IPv6 address with [ and ] around it.

    Raises UsageError where it is none of these.
    """
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([0-9.]+)(?::(\d{1,5}))?", text)
    address = (found[1] or found[3]) if found else text
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise UsageError(
            f"--to {text}: expected an address in numbers and a port, as 192.168.1.40:5004 or "
            "[fd00::1]:5004"
        ) from error
    port = (found[2] or found[4]) if found else None
    return address, int(port) if port else _DEFAULT_PORT


def _numbers(text: str, option: str) -> list[int]:
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*|", text):
        raise UsageError(f"{option} {text}: expected channels counted from 0, as 3,17")
    return [int(number) for number in text.split(",") if number]


def _pairs(text: str, option: str) -> list[tuple[int, int]]:
    if not re.fullmatch(r"\d{1,4}:\d{1,4}(,\d{1,4}:\d{1,4})*|", text):
        raise UsageError(f"{option} {text}: expected pairs of channels counted from 0, as 4:9")
    pairs = [pair.split(":") for pair in text.split(",") if pair]
    return [(int(one), int(other)) for one, other in pairs]


def _n_streams(text: str) -> int | None:
    if text == "auto":
        return None
    if not re.fullmatch(r"\d{1,4}", text):
        raise UsageError(f"--streams {text}: expected auto or a number")
    return int(text)


def _packet_samples(packet_ms: float, rate_hz: int) -> int:
    if not 0 < packet_ms <= 1_000:
        raise UsageError(f"--packet-ms {packet_ms:g}: expected more than 0 and at most 1000")
    return max(1, round(packet_ms / 1000 * rate_hz))


def _blocks(file: AudioFile, loop: bool) -> Iterator[FloatArray]:
    while True:
        yield from file.blocks(round(_BLOCK_S * file.rate_hz))
        if not loop:
            return


def _run(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from tqdm import tqdm

        from soundpost.device.files import write_atomically
        from soundpost.firmware_bridge import impairments as bad
        from soundpost.firmware_bridge import packetiser as cut
        from soundpost.firmware_bridge import sender
        from soundpost.firmware_bridge.session_description import Origin

    address, port = parse_target(arguments.to)
    dead, swaps = _numbers(arguments.dead, "--dead"), _pairs(arguments.swap, "--swap")
    if not 0 <= arguments.ttl <= 255:
        raise UsageError(f"--ttl {arguments.ttl}: expected 0 to 255")
    seed: int = secrets.randbits(32) if arguments.seed is None else arguments.seed
    with ExitStack() as stack:
        file = stack.enter_context(AudioFile(arguments.file))
        channels = cut.split_channels(file.n_channels, _n_streams(arguments.streams))
        order = bad.faulty_order(file.n_channels, swaps)
        bad.check_channels(dead, file.n_channels)
        packet_samples = _packet_samples(arguments.packet_ms, file.rate_hz)
        starts = cut.random_starts(len(channels), seed)
        session = cut.describe_array(
            file.rate_hz,
            channels,
            starts,
            address=address,
            port=port,
            packet_samples=packet_samples,
            encoding=arguments.encoding,
            name=arguments.file.stem,
            origin=Origin(sender.local_address(address, arguments.interface), seed & 0xFFFFFFFF),
            clock_reference=sender.clock_of_this_machine(),
            media_clock=not arguments.no_media_clock,
            ttl=arguments.ttl,
        )
        settings = bad.ImpairmentSettings(
            arguments.loss, arguments.reorder, arguments.duplicate, arguments.jitter_ms
        )
        record = stack.enter_context(bad.truth_file(arguments.truth)) if arguments.truth else None
        network = bad.Impairments(settings, seed, record)
        link = stack.enter_context(sender.UdpLink(session, arguments.interface))
        playing = sender.ArraySender(
            cut.Packetiser(session, starts, packet_samples),
            link,
            network,
            drift_ppm=arguments.drift_ppm,
        )
        sdp: Path = arguments.sdp or arguments.file.with_suffix(".sdp")
        write_atomically(sdp, session.to_sdp().encode())
        last = session.streams[-1].port
        print(
            f"{sdp}: {len(channels)} stream{'s' * (len(channels) > 1)} of {file.n_channels} "
            f"channels, {arguments.encoding} at {file.rate_hz} Hz, {packet_samples} samples a "
            f"packet, to {address} port{f's {port} to {last}' if last > port else f' {port}'}, "
            f"seed {seed}",
            flush=True,
        )
        largest = cut.packet_bytes(arguments.encoding, max(channels), packet_samples)
        if largest > _LARGEST_WHOLE_BYTES and not ipaddress.ip_address(address).is_loopback:
            print(
                f"packets have {largest} bytes, and Ethernet carries {_LARGEST_WHOLE_BYTES} in one "
                "piece: expect losses, or take more streams or a shorter --packet-ms"
            )
        with tqdm(
            total=None if arguments.loop else file.n_samples,
            desc=arguments.file.name,
            unit="S",
            unit_scale=True,
            disable=arguments.quiet,
        ) as bar:
            try:
                playing.send(
                    (
                        bad.spoil_channels(samples, order, dead)
                        for samples in _blocks(file, arguments.loop)
                    ),
                    bar.update,
                )
            finally:
                bar.close()
                if playing.sent.n_packets:
                    _print_totals(playing, network.counts, link, file.rate_hz)
    return 0


def _print_totals(
    playing: ArraySender, counts: Mapping[What, int], link: UdpLink, rate_hz: int
) -> None:
    sent = playing.sent
    done = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    own = f"; {link.n_dropped} found no room in this machine" if link.n_dropped else ""
    print(
        f"sent {sent.n_samples / rate_hz:.3f} s: {sent.n_packets} packets, "
        f"{sent.n_bytes / 1e6:.1f} MB{'; ' + done if done else ''}{own}; at most "
        f"{1000 * sent.most_late_s:.1f} ms late"
    )


COMMAND = Command(
    "play a file of many channels as an array on the network", _DESCRIPTION, _add_arguments, _run
)
