"""Sockets on which the streams of an array arrive."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import struct
from pathlib import Path
from typing import Final

from soundpost.device.errors import CaptureError, DeviceBusyError
from soundpost.firmware_bridge.session_description import SessionDescription, StreamDescription

logger = logging.getLogger(__name__)

# Of a socket's buffer, as the kernel counts it: what a packet takes beside its own bytes (skbuff
# and the rounding up of its memory), and the time for which a busy machine is not to lose any.
_PACKET_OVERHEAD: Final = 1_280
_HELD_S: Final = 1.0
# Where the description does not say how long packets are: those of 1 ms, AES67's default.
_PACKET_S: Final = 0.001
# socket(7); not in Python's module.
_SO_RCVBUFFORCE: Final = 33
# ip(7); in Python's module from 3.12 on.
_IP_ADD_SOURCE_MEMBERSHIP: Final = 39


def open_rtp_sockets(
    session: SessionDescription, interface: str | None, what: str
) -> list[socket.socket]:
    """A socket for each stream, bound and in its group, with a buffer for a second of packets.

    interface : address of the network interface that multicast is joined on; None: as routes say
    what : name of the array in messages

    Raises CaptureError where an address is not this machine's, a port is taken or a group cannot be
    joined.
    """
    sockets: list[socket.socket] = []
    try:
        for stream in session.streams:
            sockets.append(_bound(stream, stream.port, what))
            if stream.is_multicast:
                _join(sockets[-1], stream, interface, what)
        _enlarge(sockets, session, what)
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def open_rtcp_sockets(
    session: SessionDescription, interface: str | None, what: str
) -> list[socket.socket | None]:
    """A socket for each stream's sender reports, None where its port is another stream's own.

    Raises CaptureError as open_rtp_sockets does.
    """
    taken = {(stream.address, stream.port) for stream in session.streams}
    sockets: list[socket.socket | None] = []
    try:
        for stream in session.streams:
            if (stream.address, stream.rtcp_port) in taken:
                sockets.append(None)
                continue
            sockets.append(opened := _bound(stream, stream.rtcp_port, what))
            if stream.is_multicast:
                _join(opened, stream, interface, what)
    except BaseException:
        for each in sockets:
            if each is not None:
                each.close()
        raise
    return sockets


def _bound(stream: StreamDescription, port: int, what: str) -> socket.socket:
    version = ipaddress.ip_address(stream.address).version
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        if stream.is_multicast:
            # Several programs may hear one group; a port of our own is ours alone.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Bound to a group, the socket gets what is sent there and nothing else.
        opened.bind((stream.address, port))
    except OSError as error:
        opened.close()
        raise _cannot_bind(stream, port, what, error) from error
    return opened


def _cannot_bind(stream: StreamDescription, port: int, what: str, error: OSError) -> CaptureError:
    place = f"{what}: {stream.address} port {port}"
    if error.errno == errno.EADDRINUSE:
        return DeviceBusyError(
            f"{place} is in use by another program: end it, or let the array send to another port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return CaptureError(
            f"{place}: the address is not one of this machine's (`ip addr`): let the array send "
            "here, and write that address into the description's line c="
        )
    return CaptureError(f"{place} cannot be listened to: {error.strerror}; check c= and m=")


def _join(
    opened: socket.socket, stream: StreamDescription, interface: str | None, what: str
) -> None:
    group = ipaddress.ip_address(stream.address).packed
    try:
        if opened.family == socket.AF_INET6:
            index = _interface_index(interface)
            member = group + struct.pack("@I", index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            return
        own = socket.inet_aton(interface or "0.0.0.0")
        senders = stream.senders
        if senders is not None and senders.include:
            # RFC 4607: routers then bring nothing from others.
            for sender in senders.addresses:
                # struct ip_mreq_source of Linux: group, interface, source.
                member = group + own + socket.inet_aton(sender)
                opened.setsockopt(socket.IPPROTO_IP, _IP_ADD_SOURCE_MEMBERSHIP, member)
        else:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + own)
    except OSError as error:
        where = f"on interface {interface}" if interface else "without an interface that is named"
        raise CaptureError(
            f"{what}: group {stream.address} cannot be joined {where}: {error.strerror}; give the "
            "source the option interface, this machine's address on the array's network"
        ) from error


def _interface_index(interface: str | None) -> int:
    """Number of an interface by its name; 0 leaves the choice to the kernel."""
    return socket.if_nametoindex(interface) if interface else 0


def _enlarge(sockets: list[socket.socket], session: SessionDescription, what: str) -> None:
    """Ask for room for a second of packets; warn once where the kernel gives less."""
    lacking = 0
    for opened, stream in zip(sockets, session.streams, strict=True):
        packet_s = (stream.packet_ms or 1e3 * _PACKET_S) / 1e3
        n_bytes = stream.rate_hz * stream.frame_bytes + _PACKET_OVERHEAD / packet_s
        wanted = round(_HELD_S * n_bytes)
        # The kernel doubles what is asked for, to have room for its own. Only root may exceed the
        # limit; everybody else is given the limit.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        if opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < wanted:
            with contextlib.suppress(OSError):
                opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
        if opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < wanted:
            lacking = max(lacking, wanted)
    if lacking:
        logger.warning(
            "%s: the kernel holds less than a second of packets: a busy machine may lose some; "
            "sudo sysctl -w net.core.rmem_max=%s",
            what,
            lacking,
        )


def kernel_drops(sockets: list[socket.socket]) -> int | None:
    """Datagrams that the kernel dropped for full buffers; None where it does not tell."""
    inodes = {os.fstat(opened.fileno()).st_ino for opened in sockets if opened.fileno() >= 0}
    drops, found = 0, 0
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            # Inode is the tenth, drops the last.
            if len(fields) >= 13 and int(fields[9]) in inodes:
                drops += int(fields[-1])
                found += 1
    return drops if found == len(inodes) else None
