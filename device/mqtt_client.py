"""paho's client with bounds: what a broker sends can neither fill the memory nor go unnoticed."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import InputError
from soundpost.device.mqtt_faults import (
    CREDENTIALS,
    LOST,
    UNSUPPORTED_VERSION,
    Fault,
    closed,
    fault_of,
    refusal,
)
from soundpost.device.tls import client_context

logger = logging.getLogger(__name__)

# The largest record is 64 KiB. MQTT allows 256 MiB in a packet, which paho collects in memory.
MAX_PACKET_BYTES: Final = 262_144
_GOODBYE_S: Final = 1.0
# A session that is not taken up for so long is over; MQTT 3.1.1 leaves that to the broker.
_SESSION_S: Final = 90 * 86_400


class Client(paho.Client):
    """One connection; never reconnects by itself.

    persistent : the broker keeps the session of this client_id while it is away; else it is clean
    max_packet_bytes : that the broker takes, None where it does not say
    oversized : topic of a message that was larger than MAX_PACKET_BYTES, which ended it
    other_version : the broker ended it in a way that another version of MQTT may mend
    """

    def __init__(
        self, settings: BrokerSettings, client_id: str, speaks_5: bool, persistent: bool = False
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if speaks_5 else not persistent,
            protocol=paho.MQTTv5 if speaks_5 else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        self.speaks_5 = speaks_5
        self._persistent = persistent
        self.other_version = False
        self.oversized: str | None = None
        self.max_packet_bytes: int | None = None
        self._settings = settings
        self._lock = threading.Lock()
        self._cause: Fault | None = None
        self._accepted = False
        self._leaves_politely = False
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._running = threading.Event()
        self._finished = threading.Event()
        self.connect_timeout = settings.timeout_s
        if settings.username is not None:
            self.username_pw_set(settings.username, settings.password)
        self.on_connect = self._on_connack
        self.on_disconnect = self._on_end
        self.on_socket_open = _send_at_once

    @property
    def version(self) -> str:
        """Of MQTT, as people name it."""
        return "5" if self.speaks_5 else "3.1.1"

    def open(self) -> Fault | None:
        """Connect and wait for the broker to accept us; why it did not."""
        settings = self._settings
        properties = None
        if self.speaks_5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = _SESSION_S if self._persistent else 0
            properties.MaximumPacketSize = MAX_PACKET_BYTES
        try:
            if settings.tls is not None:
                self.tls_set_context(client_context(settings.tls))
            self.connect(
                settings.host,
                settings.port,
                settings.keepalive_s,
                clean_start=not self._persistent
                if self.speaks_5
                else paho.MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        except InputError as exc:
            # Renewed while we ran, and not as it should be.
            return Fault(str(exc), "connecting again until it is right")
        except (OSError, UnicodeError) as exc:
            return fault_of(exc, settings)
        self._running.set()
        self.loop_start()
        if not self._answered.wait(settings.timeout_s):
            self.other_version = True
            return Fault(
                f"no answer within {settings.timeout_s:g} s",
                "check that this port is an MQTT broker's",
            )
        if self._accepted:
            return self.fault
        with self._lock:
            cause = self._cause
        if cause is None:
            self.other_version = True
            return closed(settings, self.version)
        return cause

    @property
    def fault(self) -> Fault | None:
        """Why the connection ended; None while it is up."""
        if not self._ended.is_set():
            return None
        with self._lock:
            return self._cause or LOST

    def fail(self, fault: Fault, goodbye: bool = False) -> None:
        """End the connection for this cause, unless it has ended for another; from any thread.

        goodbye : take leave of the broker, so that it does not publish the will
        """
        with self._lock:
            self._cause = self._cause or fault
            self._leaves_politely = self._leaves_politely or goodbye
        self._ended.set()
        self._answered.set()

    def listen_to(self, topics: Sequence[str], qos: int = 1) -> Fault | None:
        """Subscribe and wait until the broker grants it; why it did not.

        qos : 0 for retained messages of a whole fleet: of those with 1, a broker may queue no more
            than a thousand for a client, and drop the others (Mosquitto, max_queued_messages)

        `on_subscribe` is taken for that.
        """
        granted = threading.Event()
        refused: list[str] = []

        def answered(
            _client: paho.Client,
            _userdata: object,
            _mid: int,
            codes: list[ReasonCode],
            _properties: Properties | None,
        ) -> None:
            # One for each topic, in their order (MQTT 3.1.1, 3.9.3).
            refused.extend(
                topic for topic, code in zip(topics, codes, strict=False) if code.is_failure
            )
            granted.set()

        self.on_subscribe = answered
        self.subscribe([(topic, qos) for topic in topics])
        timeout_s = self._settings.timeout_s
        if not granted.wait(timeout_s):
            return Fault(
                f"no answer to the subscription within {timeout_s:g} s", "look at the broker's log"
            )
        if refused:
            return Fault(f"not authorised to read {', '.join(refused)}", CREDENTIALS, True)
        return None

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait for the end of the connection; whether it came in time."""
        return self._ended.wait(timeout_s)

    def end(self, goodbye: bool) -> None:
        """End the network thread.

        goodbye : say so to the broker, which then does not publish the will
        """
        if goodbye or self._leaves_politely:
            self.disconnect()
            if self._running.is_set():
                self._finished.wait(_GOODBYE_S)
        self.cut()
        self.loop_stop()
        # They lead back here, so that only the garbage collector would free it, and the sockets
        # with which paho wakes its thread, at some later time.
        self.on_connect = self.on_disconnect = self.on_socket_open = None
        self.on_message = self.on_publish = self.on_subscribe = None

    def publish_properties(self, expiry_s: int | None) -> Properties | None:
        """What goes with a message that is of no use after some seconds; None before MQTT 5."""
        if not self.speaks_5 or expiry_s is None:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = expiry_s
        return properties

    def cut(self) -> None:
        """End the TCP connection, so that the network thread ends even where the peer is silent."""
        sock = self.socket()
        if not isinstance(sock, socket.socket):
            return
        try:
            # Not SSLSocket.shutdown(), after which the network thread would read without TLS.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError as exc:
            logger.debug("socket was closed already: %s", exc)

    def loop_forever(
        self, timeout: float = 1.0, retry_first_connection: bool = False
    ) -> MQTTErrorCode:
        """paho's network thread; a packet on which paho stumbles ends the connection, told."""
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as exc:  # malformed packets make paho fail in many ways
            logger.debug("paho's network thread ended", exc_info=True)
            self.other_version = not self._accepted
            self.fail(
                Fault(
                    f"it sent what is no MQTT ({type(exc).__name__})",
                    "check that this port is an MQTT broker's, and the network",
                )
            )
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        finally:
            self._finished.set()
            self._ended.set()
            self._answered.set()

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks here for the whole rest of a packet at once, having read its length.
        if bufsize > MAX_PACKET_BYTES:
            self._refuse_packet(bufsize)
        try:
            return super()._sock_recv(bufsize)
        except ssl.SSLError as exc:
            # With TLS 1.3 a broker refuses our certificate only after the handshake.
            self.fail(fault_of(exc, self._settings))
            raise

    def _refuse_packet(self, n_bytes: int) -> None:
        try:
            start = super()._sock_recv(2 + 65_535)
        except OSError:
            start = b""
        name = start[2 : 2 + int.from_bytes(start[:2], "big")]
        self.oversized = name.decode("utf-8", "replace")
        shown = "".join(c if c.isprintable() else "?" for c in self.oversized[:100])
        self.fail(
            Fault(
                f"a message of {n_bytes} bytes came on {shown or 'a topic'}, at most "
                f"{MAX_PACKET_BYTES} are taken",
                "find who sends it, and take it away where it is retained",
            )
        )
        raise ConnectionError("packet too large")

    def _on_connack(
        self,
        _client: paho.Client,
        _userdata: object,
        _flags: paho.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self.other_version = str(code) == UNSUPPORTED_VERSION
            self.fail(refusal(code, properties, self.version))
            return
        receive_maximum: Any = getattr(properties, "ReceiveMaximum", None)
        if receive_maximum is not None:
            # paho's setter forbids it from the CONNECT on, when nobody can know the value yet;
            # nothing was published so far.
            self._max_inflight_messages = min(self._max_inflight_messages, receive_maximum)
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self._accepted = True
        self._answered.set()

    def _on_end(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.DisconnectFlags,
        code: ReasonCode | None,
        properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server and code is not None:
            self.fail(refusal(code, properties, self.version))
        self._ended.set()
        self._answered.set()


def _send_at_once(_client: paho.Client, _userdata: object, sock: object) -> None:
    # Nagle's algorithm may hold a second small packet until the first is acknowledged, which a
    # delayed acknowledgement makes up to 40 ms.
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
