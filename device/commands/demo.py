"""`soundpost demo`: the whole chain on loopback, ended by a line of totals."""

from __future__ import annotations

import argparse
import io
import json
import queue
import signal
import statistics
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np

from soundpost.device.broker import LoopbackBroker
from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.command import Command
from soundpost.device.daemon import Daemon
from soundpost.device.errors import BrokerError, UsageError
from soundpost.device.events import SoundEvent
from soundpost.device.files import write_atomically
from soundpost.device.interrupt import handle_interrupts, interrupts_wait
from soundpost.device.observer import Observer
from soundpost.device.plan import SourcePlan
from soundpost.device.publisher import Publisher
from soundpost.device.soundscape import soundscape
from soundpost.device.subscriber import Subscriber
from soundpost.device.topics import Topics

_DESCRIPTION = """\
Plays a synthesised soundscape (alarms, knocks, tones, noise) into the sensor in real time, with
the starter bundle and a broker of its own on 127.0.0.1, and prints each alert as it arrives over
MQTT. Needs no microphone, no broker and no network. Ends by itself; Ctrl-C ends it at any moment.

examples:
  soundpost demo
  soundpost demo --seed 7             another soundscape
  soundpost demo --json               totals and alerts as JSON lines
"""
_RATE_HZ = 16_000
_DEVICE = "demo"
_SOURCE = "soundscape"


