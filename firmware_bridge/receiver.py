"""Receives an array over the network: sockets and a thread around an Assembler.

The thread sleeps between two rounds, in each of which it reads all that has come: to wake for every
packet would cost more than the packets do. Blocks wait for their reader in a bounded queue.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from soundpost.device.audio import AudioBlock
from soundpost.device.errors import CaptureError, StreamStalledError
from soundpost.firmware_bridge.assembler import Assembler
from soundpost.firmware_bridge.session_description import SessionDescription
from soundpost.firmware_bridge.stream_counters import ReceiverStatistics
from soundpost.firmware_bridge.udp_sockets import (
    kernel_drops,
    open_rtcp_sockets,
    open_rtp_sockets,
)

logger = logging.getLogger(__name__)

# Between two rounds: short beside a block, long beside the time between two packets.
_ROUND_S = 0.005
# While nothing comes; a window ends no later than this after its time.
_IDLE_S = 0.02
# Datagrams that one socket may give in a round: none keeps the others waiting.
_PER_ROUND = 256
# Larger than any datagram.
_BUFFER_BYTES = 1 << 16
# An array that sends nothing for this long is gone, as a microphone is.
_STALLED_S = 3.0
_DROPS_EVERY_S = 1.0


class Receiver:
    """An array's streams, received from now on.

    Parameters
    ----------
    session : the streams
    what : name of the array in messages
    interface : address of this machine on the array's network, for multicast
    window_s : how long a packet is waited for once a later one has come
    block_s : length of a block
    buffer_s : sound that is kept for a reader that is busy

    Attributes
    ----------
    overflows : how often sound was lost by this machine: blocks that nobody fetched, and datagrams
        for which the kernel had no room

    Raises CaptureError where the streams cannot be listened to.
    """

    def __init__(
        self,
        session: SessionDescription,
        what: str,
        *,
        interface: str | None = None,
        window_s: float = 0.05,
        block_s: float = 0.02,
        buffer_s: float = 2.0,
    ) -> None:
        self._session = session
        self._what = what
        self._window_s = window_s
        self._assembler = Assembler(session, what, window_s=window_s, block_s=block_s)
        self._max_blocks = max(2, round(buffer_s / block_s))
        self._blocks: deque[AudioBlock] = deque()
        self._dropped = 0
        self._drops: int | None = None
        self._error: CaptureError | None = None
        self._closed = False
        self._changed = threading.Condition()
        # Held while the assembler is used: its counters are read from another thread.
        self._assembling = threading.Lock()
        self._sockets = open_rtp_sockets(session, interface, what)
        self._by_reports = self._assembler.by_reports
        self._report_sockets: list[socket.socket | None] = []
        try:
            if self._by_reports:
                self._report_sockets = open_rtcp_sockets(session, interface, what)
        except BaseException:
            self._close_sockets()
            raise
        self._thread = threading.Thread(target=self._run, name=f"rtp-{what}", daemon=True)
        self._thread.start()

    @property
    def overflows(self) -> int:
        """How often this machine lost sound."""
        return self._dropped + (self._drops or 0)

    @property
    def fault(self) -> str | None:
        """One line on what is wrong with the streams, None while nothing is.

        Of several: one that always comes too late, or sends nothing while others do.
        """
        with self._assembling:
            silent = self._assembler.silent(time.monotonic(), _STALLED_S)
            lagging = self._assembler.lagging()
        if lagging:
            return (
                f"{self._what}: stream {lagging[0]} comes more than {self._window_s:g} s after the "
                "others, and is lost: raise window_s of the source, or see to the network"
            )
        if not silent or len(silent) == len(self._session.streams):
            return None
        stream = self._session.streams[silent[0] - 1]
        channels = f"channels {stream.first_channel} to "
        channels += f"{stream.first_channel + stream.n_channels - 1}"
        more = f", nor do {len(silent) - 1} others" if len(silent) > 1 else ""
        return (
            f"{self._what}: stream {silent[0]} ({channels}) sends nothing for "
            f"{_STALLED_S:g} s{more}: zeros stand in for it; see to its sender"
        )

    def origin(self, index: int) -> int | None:
        """RTP timestamp of a stream at the first sample; None before the first block."""
        return self._assembler.origin(index)

    def statistics(self) -> ReceiverStatistics:
        """What was counted so far."""
        with self._assembling:
            counted = self._assembler.statistics()
        return replace(counted, blocks_dropped=self._dropped, kernel_drops=self._drops)

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order, until it is closed.

        Raises CaptureError when no packets come, the sender begins anew, or the streams cannot be
        put in step; what came before is given out first.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._blocks or self._error or self._closed)
                if self._closed:
                    return
                if not self._blocks:
                    assert self._error is not None
                    raise self._error
                block = self._blocks.popleft()
            yield block

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                for index, opened in enumerate(self._sockets):
                    selector.register(opened, selectors.EVENT_READ, (opened, index, False))
                for index, reports in enumerate(self._report_sockets):
                    if reports is not None:
                        selector.register(reports, selectors.EVENT_READ, (reports, index, True))
                self._receive(selector)
        except CaptureError as error:
            self._end(error)
        except Exception as error:  # What ends a thread must reach its reader.
            if not self._closed:
                logger.exception("%s: a fault in soundpost", self._what)
                self._end(CaptureError(f"{self._what}: a fault in soundpost: {error!r}"))
        finally:
            # Those of the last moments too: a socket that is closed tells nothing any more.
            self._drops = kernel_drops(self._sockets)
            self._close_sockets()

    def _end(self, error: CaptureError) -> None:
        with self._assembling:
            rest = list(self._assembler.flush())
        with self._changed:
            self._offer(rest)
            self._error = error
            self._changed.notify_all()

    def _offer(self, blocks: list[AudioBlock]) -> None:
        for block in blocks:
            if len(self._blocks) < self._max_blocks:
                self._blocks.append(block)
            else:
                # The numbering jumps over it.
                self._dropped += 1

    def _receive(self, selector: selectors.BaseSelector) -> None:
        buffer = bytearray(_BUFFER_BYTES)
        began_s = looked_s = time.monotonic()
        while not self._closed:
            more = False
            # Before anything is read: what had come by then is known to the assembler afterwards,
            # so that a thread that is held up takes no array for silent.
            now_s = time.monotonic()
            events = selector.select(_IDLE_S)
            with self._assembling:
                head = self._assembler.head
                for key, _ in events:
                    opened, index, is_report = key.data
                    more |= self._drain(opened, index, is_report, buffer)
                # Where not all was read, nothing has been waited for yet.
                ready = list(self._assembler.ready(now_s, 0 if more else head))
            if ready:
                with self._changed:
                    self._offer(ready)
                    self._changed.notify_all()
            self._check_stalled(began_s, now_s)
            if now_s - looked_s >= _DROPS_EVERY_S:
                looked_s = now_s
                self._drops = kernel_drops(self._sockets)
            if not more:
                time.sleep(_ROUND_S)

    def _drain(self, opened: socket.socket, index: int, is_report: bool, buffer: bytearray) -> bool:
        """Read what has come to a socket; whether there may be more."""
        view = memoryview(buffer)
        push, receive = self._assembler.push, opened.recvfrom_into
        for _ in range(_PER_ROUND):
            try:
                length, address = receive(buffer)
            except BlockingIOError:
                return False
            except OSError as error:
                # An ICMP message about something that was sent: nothing ever is.
                logger.debug("%s: %s", self._what, error)
                return False
            if is_report:
                self._assembler.push_report(index, view[:length], address[:2])
            else:
                push(index, view[:length], address[:2], time.monotonic())
        return True

    def _check_stalled(self, began_s: float, now_s: float) -> None:
        last_s = self._assembler.last_arrival_s
        if now_s - (began_s if last_s is None else last_s) <= _STALLED_S:
            return
        stream = self._session.streams[0]
        place = f"{stream.address} port {stream.port}"
        rejected = self._assembler.statistics().total.rejected()
        if rejected:
            raise StreamStalledError(
                f"{self._what}: no packets for {_STALLED_S:g} s that fit the description, but "
                f"{rejected}: let the sender write its description anew"
            )
        raise StreamStalledError(
            f"{self._what}: no packets on {place} for {_STALLED_S:g} s: see that the array is on "
            "and sends here, and that no firewall keeps UDP out"
        )

    def close(self) -> None:
        """Stop; a running `blocks` ends. Safe in any state and from any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _close_sockets(self) -> None:
        for opened in (*self._sockets, *self._report_sockets):
            if opened is not None:
                opened.close()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
