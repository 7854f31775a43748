"""Events as a broker may pass them on: any names that topics allow, any order, repeats."""

from __future__ import annotations

import csv
import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from soundpost.device.errors import UsageError
from soundpost.device.events import ModelRef, SoundEvent
from soundpost.device.identifiers import format_time, uuid7
from soundpost.device.terminal import printable
from soundpost.device.topics import RESERVED_SOURCES, check_name

BEGAN = datetime(2026, 11, 20, 10, 0, 1, 250_900, timezone.utc)


def start_of(label: str = "smoke_alarm", **more: object) -> SoundEvent:
    """The start of an event of its own."""
    event = SoundEvent(
        id=uuid7(),
        device="porch-pi",
        source="mic0",
        label=label,
        phase="start",
        score=0.974,
        threshold=0.62,
        onset=BEGAN,
        offset=None,
        time_synced=True,
        stream=uuid7(),
        sample=20_000,
        rate_hz=16_000,
        model=ModelRef("starter", "1.0.0", "0" * 64),
    )
    return replace(event, **more)  # type: ignore[arg-type]


def _usable(name: str) -> bool:
    try:
        check_name(name)
    except UsageError:
        return False
    return name not in RESERVED_SOURCES


names = st.one_of(
    st.sampled_from(["porch-pi", "mic0", "dog", "Hundegebell", "煙感知器", "a, b", 'say "hi"']),
    st.text(min_size=1, max_size=20).filter(_usable),
)
unit = st.floats(0, 1)


@st.composite
def lives(draw: st.DrawFn) -> list[SoundEvent]:
    """All messages of one event in their order: start, some updates, and perhaps an end.

    Scores may be the same: of a steady sound nothing but the count of its messages moves.
    """
    n_updates = draw(st.integers(0, 3))
    scores = draw(st.lists(unit, min_size=n_updates + 1, max_size=n_updates + 1))
    synced_from = draw(st.integers(0, n_updates + 1))
    level = draw(st.none() | st.floats(20, 120))
    first = start_of(
        draw(names),
        device=draw(names),
        source=draw(names),
        onset=BEGAN + timedelta(seconds=draw(st.floats(0, 1e6))),
        score=scores[0],
        level_dba=level,
        time_synced=synced_from == 0,
        report=0,
        model=ModelRef(draw(st.text(max_size=10)), "1", "a" * 64),
    )
    found = [first]
    for number, score in enumerate(scores[1:], 1):
        level = None if level is None else level + draw(st.floats(0, 5))
        moved = timedelta(hours=5) if number >= synced_from > 0 else timedelta()
        found.append(
            replace(
                first,
                phase="update",
                score=score,
                level_dba=level,
                onset=first.onset + moved,
                time_synced=number >= synced_from,
                report=number,
            )
        )
    if draw(st.booleans()):
        last = found[-1]
        offset = last.onset + timedelta(seconds=draw(st.floats(0, 1e5)))
        count = n_updates + 1
        found.append(replace(last, phase="end", score=max(scores), offset=offset, report=count))
    return found


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[list[SoundEvent]], list[SoundEvent]]:
    """Some lives, and their messages as they may come: mixed, and repeated from some point on."""
    heard = draw(st.lists(lives(), min_size=1, max_size=4))
    mixed: list[SoundEvent] = []
    left = [list(life) for life in heard]
    while any(left):
        mixed.append(draw(st.sampled_from([life for life in left if life])).pop(0))
    sent: list[SoundEvent] = []
    while mixed:
        n = draw(st.integers(1, len(mixed)))
        sent += mixed[:n]
        # The broker goes back by as many as it was not acknowledged.
        mixed = mixed[n - draw(st.integers(0, n - 1)) :] if draw(st.booleans()) else mixed[n:]
        if len(sent) > 200:
            sent += mixed
            break
    return heard, sent


# What a reader would write down of them, to compare files with.


def database_rows(path: Path) -> dict[str, dict[str, Any]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = {row["id"]: dict(row) for row in connection.execute("SELECT * FROM event")}
    connection.close()
    for row in found.values():
        assert row.pop("received")
    return found


def database_row(life: list[SoundEvent]) -> dict[str, Any]:
    """What a reader would write down of an event, with all its messages before him."""
    last = life[-1]
    levels = [event.level_dba for event in life if event.level_dba is not None]
    return {
        "id": last.id,
        "device": last.device,
        "source": last.source,
        "label": last.label,
        "phase": last.phase,
        "score": max(event.score for event in life),
        "threshold": last.threshold,
        "onset": format_time(last.onset),
        "offset": None if last.offset is None else format_time(last.offset),
        "duration_s": last.duration_s,
        "time_synced": int(last.time_synced),
        "level_dba": max(levels, default=None),
        "stream": last.stream,
        "sample": last.sample,
        "rate_hz": last.rate_hz,
        "model": last.model.name,
        "model_version": last.model.version,
        "model_sha256": last.model.sha256,
        "clip": last.clip,
    }


Message = tuple[str, ...]


def csv_messages(path: Path) -> list[Message]:
    content = path.read_bytes()
    assert content.endswith(b"\n")
    # One line each: what greps, tails and counts lines is right.
    lines = content.decode().split("\n")[1:-1]
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert len(found) == len(lines)
    return [
        tuple(row[name] for name in ("id", "phase", "report", "label", "device", "score", "onset"))
        for row in found
    ]


def csv_message(event: SoundEvent) -> Message:
    names = (printable(event.label), printable(event.device))
    count = "" if event.report is None else str(event.report)
    return (event.id, event.phase, count, *names, repr(event.score), format_time(event.onset))
