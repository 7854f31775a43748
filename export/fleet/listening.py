"""The sensors of a broker as their retained topics tell of them, kept up to date."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import paho.mqtt.client as paho

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import InputError, UsageError
from soundpost.device.events import SoundEvent
from soundpost.device.health import Health
from soundpost.device.identifiers import uuid7
from soundpost.device.mqtt_client import Client
from soundpost.device.mqtt_faults import Fault
from soundpost.device.mqtt_link import Link, LinkState
from soundpost.device.presence import OFFLINE, ONLINE
from soundpost.device.records import parse_object
from soundpost.device.topics import (
    DEFAULT_BASE_TOPIC,
    Topics,
    check_base_topic,
    check_name,
    command_result_filter,
    event_filter,
    health_filter,
    model_state_filter,
    status_filter,
)
from soundpost.device.updates.model_state import ModelState
from soundpost.export.fleet.sensors import Sensor

logger = logging.getLogger(__name__)

# What a broker passes on is its peers' to choose: so many sensors and sources are kept.
MAX_SENSORS: Final = 10_000
MAX_SOURCES: Final = 64
_UPDATE: Final = "update"


class FleetListener:
    """Listens to all sensors of a broker; connects again by itself.

    on_answer : may be set: called in the network thread for each answer to `ask_to_update`, with
        the device, whether it obeys, and its line

    What cannot be read is counted in `unreadable`, and reported in the log.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        base_topic: str = DEFAULT_BASE_TOPIC,
        *,
        on_state: Callable[[LinkState, str], None] | None = None,
    ) -> None:
        self.unreadable = 0
        self._base = check_base_topic(base_topic)
        self.on_answer: Callable[[str, bool, str], None] | None = None
        self._lock = threading.Lock()
        self._sensors: dict[str, Sensor] = {}
        self._came_s = time.monotonic()
        self._client: Client | None = None
        self._link = Link(
            broker,
            f"soundpost-fleet-{uuid7()}",
            configure=self._configure,
            on_up=self._on_up,
            on_down=self._on_down,
            on_state=on_state or self._note,
        )

    def __enter__(self) -> FleetListener:
        self._link.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._link.close(2.0)

    @property
    def connected(self) -> bool:
        """Whether what `sensors` says is up to date."""
        return self._link.state == "connected"

    @property
    def sensors(self) -> dict[str, Sensor]:
        """All that is known now, by device id."""
        with self._lock:
            return dict(self._sensors)

    def settle(self, timeout_s: float, quiet_s: float = 1.0) -> None:
        """Wait until the broker has passed on what it keeps.

        MQTT does not say when that is: it is taken for done once nothing has come for `quiet_s`.
        Raises BrokerError where there is no connection within `timeout_s`.
        """
        self._link.wait_connected(timeout_s, first_failure=True)
        end_s = time.monotonic() + timeout_s
        while (now_s := time.monotonic()) < end_s:
            with self._lock:
                quiet_since_s = self._came_s
            if now_s - quiet_since_s >= quiet_s:
                return
            time.sleep(min(0.1, quiet_s / 2))

    def ask_to_update(self, device: str) -> bool:
        """Send `cmd/update` with install; whether there was a connection to send it by."""
        topic = Topics(self._base, device).cmd(_UPDATE)
        payload = json.dumps({"id": uuid7(), "install": True})
        with self._lock:
            client = self._client
        return client is not None and client.publish(topic, payload, qos=1).rc == 0

    # -------------------------------------------------------------------------- the network thread

    def _note(self, state: LinkState, line: str) -> None:
        """Into the log; what goes wrong before a first connection is raised by `settle`."""
        if state == "connected":
            logger.info("%s", line)
        elif self._link.connections:
            logger.warning("%s", line)

    def _configure(self, client: Client) -> None:
        client.on_message = self._on_message

    def _on_up(self, client: Client) -> Fault | None:
        base = self._base
        # Answers alone are not repeated by a later state.
        fault = client.listen_to([command_result_filter(base, _UPDATE)])
        fault = fault or client.listen_to(
            [
                status_filter(base),
                model_state_filter(base),
                health_filter(base),
                event_filter(base),
            ],
            qos=0,
        )
        if fault is None:
            with self._lock:
                self._client, self._came_s = client, time.monotonic()
        return fault

    def _on_down(self) -> None:
        with self._lock:
            self._client = None

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        try:
            levels = message.topic[len(self._base) + 1 :].split("/")
            check_name(levels[0], "device id")
            self._take(levels, bytes(message.payload))
        except (UnicodeDecodeError, InputError, UsageError) as error:
            self.unreadable += 1
            if self.unreadable <= 20:
                logger.warning("skipped a message of %d bytes: %s", len(message.payload), error)

    def _take(self, levels: list[str], payload: bytes) -> None:
        device, *rest = levels
        match rest:
            case ["status"]:
                self._take_status(device, payload)
            case ["model", "state"]:
                # A sensor that gives its topic up sends nothing at all.
                state = ModelState.from_json(payload) if payload else None
                _expect_device(device, device if state is None else state.device)
                self._change(device, state=state)
            case [source, "health"]:
                self._take_health(device, source, payload)
            case [_, "event"]:
                event = SoundEvent.from_json(payload)
                _expect_device(device, event.device)
                self._change(device, last_event=event)
            case ["cmd", name, "result"] if name == _UPDATE and self.on_answer is not None:
                answer = parse_object(payload, "answer")
                self.on_answer(device, answer.get("ok") is True, str(answer.get("message"))[:300])

    def _take_status(self, device: str, payload: bytes) -> None:
        if payload not in (b"", ONLINE.encode(), OFFLINE.encode()):
            raise InputError(f"{device}: status is {payload[:40]!r}: expected online or offline")
        online = None if not payload else payload == ONLINE.encode()
        known = self.sensors.get(device)
        if known is None or known.online is not online:
            self._change(device, online=online, since_s=time.monotonic())

    def _take_health(self, device: str, source: str, payload: bytes) -> None:
        known = self.sensors.get(device, Sensor(device)).health
        health = {name: one for name, one in known.items() if name != source}
        if payload:
            record = Health.from_json(payload)
            _expect_device(device, record.device)
            if len(health) >= MAX_SOURCES:
                raise InputError(f"{device}: has more than {MAX_SOURCES} sources")
            health[source] = record
        self._change(device, health=health)

    def _change(self, device: str, **fields: Any) -> None:
        with self._lock:
            self._came_s = time.monotonic()
            if device not in self._sensors and len(self._sensors) >= MAX_SENSORS:
                raise InputError(f"{device}: more than {MAX_SENSORS} sensors; it is left out")
            sensor = self._sensors.get(device, Sensor(device))
            self._sensors[device] = replace(sensor, **fields)


def _expect_device(topic: str, payload: str) -> None:
    if topic != payload:
        raise InputError(f"a record of {payload[:60]!r} came on the topic of {topic!r}")
