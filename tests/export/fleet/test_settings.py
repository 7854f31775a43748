"""What an operator types for waves, times and conditions."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import UsageError
from soundpost.device.records import Fields
from soundpost.export.fleet.settings import (
    DEFAULT_STOPS,
    Amount,
    RollOutSettings,
    parse_duration,
    parse_stops,
    parse_waves,
)

PERCENT = st.integers(1, 100)


@given(PERCENT, st.integers(0, 5_000))
def test_a_share_is_rounded_up_exactly(percent: int, n_sensors: int) -> None:
    """By whole numbers: 7 % of 100 is 7, though 0.07 x 100 is more in binary."""
    assert Amount.parse(f"{percent}%", "x").of(n_sensors) == -(-percent * n_sensors // 100)


@given(PERCENT, st.integers(0, 2_000), st.integers(1, 2_000))
def test_a_share_is_reached_exactly(percent: int, n: int, n_sensors: int) -> None:
    reached = n > 0 and Fraction(n, n_sensors) >= Fraction(percent, 100)
    assert Amount.parse(f"{percent}%", "x").reached_by(n, n_sensors) is reached


@given(st.integers(1, 50), st.integers(0, 100), st.integers(1, 100))
def test_a_count_is_reached_whatever_the_number_of_sensors(limit: int, n: int, many: int) -> None:
    assert Amount(count=limit).reached_by(n, many) is (n >= limit)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1_800), ("2h", 7_200), ("1.5d", 129_600), ("7", 7)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--hold") == seconds


@pytest.mark.parametrize("text", ["", "-1s", "1w", "1h30m", "1e9", "nan", "inf", "91d", " 5 5"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time such as 90s, 30m, 2h or 1d"):
        parse_duration(text, "--hold")


@pytest.mark.parametrize("text", ["100%", "all", "5%,25%,100%", "1,10,100%", "0.5%,100%"])
def test_waves(text: str) -> None:
    waves = parse_waves(text)
    assert waves[-1] == Amount(share=1.0)
    assert len(waves) == text.count(",") + 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("5%,5%,100%", "5% is not more than 5%"),
        ("10,5,100%", "5 is not more than 10"),
        ("5%,25%", "the last one must be 100%"),
        ("0,100%", "a wave of 0"),
        ("0%,100%", "a wave of 0"),
        ("1.5,100%", "expected a count such as 10"),
        ("101%", "a share is at most 100%"),
        ("", "expected a count"),
    ],
)
def test_no_waves(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_waves(text)


def test_conditions_go_over_the_defaults() -> None:
    stops = parse_stops(["rolled-back=2,offline=off", "drift=1%"])
    assert stops == {
        **{kind: amount for kind, amount in DEFAULT_STOPS.items() if kind != "offline"},
        "rolled-back": Amount(count=2),
        "drift": Amount(share=0.01),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rolledback=1", "did you mean rolled-back?"),
        ("zzz=1", "KIND is one of rolled-back, refused, late, offline, deaf, drift"),
        ("late", "expected KIND=AMOUNT"),
        ("late=0", "write late=off"),
        ("late=-1", "--stop-if late '-1': expected a count"),
    ],
)
def test_no_conditions(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_stops([text])
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "times", [{"spread_s": 3_600.0}, {"confirm_s": 3_599.0}, {"install_s": 27 * 3_600.0}]
)
def test_times_that_contradict(times: dict[str, float]) -> None:
    """Else a sensor would be late before it is asked."""
    with pytest.raises(UsageError, match="longer than the one before"):
        RollOutSettings(**times)  # type: ignore[arg-type]


@given(
    st.lists(PERCENT, min_size=0, max_size=4, unique=True),
    st.dictionaries(st.sampled_from(sorted(DEFAULT_STOPS)), st.integers(1, 99).map(str)),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_they_come_back_from_their_file(
    shares: list[int], stops: dict[str, str], hold_s: int, older: bool
) -> None:
    waves = ",".join([*(f"{share}%" for share in sorted(shares) if share < 100), "100%"])
    settings = RollOutSettings(
        parse_waves(waves),
        hold_s=float(hold_s),
        stops={kind: Amount.parse(text, kind) for kind, text in stops.items()},
        allow_older=older,
    )
    table = json.loads(json.dumps(settings.to_dict()))
    assert RollOutSettings.from_fields(Fields(table, "settings")) == settings
