"""`soundpost session`: what a recorded session holds, its repair, parts and other forms."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from soundpost.device.command import Command
from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.device.findings import worst
from soundpost.device.identifiers import format_time
from soundpost.device.session.published_export import export_published
from soundpost.device.session.session_check import check_session, repair_session
from soundpost.device.session.session_export import export_acoular, export_clips
from soundpost.device.session.session_picture import session_svg
from soundpost.device.session.session_reader import Session, lost_ms, open_session
from soundpost.device.session.session_trim import trim_session
from soundpost.device.terminal import duration, printable

_DESCRIPTION = """\
Looks at sessions that `soundpost record` wrote, and makes other things of them.

  show    what is in it; --picture draws levels, gaps and pictures over time
  check   is it whole; --repair makes it so after a kill, a full disk or a lost file: sound that is
          there is taken in, what is missing becomes a stated gap
  trim    a part of it as a session of its own
  export  Acoular's HDF5 and XML, the layout of the published acoustic-image set, or mono clips

examples:
  soundpost session show hall
  soundpost session show hall --picture hall.svg
  soundpost session check hall --repair
  soundpost session trim hall --from 12.5 --to 30 --out knock
  soundpost session export hall --acoular hall.h5
  soundpost session export hall --published set --take 1/2/3
  soundpost session export hall --clips clips --channel 17 --rate 16000
