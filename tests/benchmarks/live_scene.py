"""Plays recordings with known events to a sensor in real time and prints what it publishes.

python tests/benchmarks/live_scene.py streaming.bundle --data ../shared/data/scenes_mixed --fold 5

`soundpost run` hears each recording as if it happened now and publishes to a Mosquitto on a
loopback port; beside each event that the bundle knows stands what was said of it. A recording's own
times are those of events.csv (filename, onset, offset, event_label); clips.csv has its fold. Sounds
that the bundle does not know are listed as such: what it says during them is a false alarm to it.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from machine import describe

from soundpost.device.bundle import read_bundle

COLLAR_S = 0.2


@dataclass
class Heard:
    """One event of the sensor; seconds from the recording's beginning, where known."""

    label: str
    onset_s: float
    offset_s: float | None = None
    told_s: float | None = None
    phases: list[str] = field(default_factory=list)


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A Mosquitto on a free loopback port."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen(
        [program, "-c", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def play(bundle: Path, recording: Path, folder: Path, port: int) -> list[Heard]:
    """What the sensor published of one recording."""
    found: dict[str, Heard] = {}
    lock = threading.Lock()

    def arrived(_client: Any, _data: Any, message: Any) -> None:
        now = time.time()
        event = json.loads(message.payload)
        onset = datetime.fromisoformat(event["onset"]).timestamp()
        # `sample` is the onset on the stream's own clock, which begins with the recording.
        onset_s = event["sample"] / event["rate_hz"]
        with lock:
            heard = found.setdefault(event["id"], Heard(event["label"], onset_s))
            heard.phases.append(event["phase"])
            if event["phase"] == "start":
                heard.told_s = onset_s + now - onset
            if event["offset"] is not None:
                lasted = datetime.fromisoformat(event["offset"]).timestamp() - onset
                heard.offset_s = onset_s + lasted

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = arrived
    client.connect("127.0.0.1", port)
    client.subscribe("soundpost/+/+/event", qos=1)
    client.loop_start()
    settings = folder / "soundpost.toml"
    settings.write_text(
        f'device_id = "bench"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
        f'[model]\nbundle = "{bundle.resolve()}"\n[source.scene]\nurl = "file:{recording}"\n'
        f'[outbox]\npath = "{folder / "outbox.sqlite3"}"\n'
    )
    command = [sys.executable, "-m", "soundpost.device", "run", "--config", settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise SystemExit(f"{recording}: soundpost run ended with {done.returncode}: {done.stderr}")
    time.sleep(0.5)
    client.loop_stop()
    client.disconnect()
    return sorted(found.values(), key=lambda heard: heard.onset_s)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Of a table with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def answer_to(row: dict[str, str], left: list[Heard]) -> Heard | None:
    """The sensor's first event of this label within the event, taken off the list."""
    onset_s, offset_s = float(row["onset"]), float(row["offset"])
    for heard in left:
        within = onset_s - COLLAR_S <= heard.onset_s < offset_s
        if heard.label == row["event_label"] and within:
            left.remove(heard)
            return heard
    return None


def seconds(value: float | None) -> str:
    """For a line."""
    return "      -" if value is None else f"{value:7.2f}"


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="clips.csv, events.csv, sound")
    parser.add_argument("--fold", default="5", help="recordings of this fold (default: 5)")
    arguments = parser.parse_args()
    describe()
    labels = read_bundle(arguments.bundle).manifest.labels
    names = [
        row["filename"]
        for row in rows_of(arguments.data / "clips.csv")
        if row["fold"] == arguments.fold
    ]
    events = rows_of(arguments.data / "events.csv")
    delays: list[float] = []
    counts = dict.fromkeys(("known", "heard", "false", "ended"), 0)
    with tempfile.TemporaryDirectory() as name, broker(Path(name)) as port:
        for number, recording in enumerate(names):
            folder = Path(name) / str(number)
            folder.mkdir()
            left = play(arguments.bundle, (arguments.data / recording).resolve(), folder, port)
            counts["ended"] += sum(heard.phases[-1] == "end" for heard in left)
            print(
                f"\n{recording}\n  {'label':<18} {'onset':>8} {'offset':>7} | {'told onset':>11} "
                f"{'offset':>7} {'at':>7}"
            )
            for row in events:
                if row["filename"] != recording:
                    continue
                line = f"  {row['event_label']:<18} {row['onset']:>8} {row['offset']:>7} |"
                if row["event_label"] not in labels:
                    print(f"{line}  (not a label of the bundle)")
                    continue
                counts["known"] += 1
                heard = answer_to(row, left)
                if heard is None:
                    print(f"{line}  missed")
                    continue
                counts["heard"] += 1
                if heard.told_s is not None:
                    delays.append(heard.told_s - float(row["onset"]))
                print(
                    f"{line} {seconds(heard.onset_s):>11} {seconds(heard.offset_s)} "
                    f"{seconds(heard.told_s)}  {' '.join(heard.phases)}"
                )
            for heard in left:
                counts["false"] += 1
                print(
                    f"  {heard.label:<18} {'':8} {'':7} | {seconds(heard.onset_s):>11} "
                    f"{seconds(heard.offset_s)} {seconds(heard.told_s)}  {' '.join(heard.phases)}"
                )
    total = counts["heard"] + counts["false"]
    print(
        f"\n{counts['heard']} of {counts['known']} events of the bundle's labels heard, "
        f"{counts['false']} others told, {counts['ended']} of {total} with an end"
    )
    if delays:
        print(f"start published {1000 * statistics.median(delays):.0f} ms after the onset (median)")


if __name__ == "__main__":
    main()
