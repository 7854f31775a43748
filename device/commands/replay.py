"""`soundpost replay`: what the sensor would have reported in a file."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from soundpost.device.audio import Channel, check_channel
from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.capture import BlockSource
from soundpost.device.command import Command
from soundpost.device.detection import Detection
from soundpost.device.errors import BundleError, InputError, UsageError
from soundpost.device.file_source import open_file
from soundpost.device.files import write_atomically
from soundpost.device.interpreter import RUNTIME_CHOICES
from soundpost.device.interrupt import interrupts_wait
from soundpost.device.level_table import print_levels
from soundpost.device.pipeline import Pipeline, ScoredWindow

_DESCRIPTION = """\
Runs a sound file through the sensor's own code as fast as possible and prints the events.
Any rate from 8 to 192 kHz, any channel count; nothing is sent over MQTT.

examples:
  soundpost replay street.wav
  soundpost replay street.wav --bundle my.bundle --channel 2
  soundpost replay night.flac --label smoke_alarm --json | jq .
  soundpost replay door.wav --scores scores.csv     every window's scores, for a spreadsheet
  soundpost replay street.wav --levels              LAeq, LAFmax, L10, L50, L90 ... by the minute
  soundpost replay street.wav --levels --interval 1 --profile porch.toml --json

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
        help=f"{', '.join(RUNTIME_CHOICES)} (slower kernels; on x86_64 the same events whatever "
        "runtime is installed)",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per event, or per interval of levels"
    )
    levels = parser.add_argument_group("levels, in place of events")
    levels.add_argument("--levels", action="store_true", help="print sound levels")
    levels.add_argument(
        "--interval", type=float, metavar="S", help="seconds of each line (default 60)"
    )
    levels.add_argument(
        "--profile", type=Path, metavar="FILE", help="of the microphone; without it: dBFS"
    )
    levels.add_argument("--bands", action="store_true", help="third-octave bands too")


def parse_channel(text: str) -> Channel:
    """Channel option: a number from 0, or "mix"."""
    if text == "mix":
        return "mix"
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"--channel {text}: expected a number from 0, or mix")
    return int(text)


def _event_line(detection: Detection, rate_hz: int, as_json: bool) -> str | None:
    """What is printed of an event, once it has ended."""
    if detection.offset_sample is None:
        return None
    onset_s, offset_s = detection.onset_sample / rate_hz, detection.offset_sample / rate_hz
    if not as_json:
        return (
            f"{onset_s:9.2f} s {offset_s:9.2f} s  {detection.label:<20} score {detection.score:.2f}"
        )
    return json.dumps(
        {
            "label": detection.label,
            "onset_s": round(onset_s, 3),
            "offset_s": round(offset_s, 3),
            "score": round(float(detection.score), 4),
            "threshold": round(float(detection.threshold), 4),
        }
    )


def _windows(source: BlockSource, pipeline: Pipeline) -> Iterator[ScoredWindow]:
    with tqdm(
        unit="s", desc="replaying", disable=not sys.stderr.isatty(), leave=False, delay=1.0
    ) as bar:
        for block in source.blocks():
            yield from pipeline.push(block)
            bar.update(len(block.samples) / source.rate_hz)
        yield from pipeline.finish()


def _run_levels(arguments: argparse.Namespace) -> int:
    for name in ("bundle", "label", "scores"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name}: is about events, and --levels prints none; leave one out")
    interval_s = 60.0 if arguments.interval is None else arguments.interval
    if not 1.0 <= interval_s <= 3_600.0:
        raise UsageError(f"--interval {interval_s:g}: expected 1 to 3600 seconds")
    print_levels(
        arguments.file,
        parse_channel(arguments.channel),
        interval_s=interval_s,
        profile=arguments.profile,
        bands=arguments.bands,
        as_json=arguments.json,
    )
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if arguments.levels:
        return _run_levels(arguments)
    for name in ("interval", "profile", "bands"):
        value = getattr(arguments, name)
        if value is not None and value is not False:
            raise UsageError(f"--{name}: is about levels; add --levels")
    with interrupts_wait():
        bundle, interpreter, _ = open_bundle(
            arguments.bundle or starter_bundle_path(), arguments.runtime
        )
    manifest = bundle.manifest
    rate_hz = manifest.front_end.sample_rate_hz
    for label in arguments.label or []:
        if label not in manifest.labels:
            raise UsageError(
                f"--label {label}: the bundle has no such label; "
                f"known: {', '.join(manifest.labels)}"
            )
    wanted = set(arguments.label or manifest.labels)
    channel = parse_channel(arguments.channel)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["window_start_s", *manifest.labels])
    found = 0
    started_s = time.perf_counter()
    with open_file(arguments.file, realtime=False, block_s=0.5) as source:
        check_channel(channel, source.n_channels, arguments.file)
        pipeline = Pipeline(bundle, interpreter, source.rate_hz, channel=channel)
        if not arguments.json:
            print(f"{'onset':>9}   {'offset':>9}    label")
        for window in _windows(source, pipeline):
            if window.failure is not None:
                raise BundleError(f"{bundle.where}: {window.failure}; export it again")
            for detection in window.detections:
                line = _event_line(detection, rate_hz, arguments.json)
                if line is not None and detection.label in wanted:
                    found += 1
                    # Beside the bar, where both go to one terminal.
                    tqdm.write(line, file=sys.stdout)
                    sys.stdout.flush()
            if len(window.scores):
                start_s = f"{window.first_sample / rate_hz:.3f}"
                rows.writerow([start_s, *(f"{value:.4f}" for value in window.scores)])
    seconds = pipeline.samples / pipeline.rate_hz
    if pipeline.windows == 0:
        raise InputError(
            f"{arguments.file}: {seconds:.2f} s of sound: expected at least one window of "
            f"{manifest.window_samples / rate_hz:.3f} s; give a longer recording"
        )
    if arguments.scores:
        write_atomically(arguments.scores, table.getvalue().encode())
    spent_s = time.perf_counter() - started_s
    print(
        f"{seconds:.1f} s heard, {pipeline.windows} windows scored, {found} events, "
        f"{seconds / spent_s:.0f} times as fast as real time ({interpreter.runtime})",
        file=sys.stderr,
    )
    return 0


COMMAND = Command("what the sensor would report in a sound file", _DESCRIPTION, _add, _run)
