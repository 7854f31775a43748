"""`soundpost replay`: what the sensor would have reported in a file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from soundpost.device.audio import Channel
from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.capture import open_source
from soundpost.device.command import Command
from soundpost.device.detector import Detection
from soundpost.device.errors import UsageError
from soundpost.device.files import write_atomically
from soundpost.device.pipeline import Pipeline

_DESCRIPTION = """\
Runs a sound file through the sensor's own code as fast as possible and prints the events.
Any rate from 8 to 192 kHz, any channel count; nothing is sent over MQTT.

examples:
  soundpost replay street.wav
  soundpost replay street.wav --bundle my.bundle --channel 2
  soundpost replay night.flac --label smoke_alarm --json | jq .
  soundpost replay door.wav --scores scores.csv     every window's scores, for a spreadsheet

With --json each line is {"label", "onset_s", "offset_s", "score", "threshold"}.
"""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="sound file")
    parser.add_argument("--bundle", type=Path, metavar="BUNDLE", help="default: the starter")
    parser.add_argument("--channel", default="mix", metavar="N", help="channel, or mix (default)")
    parser.add_argument(
        "--label", action="append", metavar="LABEL", help="only this one; repeatable"
    )
    parser.add_argument("--scores", type=Path, metavar="CSV", help="write every window's scores")
    parser.add_argument(
        "--runtime",
        default="auto",
        help="auto, ai-edge-litert, tflite-runtime or tensorflow",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per event")


def parse_channel(text: str) -> Channel:
    """Channel option: a number from 0, or "mix"."""
    if text == "mix":
        return "mix"
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"--channel {text}: expected a number from 0, or mix")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    bundle, interpreter, _ = open_bundle(
        arguments.bundle or starter_bundle_path(), arguments.runtime
    )
    manifest = bundle.manifest
    rate = manifest.front_end.sample_rate_hz
    unknown = [label for label in arguments.label or [] if label not in manifest.labels]
    if unknown:
        raise UsageError(
            f"--label {unknown[0]}: the bundle has no such label; "
            f"known: {', '.join(manifest.labels)}"
        )
    wanted = set(arguments.label or manifest.labels)
    started = time.perf_counter()
    found = 0
    seconds = 0.0
    rows: list[str] = []

    def take(detections: tuple[Detection, ...]) -> int:
        n = 0
        for d in detections:
            if d.phase != "end" or d.label not in wanted or d.offset_sample is None:
                continue
            n += 1
            onset, offset = d.onset_sample / rate, d.offset_sample / rate
            if arguments.json:
                line = {
                    "label": d.label,
                    "onset_s": round(onset, 3),
                    "offset_s": round(offset, 3),
                    "score": round(float(d.score), 4),
                    "threshold": round(float(d.threshold), 4),
                }
                print(json.dumps(line), flush=True)
            else:
                print(
                    f"{onset:9.2f} s {offset:9.2f} s  {d.label:<20} score {d.score:.2f}", flush=True
                )
        return n

    with open_source(arguments.file, realtime=False, block_s=0.5) as source:
        pipeline = Pipeline(
            bundle, interpreter, source.rate_hz, channel=parse_channel(arguments.channel)
        )
        if not arguments.json:
            print(f"{'onset':>9}   {'offset':>9}    label")
        bar = tqdm(
            unit="s", desc="replaying", disable=not sys.stderr.isatty(), leave=False, delay=1.0
        )
        for block in source.blocks():
            for window in pipeline.push(block):
                found += take(window.detections)
                if arguments.scores:
                    scores = ",".join(f"{value:.4f}" for value in window.scores)
                    rows.append(f"{window.first_sample / rate:.3f},{scores}\n")
            seconds += len(block.samples) / source.rate_hz
            bar.update(len(block.samples) / source.rate_hz)
        for window in pipeline.finish():
            found += take(window.detections)
        bar.close()
    if arguments.scores:
        header = "window_start_s," + ",".join(manifest.labels) + "\n"
        write_atomically(arguments.scores, (header + "".join(rows)).encode())
    spent = time.perf_counter() - started
    if pipeline.windows == 0:
        window_s = manifest.window_samples / rate
        print(
            f"{arguments.file}: {seconds:.2f} s is shorter than a window of {window_s:.2f} s: "
            "nothing was scored",
            file=sys.stderr,
        )
    print(
        f"{seconds:.1f} s heard, {pipeline.windows} windows scored, {found} events, "
        f"{seconds / spent:.0f} times as fast as real time ({interpreter.runtime})",
        file=sys.stderr,
    )
    return 0


COMMAND = Command("what the sensor would report in a sound file", _DESCRIPTION, _add, _run)
