"""One connection to an MQTT 3.1.1 broker that is kept up, and says why when it is not.

Each attempt uses a fresh paho client with a clean session: nothing of an old connection survives
in it, so the owner of unacknowledged messages (`mqtt.Publisher`) is the only one who sends again.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from soundpost.device.errors import BrokerError, InputError, UsageError

logger = logging.getLogger(__name__)

DEFAULT_PORT: Final = 1883

LinkState = Literal["connecting", "connected", "refused", "disconnected"]


@dataclass(frozen=True)
class BrokerSettings:
    """Where the broker is and how to speak to it.

    host : name or address
    port : TCP port, 1 to 65535
    username, password : None where the broker asks for none
    keepalive_s : a silent connection is probed after this long and given up after 1.5 times it
    timeout_s : for the TCP connection, and again for the broker's answer
    retry_min_s, retry_max_s : pause before connecting again, doubled after each failure; each
        pause is shortened by a random part of up to half, so that a house full of sensors does
        not return to a restarted broker in one instant
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive_s: int = 30
    timeout_s: float = 5.0
    retry_min_s: float = 0.5
    retry_max_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.host:
            raise UsageError("broker host is empty: give a name or an address")
        if not 1 <= self.port <= 65535:
            raise UsageError(f"broker port must be 1 to 65535, found {self.port}")
        if self.password is not None and self.username is None:
            raise UsageError("a broker password is set without a user name: MQTT needs both")
        if not 1 <= self.keepalive_s <= 65535:
            raise UsageError(f"keep-alive must be 1 to 65535 s, found {self.keepalive_s}")
        if self.timeout_s <= 0:
            raise UsageError(f"broker timeout must be more than 0 s, found {self.timeout_s}")
        if not 0 < self.retry_min_s <= self.retry_max_s:
            raise UsageError(
                "retry pauses must grow from more than 0 s: found "
                f"{self.retry_min_s} s to {self.retry_max_s} s"
            )

    @property
    def address(self) -> str:
        """`host:port`, as in messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_password(path: Path) -> str:
    """First line of a password file.

    Raises
    ------
    InputError
        The file cannot be read, is empty or is not UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise InputError(f"password file {path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"password file {path}: not UTF-8 text") from exc
    if not lines or not lines[0]:
        raise InputError(f"password file {path}: its first line is empty, expected the password")
    return lines[0]


# --- why a connection failed --------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """cause : what happened; remedy : what a person can do; final : trying again cannot help."""

    cause: str
    remedy: str
    final: bool = False

    def line(self, address: str) -> str:
        """One line for a person."""
        return f"MQTT broker at {address}: {self.cause}: {self.remedy}"


CREDENTIALS = "set the user name and the password file that this broker knows"

# CONNACK return codes of MQTT 3.1.1, table 3.1, by the names paho gives them.
_REFUSALS: Final = {
    "Bad user name or password": Fault("bad user name or password", CREDENTIALS, True),
    "Not authorized": Fault("not authorised", CREDENTIALS, True),
    "Client identifier not valid": Fault(
        "client identifier refused", "choose another device id", True
    ),
    "Unsupported protocol version": Fault(
        "it does not speak MQTT 3.1.1", "use a broker that does", True
    ),
    "Server unavailable": Fault("it is not available now", "look at the broker's log"),
}


def _slow(timeout_s: float) -> Fault:
    return Fault(
        f"timed out after {timeout_s:g} s", "check the address, the network and the firewall"
    )


def _fault_of(exc: OSError | UnicodeError, settings: BrokerSettings) -> Fault:
    # UnicodeError: the resolver's encoding of a name with an empty or overlong part.
    if isinstance(exc, (socket.gaierror, UnicodeError)):
        return Fault("name not known", "check the host name, or give the address in numbers")
    if isinstance(exc, ConnectionRefusedError):
        return Fault(
            "connection refused", "nothing listens there; start the broker, or check host and port"
        )
    if isinstance(exc, TimeoutError):
        return _slow(settings.timeout_s)
    return Fault(exc.strerror or str(exc), "check the address and the network")


# --- the connection -----------------------------------------------------------------------------


class Link:
    """Keeps one paho client connected and says what state it is in.

    on_up : called in the supervisor thread for each accepted connection; returns a fault if the
        connection is of no use after all
    on_down : called in the supervisor thread once that client is finished
    configure : sets callbacks and the will on a fresh client
    on_state : told of each change, in the supervisor thread, with the line for a person; without
        it the log is
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        *,
        configure: Callable[[paho.Client], None],
        on_up: Callable[[paho.Client], Fault | None],
        on_down: Callable[[], None],
        on_state: Callable[[LinkState, str], None] | None = None,
    ) -> None:
        self.settings = settings
        self._client_id = client_id
        self._configure = configure
        self._on_up = on_up
        self._on_down = on_down
        self._on_state = on_state
        self._changed = threading.Condition()
        self._state: LinkState = "connecting"
        self._fault: Fault | None = None
        self._stopping = threading.Event()
        self._retry_now = threading.Event()
        self._client: paho.Client | None = None
        self._thread = threading.Thread(target=self._supervise, name="mqtt", daemon=True)

    @property
    def state(self) -> LinkState:
        """Where the connection stands."""
        with self._changed:
            return self._state

    @property
    def reason(self) -> str | None:
        """Cause of the last failure while not connected."""
        with self._changed:
            return None if self._fault is None else self._fault.cause

    def start(self) -> None:
        """Begin to connect in the background."""
        self._thread.start()

    def wait_connected(self, timeout_s: float, first_failure: bool) -> None:
        """Return once connected; BrokerError after the time, or at a fault that will not pass.

        first_failure : any fault counts, also one that a later attempt might not meet
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while self._state != "connected":
                left_s = deadline_s - time.monotonic()
                fault = self._fault
                if fault is None and left_s <= 0:
                    fault = _slow(timeout_s)
                if fault is not None and (left_s <= 0 or fault.final or first_failure):
                    raise BrokerError(fault.line(self.settings.address))
                self._changed.wait(left_s)

    def retry_now(self) -> None:
        """End the pause before the next attempt."""
        self._retry_now.set()

    def close(self, timeout_s: float) -> None:
        """Disconnect and end the threads; cuts a peer that has gone silent."""
        self._stopping.set()
        self._retry_now.set()
        with self._changed:
            client = self._client
        if client is not None:
            client.disconnect()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._thread.is_alive() and client is not None:
            # A broker that has stopped reading: end the connection without it.
            _cut(client)
            self._thread.join(1.0)

    def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            was_up = self._session()
            # A connection that broke at once (two sensors with one id push each other out) counts
            # as a failure too, or the two would fight without a pause.
            steady = was_up and time.monotonic() - began_s > 10.0
            failures = 0 if steady else failures + 1
            pause_s = min(
                self.settings.retry_max_s, self.settings.retry_min_s * 2.0 ** min(failures - 1, 16)
            )
            self._retry_now.wait(pause_s * random.uniform(0.5, 1.0))
            if not self._stopping.is_set():
                self._retry_now.clear()

    def _session(self) -> bool:
        """One connection from its beginning to its end; whether it was of use in between."""
        settings = self.settings
        answered = threading.Event()
        ended = threading.Event()
        refusal: list[Fault] = []

        def on_connect(
            _client: paho.Client,
            _userdata: object,
            _flags: paho.ConnectFlags,
            code: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            if code.is_failure:
                name = str(code)
                refusal.append(_REFUSALS.get(name) or Fault(name, "look at the broker's log"))
            answered.set()

        def on_disconnect(
            _client: paho.Client,
            _userdata: object,
            _flags: paho.DisconnectFlags,
            _code: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            ended.set()
            answered.set()

        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=True,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = settings.timeout_s
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_socket_open = _send_at_once
        self._configure(client)
        try:
            client.connect(settings.host, settings.port, settings.keepalive_s)
        except (OSError, UnicodeError) as exc:
            self._set("disconnected", _fault_of(exc, settings))
            return False
        client.loop_start()
        up = False
        try:
            with self._changed:
                self._client = client
            if not answered.wait(settings.timeout_s):
                self._set(
                    "disconnected",
                    Fault(
                        f"no answer within {settings.timeout_s:g} s",
                        "check that this port is an MQTT broker's",
                    ),
                )
                return False
            if refusal:
                self._set("refused", refusal[0])
                return False
            if ended.is_set():
                self._set(
                    "disconnected",
                    Fault(
                        "it closed the connection without accepting it",
                        "check that this port is an MQTT 3.1.1 broker's, without TLS",
                    ),
                )
                return False
            if self._stopping.is_set():
                return False
            fault = self._on_up(client)
            if fault is not None:
                self._set("refused" if fault.final else "disconnected", fault)
                return False
            up = True
            self._set("connected", None)
            # The time-out is for a network thread that ended without saying so.
            while not ended.wait(1.0) and client.is_connected():
                if self._stopping.is_set():
                    break
            return True
        finally:
            self._on_down()
            with self._changed:
                self._client = None
            client.disconnect()
            _cut(client)
            client.loop_stop()
            if up and not self._stopping.is_set():
                self._set(
                    "disconnected",
                    Fault("the connection was lost", "connecting again until it is back"),
                )
            elif self._stopping.is_set():
                self._set("disconnected", None)

    def _set(self, state: LinkState, fault: Fault | None) -> None:
        with self._changed:
            changed = (state, fault) != (self._state, self._fault)
            self._state, self._fault = state, fault
            self._changed.notify_all()
        if not changed or self._stopping.is_set():
            return
        line = f"MQTT broker at {self.settings.address}: {state}"
        if fault is not None:
            line = fault.line(self.settings.address)
        if self._on_state is not None:
            self._on_state(state, line)
        elif fault is not None:
            logger.warning("%s", line)
        else:
            logger.info("%s", line)


def _send_at_once(_client: paho.Client, _userdata: object, sock: object) -> None:
    # Nagle's algorithm may hold a second small packet until the first is acknowledged, which a
    # delayed acknowledgement makes up to 40 ms.
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _cut(client: paho.Client) -> None:
    """End the TCP connection, so that paho's thread ends even where the peer has gone silent."""
    sock = client.socket()
    if not isinstance(sock, socket.socket):
        return
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as exc:
        logger.debug("socket was closed already: %s", exc)
