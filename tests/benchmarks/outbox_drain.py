"""Prints how fast a sensor gets rid of what it heard while the broker was away.

python tests/benchmarks/outbox_drain.py                 10,000 events
python tests/benchmarks/outbox_drain.py --events 50000

The events are put into an outbox on disk, each one flushed before the next; then Mosquitto is
started on the loopback address, and the time runs from there to the last acknowledgement, the
connection included. A listener in a process of its own makes sure that each one arrived, in order.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from machine import describe, one_thread

from soundpost.device.board_bench import example_event
from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.disk_outbox import DiskOutbox, OutboxSettings
from soundpost.device.publisher import Publisher
from soundpost.device.topics import Topics

LIMIT_PER_S = 2_000
PATIENCE_S = 120.0
TOPICS = Topics("soundpost", "bench")


def start_broker(program: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Mosquitto that queues without bound for a slow listener."""
    settings = folder / "mosquitto.conf"
    # Started by root, it would become the user mosquitto, who cannot read this folder.
    user = "user root\n" if os.geteuid() == 0 else ""
    settings.write_text(
        f"{user}listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
    )
    broker = subprocess.Popen(
        [program, "-c", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while socket.socket().connect_ex(("127.0.0.1", port)):
        time.sleep(0.01)
    return broker


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=10_000, help="default 10,000")
    parser.add_argument("--folder", type=Path, help="of the outbox, on the disk to be measured")
    arguments = parser.parse_args()
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None or shutil.which("mosquitto_sub") is None:
        print("left out: it needs a broker: sudo apt-get install mosquitto mosquitto-clients")
        return
    one_thread()
    describe()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        settings = OutboxSettings(folder / "outbox.sqlite3", max_size_mb=1_000)
        events = [example_event(sample) for sample in range(arguments.events)]
        began_s = time.perf_counter()
        with DiskOutbox(settings) as outbox:
            for one in events:
                outbox.put(one)
            put_s = time.perf_counter() - began_s
            n_bytes = settings.path.stat().st_size
        print(
            f"put: {len(events)} events in {put_s:.1f} s, {1e3 * put_s / len(events):.2f} ms each, "
            f"on disk when it returns; {n_bytes / len(events):.0f} bytes each"
        )
        broker = start_broker(program, folder, port)
        heard = folder / "heard"
        with heard.open("wb") as file:
            listener = subprocess.Popen(
                [
                    *("mosquitto_sub", "-p", str(port), "-q", "1", "-t", TOPICS.event("mic0")),
                    *("-C", str(len(events)), "-W", str(int(PATIENCE_S))),
                ],
                stdout=file,
            )
        time.sleep(0.5)
        with DiskOutbox(settings) as outbox:
            began_s = time.perf_counter()
            with Publisher(BrokerSettings(port=port), TOPICS, outbox=outbox) as publisher:
                empty = publisher.flush(PATIENCE_S)
                drained_s = time.perf_counter() - began_s
        listener.wait(PATIENCE_S)
        broker.kill()
        broker.wait()
        ids = [json.loads(line)["id"] for line in heard.read_text().splitlines()]
    rate = len(events) / drained_s
    print(
        f"drained: {len(events)} events in {drained_s:.2f} s, {rate:.0f} per second, "
        f"{rate / LIMIT_PER_S:.2f} x {LIMIT_PER_S}, {'above' if rate >= LIMIT_PER_S else 'BELOW'}; "
        f"{'all' if empty else 'NOT ALL'} acknowledged, "
        f"{'all' if ids == [one.id for one in events] else 'NOT ALL'} heard, once and in order"
    )


if __name__ == "__main__":
    main()
