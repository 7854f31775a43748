"""Sends an array's packets as its hardware would: at its own pace, over UDP, with reports.

A packet goes when its last sample has been taken, by a sample clock that may be faster or slower
than this machine's. Where the machine is late, packets go without a pause until it has caught up:
lateness does not add up.
"""

from __future__ import annotations

import errno
import heapq
import ipaddress
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Final

from soundpost.device.audio import FloatArray
from soundpost.device.errors import UsageError
from soundpost.firmware_bridge.impairments import Impairments, ImpairmentSettings
from soundpost.firmware_bridge.packetiser import Datagram, Packetiser
from soundpost.firmware_bridge.rtcp_report import ntp_time
from soundpost.firmware_bridge.session_description import SessionDescription

# RFC 3550, 6.2: at least 360 s over the kilobits of a second, which 8 channels of L24 make 0.04 s.
REPORT_S: Final = 1.0
MAX_DRIFT_PPM: Final = 100_000.0
# FFmpeg ends at once when it hears that a stream does, whatever it has not read yet.
_BYE_AFTER_S: Final = 0.1
# Packets of a burst that the kernel takes while the network is busy: 16 streams for some 20 ms.
_SEND_BUFFER_BYTES: Final = 1 << 20
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES)


def local_address(towards: str, interface: str | None = None) -> str:
    """The address of this machine from which packets to another leave.

    Raises UsageError where no network leads there.
    """
    if interface is not None:
        return interface
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting UDP sends nothing.
            probe.connect((towards, 9))
        except OSError as error:
            raise _unreachable(towards, error) from error
        return str(probe.getsockname()[0])


def clock_of_this_machine() -> str:
    """How ts-refclk names a clock that only this machine has (RFC 7273, 4.7: its MAC address)."""
    digits = f"{uuid.getnode():012X}"
    return "localmac=" + "-".join(digits[at : at + 2] for at in range(0, 12, 2))


def _unreachable(address: str, error: OSError) -> UsageError:
    return UsageError(
        f"{address}: cannot be sent to ({error.strerror}); check the address and the network, or "
        "for multicast choose a network by its address with --interface"
    )


class UdpLink:
    """Sockets to where a session's streams go.

    Parameters
    ----------
    interface : address of this machine from which to send, in place of the system's choice

    Raises UsageError where that cannot be.
    """

    def __init__(self, session: SessionDescription, interface: str | None = None) -> None:
        first = session.streams[0]
        v6 = ":" in first.address
        self._socket = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
        self._to = [(stream.address, stream.port) for stream in session.streams]
        self._reports_to = [(stream.address, stream.rtcp_port) for stream in session.streams]
        self.n_dropped = 0
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        try:
            if interface is not None:
                self._socket.bind((interface, 0))
            if ipaddress.ip_address(first.address).is_multicast and not v6:
                ttl = 1 if first.ttl is None else first.ttl
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
                if interface is not None:
                    of_interface = socket.inet_aton(interface)
                    self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, of_interface)
        except OSError as error:
            self._socket.close()
            raise UsageError(
                f"interface {interface}: {error.strerror}; expected an address of this machine "
                "(ip address lists them)"
            ) from error

    def send(self, stream: int, data: bytes) -> None:
        """Send a packet; raises UsageError where no network leads there."""
        self._send(self._to[stream], data)

    def send_report(self, stream: int, data: bytes) -> None:
        """Send a report to the port of the stream's reports."""
        self._send(self._reports_to[stream], data)

    def _send(self, to: tuple[str, int], data: bytes) -> None:
        try:
            self._socket.sendto(data, to)
        except OSError as error:
            if error.errno in _UNREACHABLE:
                raise _unreachable(to[0], error) from error
            if error.errno not in (errno.ENOBUFS, errno.ECONNREFUSED):
                raise
            # A full queue of the machine's own, or nobody there yet: a lost packet like others.
            self.n_dropped += 1

    def close(self) -> None:
        """Close the sockets."""
        self._socket.close()

    def __enter__(self) -> UdpLink:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class Sent:
    """What has been sent so far.

    n_samples : of each channel
    n_packets, n_bytes : RTP, with headers, as they went out
    most_late_s : by how much a packet went later than it was due
    """

    n_samples: int = 0
    n_packets: int = 0
    n_bytes: int = 0
    most_late_s: float = 0.0


