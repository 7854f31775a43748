"""One sensor's feedback, asked over MQTT: a question at a time, each until its answer has come."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import paho.mqtt.client as paho

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import InputError, RefusedError
from soundpost.device.feedback.example import MAX_EXAMPLE_BYTES, Example
from soundpost.device.feedback.feedback_answers import PART_BYTES
from soundpost.device.identifiers import uuid7
from soundpost.device.mqtt_client import MAX_PACKET_BYTES, Client
from soundpost.device.mqtt_faults import Fault
from soundpost.device.mqtt_link import Link
from soundpost.device.presence import ONLINE
from soundpost.device.records import parse_object
from soundpost.device.topics import Topics, check_base_topic, status_filter

# An answer that does not come is asked for again.
_TRIES: Final = 3
# Of a sensor that says it was asked too often.
_BUSY_S: Final = 2.0
_MOST_BUSY: Final = 30
# All that a sensor may list.
_MAX_EXAMPLES: Final = 100_000


class NoAnswerError(Exception):
    """A sensor says nothing: it is away, or its commands are off."""


def find_sensors(
    broker: BrokerSettings, base: str, patterns: Sequence[str], patience_s: float = 3.0
) -> list[str]:
    """Sensors that are online and match any of the patterns, in alphabetical order.

    A pattern without `*`, `?` or `[` is a name, and is taken without being looked for.

    Raises BrokerError where there is no broker.
    """
    names = [pattern for pattern in patterns if not any(c in pattern for c in "*?[")]
    rest = [pattern for pattern in patterns if pattern not in names]
    if not rest:
        return sorted(set(names))
    found: set[str] = set()
    skip = len(check_base_topic(base)) + 1

    def take(_client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        try:
            device = message.topic[skip:].partition("/")[0]
        except UnicodeDecodeError:
            return
        online = message.payload == ONLINE.encode()
        if online and any(fnmatch.fnmatchcase(device, pattern) for pattern in rest):
            found.add(device)

    def configure(client: Client) -> None:
        client.on_message = take

    link = Link(
        broker,
        f"soundpost-collect-{uuid7()}",
        configure=configure,
        on_up=lambda client: client.listen_to([status_filter(base)]),
        on_down=lambda: None,
    )
    link.start()
    try:
        link.wait_connected(2 * broker.timeout_s, first_failure=True)
        # Retained messages come at once, from a slow network a little later.
        time.sleep(patience_s)
    finally:
        link.close(2.0)
    return sorted({*names, *found})


class SensorLink:
    """The connection to one sensor's feedback; a context manager.

    timeout_s : for an answer, each of three times

    Methods raise BrokerError without a broker, NoAnswerError where the sensor says nothing,
    RefusedError where it refuses, InputError where what it says is not in order.
    """

    def __init__(self, broker: BrokerSettings, topics: Topics, timeout_s: float = 15.0) -> None:
        self.device_id = topics.device_id
        self._broker = broker
        self._timeout_s = timeout_s
        self._topic, self._result = topics.cmd("feedback"), topics.cmd_result("feedback")
        self._answers: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._question: tuple[str, str] | None = None
        self._link = Link(
            broker,
            f"soundpost-collect-{uuid7()}",
            configure=self._configure,
            on_up=self._on_up,
            on_down=self._on_down,
        )

    def __enter__(self) -> SensorLink:
        self._link.start()
        try:
            self._link.wait_connected(2 * self._broker.timeout_s, first_failure=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._link.close(2.0)

    def _configure(self, client: Client) -> None:
        client.on_message = self._on_message

    def _on_up(self, client: Client) -> Fault | None:
        fault = client.listen_to([self._result])
        if fault is None:
            with self._lock:
                self._client = client
            # What was asked on a connection that was lost; the sensor may answer twice.
            self._publish()
        return fault

    def _on_down(self) -> None:
        with self._lock:
            self._client = None

    def _publish(self) -> None:
        with self._lock:
            client, question = self._client, self._question
        if client is not None and question is not None:
            client.publish(self._topic, question[1], qos=1)

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        try:
            answer = parse_object(bytes(message.payload), "answer", MAX_PACKET_BYTES)
        except InputError:
            return
        with self._lock:
            wanted = self._question is not None and answer.get("id") == self._question[0]
        if wanted:
            self._answers.put(answer)

    def _ask(self, **fields: object) -> Mapping[str, Any]:
        for _ in range(_MOST_BUSY):
            answer = self._answer_to(fields)
            if answer.get("ok") is True:
                return answer
            if answer.get("busy") is not True:
                break
            time.sleep(_BUSY_S)
        raise RefusedError(f"{self.device_id}: {answer.get('message')}")

    def _answer_to(self, fields: Mapping[str, object]) -> Mapping[str, Any]:
        identifier = uuid7()
        with self._lock:
            self._question = identifier, json.dumps({"id": identifier, **fields})
        try:
            for _ in range(_TRIES):
                self._publish()
                try:
                    return self._answers.get(timeout=self._timeout_s)
                except queue.Empty:
                    continue
        finally:
            with self._lock:
                self._question = None
            while not self._answers.empty():
                self._answers.get()
        raise NoAnswerError(
            f"{self.device_id}: no answer within {_TRIES * self._timeout_s:g} s: is it online, "
            "with [commands] enabled = true in its settings?"
        )

    def listing(self) -> tuple[list[Example], list[str]]:
        """Every example that waits there, oldest first, and the labels that its models know."""
        examples: list[Example] = []
        labels: list[str] = []
        after = ""
        while len(examples) < _MAX_EXAMPLES:
            answer = self._ask(action="list", **({"after": after} if after else {}))
            found = answer.get("examples")
            if not isinstance(found, list):
                raise InputError(f"{self.device_id}: answered without a list of examples")
            for record in found:
                if not isinstance(record, dict):
                    raise InputError(f"{self.device_id}: an example that is no object")
                example = Example.from_dict(record, f"{self.device_id}: example")
                if example.id <= after or example.device != self.device_id:
                    raise InputError(
                        f"{self.device_id}: example {example.id} of {example.device}: expected "
                        "its own, in their order"
                    )
                examples.append(example)
                after = example.id
            named = answer.get("labels")
            if isinstance(named, list):
                labels += [label for label in named if isinstance(label, str)]
            if not found or not answer.get("more"):
                break
        return examples, labels

    def fetch(
        self,
        example: Example,
        offset: int = 0,
        *,
        length: int = PART_BYTES,
        told: Callable[[int], object] = lambda _: None,
    ) -> Iterator[bytes]:
        """Parts of an example's file from an offset on.

        length : of a part, bytes at most
        told : called with the size of each part
        """
        while offset < example.n_bytes:
            answer = self._ask(action="fetch", example=example.id, offset=offset, length=length)
            try:
                part = base64.b64decode(answer["data"], validate=True)
            except (KeyError, TypeError, binascii.Error) as error:
                raise InputError(f"{self.device_id}: a part of {example.id} is no data") from error
            if answer.get("sha256") != example.sha256 or answer.get("offset") != offset:
                raise InputError(f"{self.device_id}: {example.id} has changed meanwhile")
            if not 0 < len(part) <= min(length, MAX_EXAMPLE_BYTES - offset):
                raise InputError(f"{self.device_id}: a part of {example.id} has {len(part)} bytes")
            offset += len(part)
            told(len(part))
            yield part

    def done(self, example: Example, *, delete: bool) -> None:
        """Say that an example has arrived; delete : it may go there."""
        self._ask(action="done", example=example.id, delete=delete)
