"""What the kernel gives, and what is said where it gives less."""

from __future__ import annotations

import socket
import subprocess
import sys

from array_streams import describe, free_ports

from soundpost.firmware_bridge.udp_sockets import open_rtcp_sockets, open_rtp_sockets

# Opens the sockets of a description as a user who may not exceed the kernel's limit.
AS_NOBODY = """
import logging, os, sys
from soundpost.firmware_bridge.session_description import parse_sdp
from soundpost.firmware_bridge.udp_sockets import open_rtp_sockets
if os.geteuid() == 0:
    os.setuid(65_534)
logging.basicConfig(format="%(message)s", stream=sys.stdout)
open_rtp_sockets(parse_sdp(sys.stdin.read(), "fast.sdp"), None, "fast.sdp")
"""


def test_a_small_buffer_is_said_with_its_remedy() -> None:
    # 8 channels at 192 kHz in packets of 0.02 ms: a second of them is 68 MB.
    session = describe([8], port=free_ports(1), packet_ms=0.02, rate_hz=192_000)
    said = subprocess.run(
        [sys.executable, "-c", AS_NOBODY],
        input=session.to_sdp(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    n_bytes = 192_000 * 24 + 1_280 * 50_000
    assert said == (
        "fast.sdp: the kernel holds less than a second of packets: a busy machine may lose some; "
        f"sudo sysctl -w net.core.rmem_max={n_bytes}\n"
    )


def test_the_buffer_holds_what_was_asked_for() -> None:
    """A second of packets of 1 ms that nobody reads, or as many as the kernel gave room for."""
    session = describe([8], port=free_ports(1))
    (opened,) = open_rtp_sockets(session, None, "test")
    n_bytes = 12 + 48 * 24
    with opened, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        room = opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // (n_bytes + 1_280)
        for _ in range(1_000):
            sender.sendto(bytes(n_bytes), opened.getsockname())
        taken = 0
        while True:
            try:
                opened.recv(2_000)
            except BlockingIOError:
                break
            taken += 1
    assert taken >= min(1_000, room)


def test_ports_for_reports_that_are_taken_are_left_out() -> None:
    """Streams on ports one after the other leave none between them for RTCP."""
    first = free_ports(2)
    session = describe([2, 2], port=first)
    close = [session.streams[0], session.streams[1]]
    object.__setattr__(close[1], "port", first + 1)
    object.__setattr__(close[1], "rtcp_port", first + 2)
    opened = open_rtcp_sockets(session, None, "test")
    assert opened[0] is None
    assert opened[1] is not None
    assert opened[1].getsockname() == ("127.0.0.1", first + 2)
    opened[1].close()
