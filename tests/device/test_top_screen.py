"""The picture of `soundpost top`: true to the record, and within the screen whatever it holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.terminal import plain, text_width
from soundpost.device.top_screen import top_rows

RECORD: dict[str, Any] = {
    "schema": "soundpost.monitor/1",
    "device": "porch-pi",
    "version": "0.1.0",
    "time": "2026-11-20T10:00:00.000000Z",
    "time_synced": True,
    "uptime_s": 93_784.0,
    "cpu_percent": 2.13,
    "temperature_c": 51.2,
    "broker": {"state": "connected", "reason": None, "queue": 3, "dropped": 0, "fault": None},
    "sources": [
        {
            "source": "porch",
            "state": "ok",
            "reason": None,
            "gaps": 2,
            "rate_hz": 48_000,
            "model": {"name": "starter", "version": "1.0.0"},
            "rms_dbfs": -33.1,
            "peak_dbfs": -20.4,
            "level": {"calibrated": True, "interval_s": 60.0, "laeq_db": 45.2, "lafmax_db": 60.1},
            "compute_ms": 3.21,
            "scores": [
                {"label": "dog", "score": 0.75, "onset": 0.5, "release": 0.3},
                {"label": "wind", "score": 0.25, "onset": 0.9, "release": 0.3},
                {"label": "smoke_alarm", "score": 0.02, "onset": 0.05, "release": 0.02},
            ],
            "open": [{"label": "smoke_alarm", "score": 0.9, "threshold": 0.05, "since_s": 12.3}],
        }
    ],
}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def mutated(record: Any, draw: st.DrawFn) -> Any:
    """The record with any parts of it replaced by anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(values)
    if isinstance(record, dict):
        return {name: mutated(value, draw) for name, value in record.items()}
    if isinstance(record, list):
        return [mutated(value, draw) for value in record] * draw(st.integers(0, 3))
    return record


@st.composite
def strange_records(draw: st.DrawFn) -> dict[str, Any]:
    record = mutated(RECORD, draw)
    return record if isinstance(record, dict) else {}


def shown(record: dict[str, Any], columns: int = 80, lines: int = 24) -> list[str]:
    return plain(top_rows(record, columns, lines)).split("\n")


@given(strange_records(), st.integers(1, 200), st.integers(1, 60))
def test_any_record_is_shown_within_the_screen(
    record: dict[str, Any], columns: int, lines: int
) -> None:
    rows = top_rows(record, columns, lines)
    assert 1 <= len(rows) <= lines
    assert all(text_width("".join(span.text for span in row)) <= columns for row in rows)


def test_the_picture() -> None:
    rows = shown(RECORD)
    assert rows[0] == "porch-pi  up 1 d 2 h  cpu 2.1 %  51.2 °C  soundpost 0.1.0"
    assert rows[1] == "broker connected  3 events wait  0 given up"
    assert rows[3] == (
        "porch  ok  48 kHz  -33.1 dBFS peak -20.4  3.2 ms a window  2 gaps  starter 1.0.0"
    )
    assert rows[4] == "  60 s: LAeq 45.2  LAFmax 60.1  L10 -  L50 -  L90 - dB SPL"
    # What goes on comes first, be its score low at this instant.
    assert [row.split()[0] for row in rows[5:]] == ["smoke_alarm", "dog", "wind"]
    assert rows[5].endswith("now, 12.3 s")


@pytest.mark.parametrize("score", [0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
def test_a_bar_is_as_long_as_its_score_and_the_mark_stands_at_the_threshold(score: float) -> None:
    record = json.loads(json.dumps(RECORD))
    record["sources"][0]["open"] = []
    record["sources"][0]["scores"] = [{"label": "dog", "score": score, "onset": 0.5}]
    full = shown(record, 120)[-1]
    record["sources"][0]["scores"][0]["onset"] = None
    bare = shown(record, 120)[-1]
    head = len("  ") + 24 + len(" 0.00 ")
    width = 120 - head - len(" now, 12 min 00 s")
    assert abs(len(bare.rstrip()) - head - score * width) <= 1
    assert full[head:].index("│") == pytest.approx(width / 2, abs=1)


def test_what_is_wrong_is_said() -> None:
    record = json.loads(json.dumps(RECORD))
    record["broker"] = {"state": "refused", "reason": "bad user name or password", "queue": 10}
    record["time_synced"] = False
    record["sources"][0] |= {
        "state": "failed",
        "reason": "no such device: mic:USB",
        "rate_hz": None,
    }
    rows = shown(record)
    assert "clock unsure" in rows[0]
    assert rows[1].startswith("broker refused: bad user name or password  10 events wait")
    assert rows[3].startswith("porch  failed  not open")
    assert rows[4] == "  no such device: mic:USB"


@pytest.mark.parametrize("lines", range(3, 30))
def test_every_source_has_its_share(lines: int) -> None:
    record = dict(RECORD)
    record["sources"] = [{**RECORD["sources"][0], "source": f"mic{n}"} for n in range(4)]
    heads = [row.split()[0] for row in shown(record, 80, lines) if "kHz" in row]
    # With a line each they have heads, from two lines on an empty one above each.
    assert heads == [f"mic{n}" for n in range(min(4, lines - 2))]