class _Listener(Observer):
    """Collects alerts as they arrive and measures how long they took.

    Called in the threads of the source and of MQTT, which must not be held up: `show` prints.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._lock = threading.Lock()
        self._decided_s: dict[tuple[str, str], float] = {}
        self._arrived_s: dict[tuple[str, str], float] = {}
        self._inbox: queue.SimpleQueue[SoundEvent] = queue.SimpleQueue()
        self.sent = 0
        self.received = 0
        self.began_s = 0.0
        # (label, seconds of the soundscape at the onset, at the arrival) of each start
        self.starts: list[tuple[str, float, float]] = []

    def reported(self, event: SoundEvent, decided_s: float) -> None:
        """Note an event just sent, and when the window that decided it ended."""
        with self._lock:
            self.sent += 1
            self._decided_s[event.id, event.phase] = decided_s

    def arrived(self, event: SoundEvent) -> None:
        """Take an alert that came over MQTT."""
        now_s = time.monotonic()
        with self._lock:
            self.received += 1
            self._arrived_s[event.id, event.phase] = now_s
            if event.phase == "start":
                self.starts.append(
                    (event.label, event.sample / event.rate_hz, now_s - self.began_s)
                )
        self._inbox.put(event)

    def show(self, wait_s: float) -> None:
        """Print the next alert, if one arrives in time."""
        try:
            event = self._inbox.get(timeout=wait_s)
        except queue.Empty:
            return
        if self._as_json:
            print(event.to_json(), flush=True)
            return
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        mark = {"start": "ALERT ", "update": "  still", "end": "  ended"}[event.phase]
        length = "" if event.duration_s is None else f"  lasted {event.duration_s:.1f} s"
        print(f"{clock}  {mark:<8}{event.label:<18} score {event.score:.2f}{length}", flush=True)

    @property
    def waiting(self) -> bool:
        """Whether an alert is on its way or not yet printed."""
        with self._lock:
            return self.received < self.sent or not self._inbox.empty()

    def latencies_s(self) -> list[float]:
        """From the end of the window that decided an alert to its arrival."""
        with self._lock:
            return [
                self._arrived_s[k] - s for k, s in self._decided_s.items() if k in self._arrived_s
            ]


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="another soundscape (default 0)")
    parser.add_argument(
        "--bundle", type=Path, metavar="FILE", help="another model than the starter bundle"
    )
    parser.add_argument("--json", action="store_true", help="alerts and totals as JSON lines")


def _say(text: str, quiet: bool) -> None:
    print(text, file=sys.stderr if quiet else sys.stdout, flush=True)


def _run(arguments: argparse.Namespace) -> int:
    # A demo that is told to end leaves no temporary folder behind either.
    handle_interrupts(signal.SIGTERM)
    if arguments.seed < 0:
        raise UsageError(f"--seed {arguments.seed}: expected 0 or more")
    with interrupts_wait():
        import soundfile

        bundle, interpreter, _ = open_bundle(arguments.bundle or starter_bundle_path())
        samples, truth = soundscape(arguments.seed, _RATE_HZ)
    manifest = bundle.manifest
    listener = _Listener(arguments.json)
    _say(
        f"soundpost demo: bundle {manifest.name} {manifest.version} "
        f"({len(manifest.labels)} labels, {manifest.weights}, {interpreter.runtime}), "
        f"{len(samples) / _RATE_HZ:.0f} s of sound",
        arguments.json,
    )
    for label, onset_s, offset_s in truth:
        _say(f"  will play {onset_s:5.1f}-{offset_s:4.1f} s  {label}", arguments.json)
    interrupted = False
    with (
        tempfile.TemporaryDirectory(prefix="soundpost-demo-") as folder,
        LoopbackBroker() as broker,
    ):
        wav = Path(folder) / "soundscape.wav"
        content = io.BytesIO()
        soundfile.write(content, np.clip(samples, -1, 1), _RATE_HZ, format="WAV")
        write_atomically(wav, content.getvalue())
        address = broker.settings
        topics = Topics("soundpost", _DEVICE)
        states = [(_SOURCE, label) for label in manifest.labels]
        with (
            Subscriber(address, listener.arrived, device_ids=[_DEVICE]) as subscriber,
            Publisher(address, topics, states=states) as publisher,
        ):
            subscriber.wait_connected(10.0)
            publisher.wait_connected(10.0)
            plan = SourcePlan(_SOURCE, f"file:{wav}", bundle, interpreter, manifest.classes)
            daemon = Daemon([plan], _DEVICE, publisher, [listener])
            listener.began_s = time.monotonic()
            daemon.start()
            try:
                while not daemon.wait(0.0):
                    listener.show(0.1)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                daemon.stop()
                daemon.wait(1.0)
            publisher.flush(1.0)
            # The broker has every event; the last ones are on their way to the subscriber.
            deadline_s = time.monotonic() + 2.0
            while listener.waiting and time.monotonic() < deadline_s:
                listener.show(0.1)
        totals = daemon.totals[_SOURCE]
        for error in daemon.errors.values():
            raise error
    _report(listener, totals.seconds, totals.windows, totals.median_compute_s(), arguments.json)
    if listener.received < listener.sent:
        raise BrokerError(
            f"demo: {listener.sent - listener.received} of {listener.sent} alerts did not arrive "
            "over MQTT: run it again with soundpost -v demo"
        )
    return 130 if interrupted else 0


def _report(
    listener: _Listener, seconds: float, windows: int, compute_s: float, as_json: bool
) -> None:
    latencies = listener.latencies_s()
    median_s = statistics.median(latencies) if latencies else None
    worst_s = max(latencies) if latencies else None
    if as_json:
        totals = {
            "seconds_heard": round(seconds, 3),
            "windows_scored": windows,
            "alerts_received": listener.received,
            "delivered_median_s": median_s,
            "delivered_worst_s": worst_s,
            "compute_median_s": compute_s,
            "onset_to_alert_s": [
                {"label": label, "seconds": round(arrived - onset, 3)}
                for label, onset, arrived in listener.starts
            ],
        }
        print(json.dumps(totals), flush=True)
        return
    delivered = (
        "none delivered"
        if median_s is None or worst_s is None
        else f"delivered in {1000 * median_s:.0f} ms median, {1000 * worst_s:.0f} ms worst"
    )
    print(
        f"{seconds:.1f} s heard, {windows} windows scored ({1000 * compute_s:.1f} ms each), "
        f"{listener.received} alerts received, {delivered} after the window that decided them"
    )


COMMAND = Command("hear a first alert, without microphone or broker", _DESCRIPTION, _add, _run)
