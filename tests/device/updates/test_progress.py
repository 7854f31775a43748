"""What is published of an update: each change once, and nothing that says the same again."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from update_bench import Bench

from soundpost.device.updates.boot import boot
from soundpost.device.updates.model_state import RESULTS, ModelState
from soundpost.device.updates.progress import Progress


@pytest.fixture
def bench(memory_path: Path) -> Bench:
    return Bench(memory_path).start()


def progress(bench: Bench, channel: str | None = "stable") -> Progress:
    """With a clock that never stands still."""
    at = datetime(2026, 11, 29, tzinfo=timezone.utc)

    def utc() -> datetime:
        nonlocal at
        at += timedelta(seconds=1)
        return at

    return Progress("attic", channel, bench.boot, bench.sensor, utc)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.floats(0, 1), min_size=1, max_size=50),
    results=st.lists(st.sampled_from(RESULTS), max_size=3),
)
def test_a_message_for_each_change_and_no_more(
    bench: Bench, parts: list[float], results: list[str]
) -> None:
    bench.sensor.shown.clear()
    told = progress(bench)
    for part in sorted(parts):
        told.phase("download", part)
    for result in results:
        told.result(result, "why")  # type: ignore[arg-type]
        told.phase("idle")
        told.phase("idle")
    shown = [{**state.to_dict(), "time": None} for state in bench.sensor.shown]
    assert all(one != other for one, other in pairwise(shown))
    # A bar takes fifty steps at most, and its end is always shown.
    bars = [state.progress for state in bench.sensor.shown if state.phase == "download"]
    assert len(bars) <= 52
    assert None not in bars
    if 1.0 in parts:
        assert bars[-1] == 1.0
    if results:
        assert told.state.result == results[-1]


def test_the_same_result_again_is_not_written_down_again(bench: Bench) -> None:
    told = progress(bench)
    told.result("unreachable", "the server does not answer")
    first = told.state.result_time
    told.result("unreachable", "the server does not answer")
    assert told.state.result_time == first
    told.result("unreachable", "the server answers 503")
    assert told.state.result_time != first


def test_where_updates_are_off_it_says_so(bench: Bench) -> None:
    state = progress(bench, None).state
    assert (state.phase, state.channel, state.confirmed) == ("off", None, True)
    assert ModelState.from_json(state.to_json()) == state


def test_where_the_folder_cannot_be_used_it_says_why(bench: Bench) -> None:
    second = boot(bench.folder / "models", bench.bundle)
    state = Progress("attic", None, second, bench.sensor).state
    assert state.reason is not None
    assert "another sensor uses it" in state.reason
