"""One connection to an MQTT broker that is kept up, and says why when it is not.

Each attempt uses a fresh client: nothing of an old connection survives in it, so the owner of
unacknowledged messages (`publisher.py`) is the only one who sends again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

import paho.mqtt.client as paho

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import BrokerError
from soundpost.device.mqtt_client import Client
from soundpost.device.mqtt_faults import Fault, slow

logger = logging.getLogger(__name__)

LinkState = Literal["connecting", "connected", "refused", "disconnected"]

# A topic on which a message came that was too large is not listened to for so long.
_SHUN_S: Final = 600.0
_CHECK_EVERY_S: Final = 1.0


class Link:
    """Keeps one client connected and says what state it is in.

    on_up : called in the supervisor thread for each accepted connection; returns a fault if the
        connection is of no use after all
    on_down : called in the supervisor thread once that client is finished
    configure : sets callbacks and the will on a fresh client
    check : called every second while connected; returns a fault to end the connection
    on_state : told of each change, in the supervisor thread, with the line for a person; without
        it the log is
    persistent : the broker keeps our subscriptions, and what comes for them, while we are away
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        *,
        configure: Callable[[Client], None],
        on_up: Callable[[Client], Fault | None],
        on_down: Callable[[], None],
        check: Callable[[], Fault | None] | None = None,
        on_state: Callable[[LinkState, str], None] | None = None,
        persistent: bool = False,
    ) -> None:
        self.settings = settings
        self.connections = 0
        self._client_id = client_id
        self._persistent = persistent
        self._configure = configure
        self._on_up = on_up
        self._on_down = on_down
        self._check = check
        self._on_state = on_state
        self._changed = threading.Condition()
        self._state: LinkState = "connecting"
        self._fault: Fault | None = None
        self._stopping = threading.Event()
        self._retry_now = threading.Event()
        self._client: Client | None = None
        self._speak_5 = settings.version != "3.1.1"
        self._shunned: tuple[str, float] | None = None
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
        if self.settings.tls is not None and self.settings.tls.insecure:
            logger.warning(
                "MQTT broker at %s: tls_insecure is set: the name in its certificate is not "
                "checked, whoever has one of the same CA can pretend to be this broker",
                self.settings.address,
            )
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
                    fault = slow(timeout_s)
                if fault is not None and (left_s <= 0 or fault.final or first_failure):
                    raise BrokerError(fault.line(self.settings.address))
                self._changed.wait(left_s)

    def use(self, settings: BrokerSettings) -> None:
        """Connect with other settings from now on; a connection with the old ones is ended."""
        self.settings = settings
        self._speak_5 = settings.version != "3.1.1"
        with self._changed:
            client = self._client
        if client is not None:
            changed = Fault("its settings were changed", "connecting with the new ones")
            client.fail(changed, goodbye=True)
        self.retry_now()

    def shuns(self, topic_filter: str) -> bool:
        """Whether this filter lately brought a message that was too large to take."""
        if self._shunned is None:
            return False
        topic, until_s = self._shunned
        return time.monotonic() < until_s and paho.topic_matches_sub(topic_filter, topic)

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
            client.cut()
            self._thread.join(1.0)

    def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                was_up = self._attempt()
            except Exception as error:
                # Without this thread no alert would ever leave the sensor again.
                logger.exception("MQTT broker at %s: fault in soundpost", self.settings.address)
                was_up = False
                self._set(
                    "disconnected", Fault(f"fault in soundpost: {error!r}", "please report the log")
                )
            # A connection that broke at once counts as a failure too, or two clients that push
            # each other out would fight without a pause.
            steady = was_up and time.monotonic() - began_s > 10.0
            failures = 0 if steady else failures + 1
            pause_s = min(
                self.settings.retry_max_s, self.settings.retry_min_s * 2.0 ** min(failures - 1, 16)
            )
            self._retry_now.wait(pause_s * random.uniform(0.5, 1.0))
            if not self._stopping.is_set():
                self._retry_now.clear()

    def _attempt(self) -> bool:
        """One connection from its beginning to its end; whether it was of use in between."""
        client = Client(self.settings, self._client_id, self._speak_5, self._persistent)
        self._configure(client)
        fault = client.open()
        if client.other_version and self.settings.version == "auto":
            # A broker of MQTT 3.1.1 refuses version 5, or closes, or says nothing.
            self._speak_5 = not self._speak_5
            if not self._speak_5 and not self._stopping.is_set():
                client.end(goodbye=True)
                return self._attempt()
        up = False
        try:
            if fault is None and not self._stopping.is_set():
                with self._changed:
                    self._client = client
                fault = self._on_up(client) or client.fault
            if fault is None and not self._stopping.is_set():
                up = True
                self.connections += 1
                self._set("connected", None)
                fault = self._wait_ended(client)
            return up
        finally:
            self._on_down()
            with self._changed:
                self._client = None
            # Where we leave a broker that does not do its part, its will for us is the truth.
            client.end(goodbye=not up or self._stopping.is_set())
            if client.oversized is not None:
                self._shunned = (client.oversized, time.monotonic() + _SHUN_S)
            if self._stopping.is_set():
                self._set("disconnected", None)
            elif fault is not None:
                self._set("refused" if fault.final else "disconnected", fault)

    def _wait_ended(self, client: Client) -> Fault | None:
        while not client.wait_ended(_CHECK_EVERY_S):
            if self._stopping.is_set():
                return None
            fault = self._check() if self._check is not None else None
            if fault is not None:
                return fault
        return client.fault

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
            try:
                self._on_state(state, line)
            except Exception:
                logger.exception("%s: fault in soundpost: whoever is told of it failed", line)
        elif fault is not None:
            logger.warning("%s", line)
        else:
            logger.info("%s", line)
