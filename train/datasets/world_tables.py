"""Tables of a generated world: what sounds when, what is seen where, and whose clips are heard.

    events.csv       clip,split,label,onset,offset,seen,role: each time that a class is heard;
                     seconds of the clip; seen or hidden; role main or other
    objects.csv      clip,label,look,role,seen,x0,y0,z0,x1,y1,z1: where everything that sounds, or
                     moves as if it did, is at the clip's begin and end; metres from the camera,
                     x to the right, y up; role silent: seen and not heard, distractor: no class
    attribution.csv  of every clip that is heard: author, licence, by which subject, how many takes

A clip is a take: `Location_01/Subject_01/Action_01#5-10` is its recording's seconds 5 to 10, the id
that parts of recordings have everywhere (action_splits.py).
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.train.datasets.acoustic_actions import ActionRecording, read_actions
from soundpost.train.datasets.action_files import FRAMES_PER_SECOND
from soundpost.train.datasets.catalogue import Listing, MediaClip, MediaSet, Problem
from soundpost.train.datasets.tables import read_columns, read_span
from soundpost.train.datasets.world_cast import Cast
from soundpost.train.datasets.world_plan import TakePlan
from soundpost.train.datasets.world_settings import WorldSettings

EVENTS_FILE = "events.csv"
OBJECTS_FILE = "objects.csv"
CREDITS_FILE = "attribution.csv"
SETTINGS_FILE = "world.json"
SCHEMA = "soundpost.world/1"

_EVENTS = ("clip", "split", "label", "onset", "offset", "seen", "role")
_OBJECTS = ("clip", "label", "look", "role", "seen", "x0", "y0", "z0", "x1", "y1", "z1")
_CREDITS = ("filename", "label", "fold", "group", "licence", "attribution", "subject", "takes")


def take_id(location: int, subject: int, action: int, take: int, seconds: float) -> str:
    """Clip id of a take; numbers from 1, takes from 0."""
    recording = f"Location_{location:02d}/Subject_{subject:02d}/Action_{action:02d}"
    return f"{recording}#{take * seconds:g}-{(take + 1) * seconds:g}"


def write_tables(
    out: Path, settings: WorldSettings, cast: Cast, folder: Path, plans: Iterable[TakePlan]
) -> None:
    """Write all three. folder : of the clips, from which they are named."""
    heard: Counter[tuple[int, int]] = Counter()
    events: list[Sequence[object]] = []
    objects: list[Sequence[object]] = []
    for plan in plans:
        of_take = (plan.location, plan.subject, plan.action, plan.take)
        clip = take_id(*of_take, settings.seconds)
        split = settings.split_of(plan.subject)
        events += [
            (
                clip,
                split,
                event.label,
                f"{event.onset_s:.3f}",
                f"{event.offset_s:.3f}",
                _seen(event.seen),
                event.role,
            )
            for event in plan.events()
        ]
        objects += _objects(clip, plan, settings.seconds)
        used = {cue.clip for actor in plan.actors if actor.sounds for cue in actor.cues}
        heard.update((index, plan.subject) for index in used)
    _write(out / EVENTS_FILE, _EVENTS, events)
    _write(out / OBJECTS_FILE, _OBJECTS, objects)
    credits = []
    for (index, subject), count in sorted(heard.items()):
        source = cast.clips[index]
        name = source.path.relative_to(folder).as_posix()
        whose = (source.fold, source.group, source.licence, source.attribution)
        credits.append((name, source.label, *whose, subject, count))
    _write(out / CREDITS_FILE, _CREDITS, credits)


def _objects(clip: str, plan: TakePlan, seconds: float) -> Iterator[Sequence[object]]:
    for actor in plan.actors:
        ends = [f"{value:.3f}" for at in actor.place.at([0.0, seconds]) for value in at]
        yield clip, actor.label, actor.look or "", actor.role, _seen(actor.seen), *ends


def _seen(seen: bool) -> str:
    return "seen" if seen else "hidden"


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


@dataclass(frozen=True)
class _Take:
    """One clip of events.csv. where : file and line of its first event."""

    split: str
    labels: tuple[str, ...]
    where: str


def read_world(folder: Path) -> Listing:
    """The takes of a world as clips with all their labels, and what is wrong with them.

    Splits are train, validation and test, by subject; the main object's label comes first.

    Raises InputError where the folder is no complete world.
    """
    note = _read_note(folder)
    problems: list[Problem] = []
    takes = _read_takes(folder / EVENTS_FILE, problems)
    actions, found = read_actions(folder)
    problems += found
    by_id = {recording.id: recording for recording in actions.recordings}
    clips = []
    for clip, take in takes.items():
        name, _, span = clip.partition("#")
        begin, _, end = span.partition("-")
        times = read_span(take.where, begin, end, problems)
        recording = by_id.get(name)
        if recording is None or (times is not None and times[1] > recording.seconds + 1e-6):
            holds = "not there" if recording is None else f"{recording.seconds:g} s long"
            problems.append(
                Problem(
                    take.where,
                    f"{name} is {holds}",
                    f"seconds {span} of it",
                    "give the command that made the world again",
                )
            )
        elif times is not None:
            location = actions.settings.locations[recording.location]
            clips.append(_clip(clip, take, recording, location, times))
    return Listing(
        MediaSet(folder, note["name"], tuple(note["labels"]), tuple(clips)), (*problems,)
    )


def _clip(
    name: str, take: _Take, recording: ActionRecording, location: str, times: tuple[float, float]
) -> MediaClip:
    begin_s, end_s = times
    frames = round((end_s - begin_s) * FRAMES_PER_SECOND)
    return MediaClip(
        name,
        recording.audio,
        recording.video,
        take.labels,
        take.split,
        begin_s,
        end_s,
        frames / FRAMES_PER_SECOND,
        group=f"Subject_{recording.subject:02d}",
        location=location,
        subject=f"{recording.subject:02d}",
        images=recording.images,
        source=take.where,
    )


def _read_note(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS_FILE
    try:
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if note["schema"] != SCHEMA:
            raise ValueError(f"schema {note['schema']!r}")
        return {"name": str(note["settings"]["name"]), "labels": list(note["labels"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be used ({error}); expected {SCHEMA}, as soundpost dataset world "
            "writes it"
        ) from error


def _read_takes(path: Path, problems: list[Problem]) -> dict[str, _Take]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; the world is not complete: give the command that made it again"
        )
    takes: dict[str, _Take] = {}
    main: dict[str, str] = {}
    for where, row in read_columns(path, _EVENTS, problems):
        clip, label = row["clip"], row["label"]
        take = takes.setdefault(clip, _Take(row["split"], (), where))
        if row["role"] == "main":
            main[clip] = label
        if label not in take.labels:
            takes[clip] = _Take(take.split, (*take.labels, label), take.where)
    return {
        clip: _Take(take.split, _first(take.labels, main.get(clip)), take.where)
        for clip, take in takes.items()
    }


def _first(labels: tuple[str, ...], main: str | None) -> tuple[str, ...]:
    """The same labels, the main one before the others."""
    return tuple(sorted(labels, key=lambda label: label != main))
