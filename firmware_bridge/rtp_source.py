"""An array on the network as a source: `rtp:FILE.sdp`."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator
from pathlib import Path

from soundpost.device.audio import AudioBlock, Channel
from soundpost.device.capture import block_length
from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import expand_home
from soundpost.firmware_bridge.receiver import Receiver
from soundpost.firmware_bridge.session_description import (
    MAX_TEXT,
    SessionDescription,
    parse_sdp,
)
from soundpost.firmware_bridge.stream_counters import ReceiverStatistics

logger = logging.getLogger(__name__)

# A window of more than this is no network's, and memory for nothing.
MAX_WINDOW_S = 1.0
MAX_BUFFER_S = 30.0


def read_sdp(path: Path) -> SessionDescription:
    """Read a session description; raises InputError naming the file, and the line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror or error}; give the session description "
            "(SDP) that the array's sender has written"
        ) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: expected a session description (SDP)") from error
    return parse_sdp(text, str(path))


class RtpSource:
    """An array on the network; see open_rtp."""

    live = True
    channel: Channel = "mix"

    def __init__(self, session: SessionDescription, name: str, receiver: Receiver) -> None:
        self.session = session
        self.rate_hz = session.rate_hz
        self.n_channels = session.n_channels
        self.name = name
        self._receiver = receiver
        self._closed = False

    @property
    def overflows(self) -> int:
        """How often this machine lost sound so far; what the network lost is marked in blocks."""
        return self._receiver.overflows

    @property
    def fault(self) -> str | None:
        """A stream that sends nothing while others do, None while all send."""
        return self._receiver.fault

    def statistics(self) -> ReceiverStatistics:
        """Packets, losses and the drift of the array's clock so far."""
        return self._receiver.statistics()

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order; see Receiver.blocks."""
        return self._receiver.blocks()

    def close(self) -> None:
        """Stop; a running `blocks` ends."""
        if self._closed:
            return
        self._closed = True
        self._receiver.close()
        statistics = self.statistics()
        logger.info(
            "%s: %s; clock of the array %s",
            self.name,
            statistics.total,
            statistics.drift or "unknown",
        )

    def __enter__(self) -> RtpSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_rtp(
    url: str,
    *,
    block_s: float = 0.02,
    window_s: float = 0.05,
    buffer_s: float = 2.0,
    interface: str | None = None,
) -> RtpSource:
    """Receive an array with all its channels.

    Parameters
    ----------
    url : "rtp:FILE.sdp", the session description of its sender
    block_s : length of a block in seconds
    window_s : how long a packet is waited for once a later one has come, up to 1 s; all sound is
        late by so much where packets are lost
    buffer_s : sound kept for a reader that is late, up to 30 s
    interface : this machine's address on the array's network, for multicast where it has several;
        for IPv6 the interface's name

    Raises InputError for the description, UsageError for an option, CaptureError where its
    addresses cannot be listened to.
    """
    path = url[len("rtp:") :] if url.startswith("rtp:") else url
    if not 0 < window_s <= MAX_WINDOW_S:
        raise UsageError(f"window_s {window_s}: expected more than 0 and at most {MAX_WINDOW_S:g}")
    if not 0 < buffer_s <= MAX_BUFFER_S:
        raise UsageError(f"buffer_s {buffer_s}: expected more than 0 and at most {MAX_BUFFER_S:g}")
    file = expand_home(path)
    session = read_sdp(file)
    _check_interface(interface, session)
    if block_length(block_s, session.rate_hz) > session.rate_hz:
        raise UsageError(f"block_s {block_s}: expected at most 1 second of an array")
    receiver = Receiver(
        session,
        file.name,
        interface=interface,
        window_s=window_s,
        block_s=block_s,
        buffer_s=buffer_s,
    )
    return RtpSource(session, file.name, receiver)


def _check_interface(interface: str | None, session: SessionDescription) -> None:
    if interface is None or ":" in session.streams[0].address:
        return
    try:
        ipaddress.IPv4Address(interface)
    except ValueError as error:
        raise UsageError(
            f"interface {interface!r}: expected this machine's IPv4 address on the array's network"
        ) from error
