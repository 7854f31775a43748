"""When an update may begin, and which settings contradict."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import UsageError
from soundpost.device.updates.update_settings import UpdateSettings

MINUTES = st.integers(0, 24 * 60 - 1)


def minutes(first: int, last: int) -> set[int]:
    """By walking from the first minute to the last, which is not among them."""
    walked = {first}
    while (at := (first + len(walked)) % (24 * 60)) not in (last, first):
        walked.add(at)
    return walked


@given(first=MINUTES, last=MINUTES, minute=MINUTES, second=st.integers(0, 59))
def test_the_hours_are_those_that_the_clock_passes_through(
    first: int, last: int, minute: int, second: int
) -> None:
    hours = f"{first // 60:02}:{first % 60:02}-{last // 60:02}:{last % 60:02}"
    known = UpdateSettings(hours=hours)
    now = datetime(2026, 11, 29, minute // 60, minute % 60, second)
    wait_s = known.until_hours_s(now)
    assert (wait_s == 0.0) == (minute in minutes(first, last))
    assert 0.0 <= wait_s < 86_400.0
    assert known.hours_s == 60 * len(minutes(first, last))
    # Whoever waits so long comes in time, and no earlier.
    assert known.until_hours_s(now + timedelta(seconds=wait_s)) == 0.0
    if wait_s > 0.0:
        assert known.until_hours_s(now + timedelta(seconds=wait_s - 1.0)) > 0.0


def test_without_hours_it_may_begin_at_any_time() -> None:
    assert UpdateSettings().until_hours_s(datetime(2026, 11, 29, 3)) == 0.0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"repository": "https://models.example"}, "root is missing"),
        ({"install": "never"}, "install must be automatic or ask, found 'never'"),
        ({"channel": "a/b"}, "channel must be a name"),
        ({"hours": "2-5"}, "hours must be two times of day"),
        ({"hours": "24:00-05:00"}, "hours must be two times of day"),
    ],
)
def test_what_contradicts_is_one_line(given: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        UpdateSettings(**given)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_off_unless_a_repository_is_named() -> None:
    assert UpdateSettings().repository is None
    assert UpdateSettings(repository="/srv/models", root=Path("root.json")).repository