class ArraySender:
    """Sends samples at the pace of their sample clock.

    Parameters
    ----------
    network : what happens to packets on the way
    drift_ppm : how much faster than said the sample clock runs
    paced : False sends as fast as it can, for those that measure how fast that is
    name : canonical name in the reports
    """

    def __init__(
        self,
        packetiser: Packetiser,
        link: UdpLink,
        network: Impairments | None = None,
        *,
        drift_ppm: float = 0.0,
        paced: bool = True,
        name: str = "soundpost",
    ) -> None:
        if not abs(drift_ppm) <= MAX_DRIFT_PPM:
            raise UsageError(f"drift {drift_ppm:g} ppm: expected at most {MAX_DRIFT_PPM:g}")
        self.sent = Sent()
        self._packetiser = packetiser
        self._link = link
        self._network = network or Impairments(ImpairmentSettings(), 0)
        self._rate_hz = packetiser.session.rate_hz * (1 + drift_ppm * 1e-6)
        self._paced = paced
        self._name = name
        # Due, order of sending, packet: those of one moment stay in order.
        self._waiting: list[tuple[float, int, Datagram]] = []
        self._order = count()
        self._start_s = self._wall_s = 0.0
        self._report_at = 0

    def send(
        self, blocks: Iterable[FloatArray], progress: Callable[[int], object] | None = None
    ) -> None:
        """Send blocks of (n_samples, n_channels) float32 until there are no more.

        progress : told after each block how many samples it had

        However it ends, Ctrl-C included, receivers are told that the streams have ended.
        """
        self._start_s, self._wall_s = time.monotonic(), time.time()
        try:
            for samples in blocks:
                for packets in self._packetiser.push(samples):
                    self._send_moment(packets)
                if progress is not None:
                    progress(len(samples))
            for packets in self._packetiser.flush():
                self._send_moment(packets)
            end_s = self._due_s(self._packetiser.position)
            for due_s, datagram in self._network.flush(end_s):
                self._wait(due_s, datagram)
            self._send_waiting(float("inf"))
            if self._paced:
                time.sleep(_BYE_AFTER_S)
        finally:
            self._report(bye=True)

    def _due_s(self, sample: int) -> float:
        return self._start_s + sample / self._rate_hz

    def _send_moment(self, packets: list[Datagram]) -> None:
        """One packet of each stream; reports come after the first ones and then by the second."""
        due_s = self._due_s(self._packetiser.position)
        for packet in packets:
            for at_s, datagram in self._network.send(packet, due_s):
                self._wait(at_s, datagram)
        self._send_waiting(due_s)
        self.sent.n_samples = self._packetiser.position
        if self._packetiser.position > self._report_at:
            self._report()
            self._report_at = self._packetiser.position + round(REPORT_S * self._rate_hz)

    def _wait(self, due_s: float, datagram: Datagram) -> None:
        heapq.heappush(self._waiting, (due_s, next(self._order), datagram))

    def _send_waiting(self, until_s: float) -> None:
        """Send all that is due until then, each at its time: what comes later is due later."""
        waiting, sent = self._waiting, self.sent
        now_s = time.monotonic()
        while waiting and waiting[0][0] <= until_s:
            due_s, _, datagram = heapq.heappop(waiting)
            if self._paced and due_s > now_s:
                time.sleep(due_s - now_s)
                now_s = time.monotonic()
                sent.most_late_s = max(sent.most_late_s, now_s - due_s)
            self._link.send(datagram.stream, datagram.data)
            sent.n_packets += 1
            sent.n_bytes += len(datagram.data)
        if self._paced:
            sent.most_late_s = max(sent.most_late_s, now_s - min(until_s, now_s))

    def _report(self, *, bye: bool = False) -> None:
        ntp = ntp_time(self._wall_s + self._packetiser.position / self._rate_hz)
        for number, report in enumerate(self._packetiser.reports(ntp, self._name, bye=bye)):
            self._link.send_report(number, report)
