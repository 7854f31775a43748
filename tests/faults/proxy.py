"""A TCP proxy in front of a broker that cuts, stalls, refuses and garbles connections.

What it garbles is a packet's frame, so that the receiver can notice: MQTT has no checksum, and a
payload that was changed cannot be told from another. TCP's own, and TLS, are for that.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading

# No packet begins like these: reserved types, and a length of five bytes or one that never comes.
_GARBAGE = (b"\x00\x00", b"\xf0\x02\x00\x00", b"\x30\xff\xff\xff\xff\xff", b"\x62\xff\xff\xff\x7f")


class Proxy:
    """Forwards connections of 127.0.0.1:port to the broker's port."""

    def __init__(self, broker_port: int, seed: int) -> None:
        self._broker_port = broker_port
        self._rng = random.Random(seed)
        self._open = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._garble: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def gate(self, is_open: bool) -> None:
        """Accept connections, or refuse them and cut those there are."""
        if is_open:
            self._open.set()
        else:
            self._open.clear()
            self.cut()

    def cut(self) -> None:
        """Reset every connection, with what is under way on it."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for end in pair:
                self._reset(end)

    def stall(self, stalled: bool) -> None:
        """Forward nothing for a while, and accept no connection's bytes."""
        if stalled:
            self._flowing.clear()
        else:
            self._flowing.set()

    def garble(self) -> None:
        """Put garbage into one direction of every connection at its next bytes."""
        with self._lock:
            self._garble.update(pair[self._rng.randrange(2)] for pair in self._pairs)

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if not self._open.is_set():
                self._reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._broker_port), timeout=5.0)
            except OSError:
                self._reset(near)
                continue
            for end in (near, far):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (near, far)
            with self._lock:
                self._pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(source, sink, pair), daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        try:
            while data := source.recv(65_536):
                self._flowing.wait()
                with self._lock:
                    garbled = source in self._garble
                    self._garble.discard(source)
                if garbled:
                    # A part of a packet, or of several, and then what is none: a peer that goes on
                    # would take the rest for a payload, so nothing more comes. No half of an
                    # acknowledgement: garbage would make it another message's.
                    end = self._rng.randrange(len(data)) if source is pair[0] else 0
                    sink.sendall(data[:end] + self._rng.choice(_GARBAGE))
                    break
                sink.sendall(data)
        except OSError:
            pass
        with self._lock:
            self._pairs.discard(pair)
            self._garble.difference_update(pair)
        for end_of_pair in pair:
            # Orderly, so that what was sent before is read.
            with contextlib.suppress(OSError):
                end_of_pair.shutdown(socket.SHUT_RDWR)

    def _reset(self, end: socket.socket) -> None:
        try:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.shutdown(socket.SHUT_RDWR)
            end.close()
        except OSError:
            pass