"""

Progress = Callable[[int], object]


def _add(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = commands.add_parser("show", help="what is in it")
    show.add_argument("--json", action="store_true", help="for a program")
    show.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw it")
    check = commands.add_parser("check", help="whether it is whole")
    check.add_argument("--repair", action="store_true", help="make it whole")
    trim = commands.add_parser("trim", help="a part of it")
    trim.add_argument("--from", dest="first", type=float, default=0.0, metavar="S", help="seconds")
    trim.add_argument("--to", dest="last", type=float, metavar="S", help="default: the end")
    trim.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    export = commands.add_parser("export", help="other forms")
    forms = export.add_mutually_exclusive_group(required=True)
    forms.add_argument("--acoular", type=Path, metavar="FILE.h5", help="and FILE.xml")
    forms.add_argument("--published", type=Path, metavar="DIR", help="folder of a set")
    forms.add_argument("--clips", type=Path, metavar="DIR", help="mono clips")
    export.add_argument(
        "--take", default="1/1/1", metavar="L/S/A", help="published: location, subject, action"
    )
    export.add_argument("--channel", type=int, default=0, metavar="N", help="clips: which (0)")
    export.add_argument("--seconds", type=float, default=10.0, metavar="S", help="clips: length")
    export.add_argument("--rate", type=int, metavar="HZ", help="clips: default the session's")
    for one in (show, check, trim, export):
        one.add_argument("folder", type=Path, metavar="DIR", help="of the session")
        one.add_argument("--quiet", action="store_true", help="no progress bar")


@contextmanager
def _bar(arguments: argparse.Namespace, what: str, session: Session) -> Iterator[Progress]:
    """Seconds of sound, with the time that is left."""
    hidden = arguments.quiet or not sys.stderr.isatty()
    total = round(session.duration_s, 1)
    with tqdm(total=total, unit="s", desc=what, leave=False, delay=1.0, disable=hidden) as bar:
        yield lambda n_samples: bar.update(n_samples / session.rate_hz)


def _show(arguments: argparse.Namespace) -> int:
    with open_session(arguments.folder) as session:
        if arguments.json:
            print(json.dumps(_facts(session), ensure_ascii=False))
        else:
            for name, value in _lines(session):
                print(f"{name:<12} {value}")
        if arguments.picture is not None:
            if arguments.picture.suffix.lower() != ".svg":
                raise UsageError(
                    f"--picture {arguments.picture}: expected a name that ends in .svg"
                )
            with _bar(arguments, "drawing", session) as progress:
                write_atomically(arguments.picture, session_svg(session, progress).encode())
    return 0


def _facts(session: Session) -> dict[str, object]:
    description = session.description
    video = description.video
    return {
        "id": description.id,
        "device": session.device,
        "source": description.source,
        "rate_hz": session.rate_hz,
        "n_channels": session.n_channels,
        "n_samples": session.n_samples,
        "seconds": round(session.duration_s, 6),
        "began": format_time(session.utc(0)) if session.clock else None,
        "time_synced": description.time_synced,
        "end": description.end,
        "gaps": [gap._asdict() for gap in session.gaps],
        "lost": [dataclasses.asdict(part) for part in session.lost],
        "array": None if session.array is None else session.array.geometry.name,
        "calibrated": session.calibration is not None,
        "camera": None if video is None else video.camera,
        "pictures": session.frame_table.n_frames,
        "pictures_dropped": None if video is None else video.dropped,
        "temperature_c": session.temperature_c,
        "notes": session.notes,
    }


def _lines(session: Session) -> Iterator[tuple[str, str]]:
    description = session.description
    synced = "" if description.time_synced else " (clock not known to be right)"
    if session.clock:
        yield "began", f"{format_time(session.utc(0))}{synced}"
    yield "device", printable(session.device)
    yield (
        "sound",
        (
            f"{duration(session.duration_s)}, {session.n_channels} channels at "
            f"{session.rate_hz} Hz from {printable(description.source)}"
        ),
    )
    lost = sum(gap.length for gap in session.gaps)
    yield "gaps", f"{len(session.gaps)}, {lost / session.rate_hz:.3f} s" if lost else "none"
    for gap in session.gaps[:10]:
        first_s, length_s = (value / session.rate_hz for value in gap[:2])
        yield "", f"{first_s:.3f} s on for {length_s:.3f} s: {printable(gap.cause)}"
    if len(session.gaps) > 10:
        yield "", f"and {len(session.gaps) - 10} more in gaps.csv"
    if session.lost:
        yield (
            "lost",
            f"{len(session.lost)} times on some channels, {lost_ms(session):.1f} ms of each on "
            "average: lost.csv",
        )
    video = description.video
    if video is not None:
        yield (
            "camera",
            (
                f"{printable(video.camera)}, {video.width} x {video.height}, "
                f"{session.frame_table.n_frames} pictures, {video.dropped} dropped"
            ),
        )
        for camera_gap in video.gaps:
            first_s = camera_gap.first_sample / session.rate_hz
            yield "", f"none from {first_s:.1f} s on: {printable(camera_gap.cause)}"
    if session.array is not None:
        geometry = session.array.geometry
        yield "array", f"{geometry.name or 'without a name'}, {geometry.n_mics} microphones"
    if session.calibration is not None:
        yield "calibration", str(session.calibration)
    if session.temperature_c is not None:
        yield "temperature", f"{session.temperature_c:g} °C"
    if session.notes:
        yield "notes", printable(session.notes)
    yield "end", printable(description.end)


def _check(arguments: argparse.Namespace) -> int:
    if arguments.repair:
        for line in repair_session(arguments.folder):
            print(f"repaired: {line}")
    findings = check_session(arguments.folder)
    for finding in findings:
        print(f"{finding.state:<8} {finding.area}: {printable(finding.text)}")
    if worst(findings) == "fault":
        remedy = next(finding.remedy for finding in findings if finding.state == "fault")
        raise InputError(f"{arguments.folder}: is not whole; {remedy}")
    return 0


def _trim(arguments: argparse.Namespace) -> int:
    for name, value in (("from", arguments.first), ("to", arguments.last)):
        if value is not None and not math.isfinite(value):
            raise UsageError(f"--{name} {value}: expected seconds")
    with open_session(arguments.folder) as session:
        first = round(arguments.first * session.rate_hz)
        last = session.n_samples
        if arguments.last is not None:
            last = round(arguments.last * session.rate_hz)
        with _bar(arguments, "copying", session) as progress:
            done = trim_session(session, first, last, arguments.out, progress)
    print(f"{arguments.out}: {(done.n_samples or 0) / done.rate_hz:.3f} s")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    take = re.fullmatch(r"([1-9]\d?)/([1-9]\d?)/([1-9]\d?)", arguments.take)
    if take is None:
        raise UsageError(
            f"--take {arguments.take[:20]}: expected location/subject/action, such as 1/2/3"
        )
    with open_session(arguments.folder) as session, _bar(arguments, "writing", session) as progress:
        if arguments.acoular is not None:
            for path in export_acoular(session, arguments.acoular, progress):
                print(path)
        elif arguments.published is not None:
            numbers = (int(take[1]), int(take[2]), int(take[3]))
            path, n_frames = export_published(session, arguments.published, numbers, progress)
            print(f"{path}: {n_frames} frames")
        else:
            n_clips = export_clips(
                session,
                arguments.clips,
                progress,
                channel=arguments.channel,
                seconds=arguments.seconds,
                rate_hz=arguments.rate,
            )
            print(f"{arguments.clips}: {n_clips} clips")
    return 0


_ACTIONS = {"show": _show, "check": _check, "trim": _trim, "export": _export}


def _run(arguments: argparse.Namespace) -> int:
    return _ACTIONS[arguments.action](arguments)


COMMAND = Command("look at, repair, cut and export recorded sessions", _DESCRIPTION, _add, _run)
