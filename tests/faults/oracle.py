"""What arrived, against what was put: an independent subscriber, and the ledgers."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

PATIENCE_S = 30.0


class Witness:
    """A plain client with a persistent session that notes all events and the last healths."""

    def __init__(self) -> None:
        self.events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.healths: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.strange: list[bytes] = []
        self._client: paho.Client | None = None
        self._gone = threading.Event()

    def connect(self, port: int) -> None:
        """To a broker that was started; returns once it hands on what comes."""
        self._gone, ready = threading.Event(), threading.Event()
        gone = self._gone
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="witness",
            clean_session=False,
            reconnect_on_failure=False,
        )
        client.on_disconnect = lambda *_: gone.set()
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = self._take
        client.connect("127.0.0.1", port)
        client.subscribe([("soundpost/+/+/event", 1), ("soundpost/+/+/health", 1)])
        client.loop_start()
        if not ready.wait(PATIENCE_S):
            raise AssertionError("the broker did not grant a subscription")
        self._client = client

    def disconnected(self) -> None:
        """Wait until all that the killed broker had sent was read."""
        if self._client is not None:
            assert self._gone.wait(PATIENCE_S)
            self._client.loop_stop()

    def _take(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        device, source, kind = message.topic.split("/")[1:]
        try:
            record = json.loads(message.payload)
            assert record["device"] == device
            assert record["source"] == source
        except (ValueError, KeyError, AssertionError):
            self.strange.append(message.payload)
            return
        (self.events if kind == "event" else self.healths)[device].append(record)


@dataclass
class Verdict:
    """What became of one sensor's events."""

    put: int = 0
    heard: int = 0
    repeats: int = 0
    unknown: int = 0
    lost: int = 0
    reordered: int = 0
    changed: int = 0
    unsaved_lost: int = 0
    overwritten_lost: int = 0
    dropped_lost: int = 0
    dropped: int = 0
    health_dropped: int = 0
    lost_numbers: list[int] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was lost that need not be, and all else holds."""
        return not (self.lost or self.reordered or self.changed)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Lines of a ledger; the last may be cut off by a kill."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def judge(
    ledger: list[dict[str, Any]],
    heard: list[dict[str, Any]],
    healths: list[dict[str, Any]],
    overwritten: set[int],
    lives_killed: set[int],
) -> Verdict:
    """Compare one sensor's ledger with what the witness noted.

    overwritten : numbers of events in outboxes that the campaign damaged
    lives_killed : lives that ended with SIGKILL; what they held in memory is lost
    """
    verdict = Verdict(put=len(ledger), heard=len(heard))
    first: dict[int, dict[str, Any]] = {}
    order: dict[str, list[int]] = defaultdict(list)
    ledger_numbers = {line["number"] for line in ledger}
    for record in heard:
        number = record["number"]
        content = {key: value for key, value in record.items() if key != "queued_s"}
        if number in first:
            verdict.repeats += 1
            verdict.changed += content != first[number]
        else:
            first[number] = content
            order[record["source"]].append(number)
            # The process was killed between the two writes.
            verdict.unknown += number not in ledger_numbers
    for numbers in order.values():
        verdict.reordered += sum(b < a for a, b in pairwise(numbers))
    by_life: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in ledger:
        by_life[line["number"] // 1_000_000].append(line)
    missing = [line for line in ledger if line["number"] not in first]
    given_up = {life: lines[-1]["dropped"] for life, lines in by_life.items()}
    verdict.dropped = sum(given_up.values())
    left = verdict.dropped
    for line in missing:
        number = line["number"]
        life = number // 1_000_000
        if number in overwritten:
            verdict.overwritten_lost += 1
        elif not line["saved"] and life in lives_killed:
            verdict.unsaved_lost += 1
        elif left > 0:
            left -= 1
            verdict.dropped_lost += 1
        else:
            verdict.lost += 1
            verdict.lost_numbers.append(number)
    verdict.health_dropped = healths[-1]["dropped"] if healths else 0
    return verdict
