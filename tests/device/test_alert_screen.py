"""The live table: true to the events, and within the screen whatever comes."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

from alert_examples import deliveries, names, start_of
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.alert_screen import SILENT_S, AlertTable
from soundpost.device.events import SoundEvent
from soundpost.device.identifiers import uuid7
from soundpost.device.terminal import plain, text_width

START = start_of()
END = replace(START, phase="end", offset=START.onset + timedelta(seconds=4.25))


def shown(table: AlertTable, columns: int = 80, lines: int = 24, now_s: float = 100.0) -> list[str]:
    return plain(table.rows(columns, lines, now_s, title="here:1883  connected")).splitlines()


def part(rows: list[str], heading: str) -> list[str]:
    """Rows of a part of the table."""
    headings = ["SENSORS", "SOUNDS NOW", "LAST ALERTS", ""]
    following = headings[headings.index(heading) + 1]
    first = rows.index(heading) + 1
    return rows[first : rows.index(following) if following in rows else len(rows)]


@settings(max_examples=60)
@given(
    deliveries(),
    st.integers(1, 200),
    st.integers(1, 60),
    st.lists(st.tuples(names, st.booleans())),
    st.lists(st.text(max_size=100), max_size=3),
    st.floats(0, 1e7),
)
def test_the_table_never_exceeds_the_screen(
    heard: tuple[list[list[SoundEvent]], list[SoundEvent]],
    columns: int,
    lines: int,
    statuses: list[tuple[str, bool]],
    notes: list[str],
    now_s: float,
) -> None:
    table = AlertTable()
    for number, event in enumerate(heard[1]):
        table.hear(event, float(number))
    for number, (device, online) in enumerate(statuses):
        table.status(device, online, float(number))
    rows = table.rows(columns, lines, now_s, title="x" * 50, trouble=True, notes=notes)
    assert 1 <= len(rows) <= lines
    assert max(text_width("".join(span.text for span in row)) for row in rows) <= columns


@settings(max_examples=40)
@given(deliveries())
def test_what_is_open_is_what_has_not_ended(
    heard: tuple[list[list[SoundEvent]], list[SoundEvent]],
) -> None:
    """However often messages come, each event is in the table once, open or ended."""
    lives, sent = heard
    # One source each: an event of a newer stream would end those before it.
    place = {life[0].id: n for n, life in enumerate(lives)}
    table = AlertTable()
    for number, event in enumerate(sent):
        n = place[event.id]
        table.hear(replace(event, source=f"s{n}", label=f"l{n}"), number / 10)
    rows = shown(table, 120, 60, len(sent) / 10)
    now = part(rows, "SOUNDS NOW")
    for n, life in enumerate(lives):
        assert sum(f" l{n} " in row for row in now) == (life[-1].phase != "end")
        assert sum(f" l{n} " in row for row in part(rows, "LAST ALERTS")) == 1


def test_an_event_goes_from_now_to_past() -> None:
    table = AlertTable()
    table.hear(START, 90.0)
    rows = shown(table, now_s=95.5)
    assert part(rows, "SOUNDS NOW")[0].endswith("  for 5.5 s")
    assert "goes on" in part(rows, "LAST ALERTS")[0]
    table.hear(END, 99.0)
    rows = shown(table)
    assert part(rows, "SOUNDS NOW") == ["  nothing"]
    assert part(rows, "LAST ALERTS")[0].endswith("  4.2 s")


def test_a_sensor_that_goes_offline_is_seen_and_its_events_are_unsure() -> None:
    table = AlertTable()
    table.status("porch-pi", True, 0.0)
    table.status("attic", False, 0.0)
    table.hear(START, 10.0)
    assert "1 of 2 sensors online" in shown(table)[0]
    table.status("porch-pi", False, 20.0)
    rows = shown(table, now_s=80.0)
    # Of the one that was away before we came, nobody knows for how long.
    away = [re.split(r"  +", row)[1:3] for row in part(rows, "SENSORS")]
    assert away == [["attic", "offline"], ["porch-pi", "offline for 1 min 00 s"]]
    assert "no word" in part(rows, "SOUNDS NOW")[0]
    table.status("porch-pi", True, 81.0)
    table.hear(replace(START, phase="update", score=0.9), 81.0)
    assert "for 1 min 11 s" in part(shown(table, now_s=81.0), "SOUNDS NOW")[0]


def test_an_event_without_a_word_for_long_is_unsure_then_forgotten() -> None:
    table = AlertTable()
    table.hear(START, 0.0)
    assert "no word" not in part(shown(table, now_s=SILENT_S - 1), "SOUNDS NOW")[0]
    assert "no word" in part(shown(table, now_s=SILENT_S + 1), "SOUNDS NOW")[0]
    assert part(shown(table, now_s=5_000.0), "SOUNDS NOW") == ["  nothing"]


def test_a_sensor_that_was_started_again_has_no_open_events_of_before() -> None:
    table = AlertTable()
    table.hear(START, 0.0)
    other = replace(START, id=uuid7(), source="mic1", label="dog")
    table.hear(other, 1.0)
    table.hear(replace(START, id=uuid7(), label="knock", stream=uuid7()), 2.0)
    now = part(shown(table, now_s=3.0), "SOUNDS NOW")
    assert [row.split()[2] for row in now] == ["knock", "dog"]


def test_what_has_no_room_is_counted() -> None:
    table = AlertTable()
    for number in range(30):
        table.status(f"sensor-{number:02}", True, 0.0)
        table.hear(start_of(device=f"sensor-{number:02}"), 0.0)
    rows = shown(table)
    assert len(rows) == 24
    sensors, now = part(rows, "SENSORS"), part(rows, "SOUNDS NOW")
    assert sensors[-1] == f"  … and {30 - len(sensors) + 1} more"
    assert now[-1] == f"  … and {30 - len(now) + 1} more"


def test_late_alerts_say_so_where_there_is_room() -> None:
    table = AlertTable()
    table.hear(replace(END, queued_s=125.0), 0.0)
    assert shown(table, 120)[-1].endswith("4.2 s  came 2 min 05 s late")
