"""Sensors under test: real processes with the real daemon, publisher and outbox, and a ledger.

This program is the nursery. It imports everything once and forks a sensor for each order that it
reads, a JSON object on a line, so that a life that is to be killed begins in a moment. The ledger
holds a line for each event whose `put` returned. It is not flushed to the disk: no power is cut to
the disk that it lies on, and what a killed process has written stays.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from soundpost.device import disk_outbox, listener, source_health
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.bundle import open_bundle
from soundpost.device.daemon import Daemon
from soundpost.device.disk_outbox import DiskOutbox, OutboxSettings
from soundpost.device.events import SoundEvent
from soundpost.device.outbox import Queued
from soundpost.device.plan import SourcePlan
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

# What waits for its time does so as much less as the day is shortened.
disk_outbox._RETRY_EVERY_S = 0.3
listener.RETRY_S = 0.05
source_health.HEALTH_INTERVAL_S = 0.5


class LedgerOutbox(DiskOutbox):
    """Numbers every event and notes it once `put` has returned."""

    def __init__(self, settings: OutboxSettings, ledger: Path, life: int) -> None:
        super().__init__(settings)
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._number = 1_000_000 * life

    def put(self, event: SoundEvent, age_s: float | None = None) -> Queued:
        self._number += 1
        event = replace(event, extra={"number": self._number})
        queued = super().put(event, age_s)
        line = {
            "number": self._number,
            "id": event.id,
            "source": event.source,
            "phase": event.phase,
            "saved": self.fault is None,
            "dropped": self.dropped,
            "in_memory": self.in_memory,
        }
        os.write(self._ledger, json.dumps(line).encode() + b"\n")
        return queued


def live(order: dict[str, Any]) -> None:
    """One life of a sensor, until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with Path(os.devnull).open() as null, Path(order["log"]).open("a") as log:
        os.dup2(null.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    plans = []
    for name, folder in order["sources"].items():
        bundle, interpreter, _ = open_bundle(Path(order["bundle"]))
        classes = bundle.manifest.classes
        plans.append(SourcePlan(name, f"city:{folder}", bundle, interpreter, classes))
    states = [(plan.name, label) for plan in plans for label in plan.bundle.manifest.labels]
    settings = OutboxSettings(Path(order["outbox"]), order["outbox_mb"])
    address = BrokerSettings(
        port=order["port"], retry_min_s=0.02, retry_max_s=0.3, timeout_s=1.0, keepalive_s=2
    )
    device = order["device"]
    with (
        LedgerOutbox(settings, Path(order["ledger"]), order["life"]) as kept,
        Publisher(address, Topics("soundpost", device), states=states, outbox=kept) as publisher,
    ):
        daemon = Daemon(plans, device, publisher)
        daemon.start()
        while not ended.wait(0.2):
            if daemon.errors:
                raise SystemExit(f"a source ended: {daemon.errors}")
        daemon.stop()
        daemon.wait(10.0)
        publisher.flush(60.0)


def main() -> None:
    """Fork sensors as told; `wait` is answered with how one ended."""
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            print(os.waitpid(order["wait"], 0)[1], flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                live(order)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
