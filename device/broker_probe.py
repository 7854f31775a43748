"""Whether the broker takes what a sensor sends: connection, login, permission."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import InputError
from soundpost.device.findings import Finding
from soundpost.device.mqtt_faults import CREDENTIALS, fault_of
from soundpost.device.settings import Settings
from soundpost.device.tls import client_context
from soundpost.device.topics import Topics

_AREA: Final = "broker"


def probe_broker(settings: Settings, running: bool | None = False) -> Iterator[Finding]:
    """Connect as a client of its own, and publish an empty message on a topic that nobody reads.

    running : the sensor runs; None: unknown
    """
    if settings.mqtt is None:
        yield _own_broker(settings.broker_port, running)
        return
    topic = f"{Topics(settings.base_topic, settings.device_id).status.rpartition('/')[0]}/doctor"
    client_id = f"{settings.device_id}-doctor"
    # MQTT 5 first: its acknowledgement says whether a message was refused, 3.1.1's does not.
    probe = _Probe(settings.mqtt, client_id, MQTTProtocolVersion.MQTTv5)
    finding = probe.run(topic)
    if probe.other_version:
        finding = _Probe(settings.mqtt, client_id, MQTTProtocolVersion.MQTTv311).run(topic)
    yield finding


def _own_broker(port: int, running: bool | None) -> Finding:
    if port == 0:
        return Finding(_AREA, "ok", "the sensor's own, on any free port")
    with socket.socket() as client:
        client.settimeout(2.0)
        taken = client.connect_ex(("127.0.0.1", port)) == 0
    where = f"the sensor's own, 127.0.0.1:{port}"
    if running is not None and taken != running:
        text = "something else listens there" if taken else "the sensor runs without it"
        remedy = 'name a broker that is there in [mqtt] host = "127.0.0.1", or set broker.port'
        return Finding(_AREA, "fault", f"{where}: {text}", remedy)
    return Finding(_AREA, "ok", where)


class _Probe:
    """One connection and one message.

    other_version : the broker does not speak this version of MQTT
    """

    def __init__(
        self, settings: BrokerSettings, client_id: str, version: MQTTProtocolVersion
    ) -> None:
        self.other_version = False
        self._settings = settings
        self._version = version
        self._answered = threading.Event()
        self._acknowledged = threading.Event()
        self._refusal: str | None = None
        self._message_refusal: str | None = None
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version)
        client.connect_timeout = settings.timeout_s
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        self._client = client

    def run(self, topic: str) -> Finding:
        """What became of it."""
        settings = self._settings
        where = f"{settings.address}"
        try:
            if settings.tls is not None:
                self._client.tls_set_context(client_context(settings.tls))
            self._client.connect(settings.host, settings.port, settings.keepalive_s)
        except InputError as error:
            return Finding(_AREA, "fault", f"{where}: {error}", "give the right file in [mqtt]")
        except ssl.SSLError as error:
            fault = fault_of(error, settings)
            return Finding(_AREA, "fault", f"{where}: {fault.cause}", fault.remedy)
        except (OSError, UnicodeError) as error:
            text = f"{where}: {getattr(error, 'strerror', None) or error}"
            remedy = "start it, or check host, port, network and firewall; alerts wait meanwhile"
            return Finding(_AREA, "fault", text, remedy)
        self._client.loop_start()
        try:
            return self._exchange(where, topic)
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    def _exchange(self, where: str, topic: str) -> Finding:
        timeout_s = self._settings.timeout_s
        if not self._answered.wait(timeout_s):
            self.other_version = True
            remedy = "check that this port is an MQTT broker's, and whether it wants TLS"
            return Finding(_AREA, "fault", f"{where}: no answer in {timeout_s:g} s", remedy)
        if self._refusal is not None:
            self.other_version = "rotocol" in self._refusal or "Unspecified" in self._refusal
            text = f"{where}: refuses the connection: {self._refusal}"
            return Finding(_AREA, "fault", text, CREDENTIALS)
        self._client.publish(topic, b"", qos=1)
        if not self._acknowledged.wait(timeout_s):
            text = f"{where}: does not acknowledge a message in {timeout_s:g} s"
            return Finding(_AREA, "fault", text, "look at the broker's log")
        if self._message_refusal is not None:
            user = self._settings.username or "everybody"
            text = f"{where}: refuses a message on {topic}: {self._message_refusal}"
            remedy = f"allow {user} to publish to {topic.rpartition('/')[0]}/# (the broker's ACL)"
            return Finding(_AREA, "fault", text, remedy)
        if self._version == MQTTProtocolVersion.MQTTv311:
            text = f"{where}: connected by MQTT 3.1.1, which does not tell a refused message"
        else:
            text = f"{where}: connected, and may publish to {topic.rpartition('/')[0]}/#"
        return Finding(_AREA, "ok", text)

    def _on_connect(
        self, _client: Any, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if code.is_failure:
            self._refusal = str(code)
        self._answered.set()

    def _on_disconnect(
        self, _client: Any, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if not self._answered.is_set():
            # A broker of 3.1.1 may hang up on MQTT 5 without a word.
            self._refusal = f"Unspecified, it hung up ({code})"
            self._answered.set()

    def _on_publish(
        self, _client: Any, _userdata: Any, _mid: int, code: ReasonCode, _properties: Any
    ) -> None:
        if code.is_failure:
            self._message_refusal = str(code)
        self._acknowledged.set()
