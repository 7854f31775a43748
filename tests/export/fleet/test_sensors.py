"""Which sensors are worst, and which were meant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_examples import NEW, NOW, sensor, with_health
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import UsageError
from soundpost.export.fleet.sensors import (
    FACTS,
    LEVELS,
    Condition,
    choose_sensors,
    trouble,
    worst_first,
)

# One of each kind, from the worst on; names against the order.
KINDS = {
    "z-offline": replace(sensor("z-offline"), online=False),
    "y-deaf": with_health(sensor("y-deaf"), "failed", "unplugged"),
    "x-update": sensor("x-update", result="rolled_back", reason="deaf to dogs", result_time=NOW),
    "w-degraded": with_health(sensor("w-degraded"), "degraded", "overflows"),
    "v-drifted": sensor("v-drifted", drift=0.3),
    "u-silent": replace(sensor("u-silent"), state=None),
    "a-well": sensor("a-well", drift=0.2, result="deferred", result_time=NOW),
    "b-paused": with_health(sensor("b-paused"), "paused", "told so"),
}


@given(st.permutations(list(KINDS.values())))
def test_the_worst_come_first(shuffled: list[object]) -> None:
    assert [one.device for one in worst_first(shuffled)] == list(KINDS)  # type: ignore[arg-type]


def test_each_has_its_line() -> None:
    found = {device: trouble(one) for device, one in KINDS.items()}
    assert [level for level, _ in found.values()] == [*LEVELS, "well"]
    assert found["y-deaf"][1] == "mic0 does not hear: unplugged"
    assert found["x-update"][1] == "rolled back: deaf to dogs"
    assert found["w-degraded"][1] == "mic0: overflows"
    assert found["u-silent"][1].startswith("tells nothing of its model")
    assert trouble(replace(sensor(), online=None))[1] == "has no status on the broker"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("status=offline", {"z-offline"}),
        ("health=failed", {"y-deaf"}),
        ("health!=ok", {"y-deaf", "w-degraded", "b-paused"}),
        ("result=r*", {"x-update"}),
        ("version=1.*", set(KINDS) - {"u-silent"}),
        ("version=", {"u-silent"}),
        ("channel!=stable", {"u-silent"}),
        ("device=[xy]-*", {"y-deaf", "x-update"}),
    ],
)
def test_conditions(condition: str, expected: set[str]) -> None:
    assert set(choose_sensors(KINDS, (), [Condition.parse(condition)])) == expected


def test_patterns_and_conditions_go_together() -> None:
    model = Condition.parse("model=mine")
    assert list(choose_sensors(KINDS, ["[ab]-*", "z-offline"], [model])) == [
        "a-well",
        "b-paused",
        "z-offline",
    ]
    newer = {"hall": sensor("hall", installed=NEW)}
    assert choose_sensors(newer, ["*"], [Condition.parse("version=1.0.0")]) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [("verson=1", "did you mean version?"), ("version", "NAME=PATTERN"), ("=x", FACTS[0])],
)
def test_no_conditions(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        Condition.parse(text)
    assert told in str(caught.value)


def test_a_pattern_that_nobody_matches() -> None:
    with pytest.raises(UsageError, match=r"no sensor 'a-wel' .* did you mean a-well\?"):
        choose_sensors(KINDS, ["a-wel"], [])
