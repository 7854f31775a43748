"""Who takes part and in which wave: everybody in one place, and always the same one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fleet_examples import NEW, NOW, OLD, offer, sensor, with_health
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import UsageError
from soundpost.device.updates.offers import Installed, choose
from soundpost.export.fleet.plan import find_offer, in_waves, order, plan_roll_out
from soundpost.export.fleet.sensors import Sensor
from soundpost.export.fleet.settings import RollOutSettings, parse_waves

DEVICES = st.sets(st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True).filter(lambda x: x[0] != "-"))
WAVES = st.sampled_from(["100%", "5%,25%,100%", "1,10,100%", "1%,2,50%,100%", "3,100%"])


def plan(sensors: dict[str, Sensor], waves: str = "1,3,100%", **settings: Any) -> Any:
    offers = {
        "mine-1.0.0.bundle": offer(OLD, channels=("stable",)),
        "mine-1.1.0.bundle": offer(channels=("canary",)),
    }
    return plan_roll_out(
        offers,
        offers["mine-1.1.0.bundle"],
        "stable",
        sensors,
        sensors,
        RollOutSettings(parse_waves(waves), **settings),
        NOW,
    )


@given(DEVICES, WAVES)
def test_every_sensor_has_one_place(devices: set[str], waves: str) -> None:
    """Waves are a partition, none is empty, and each ends where its amount says."""
    parsed = parse_waves(waves)
    drawn = order(NEW, "stable", devices)
    cut = in_waves(drawn, parsed)
    assert [device for wave in cut for device in wave] == drawn
    assert sorted(drawn) == sorted(devices)
    assert all(cut)
    ends = {sum(map(len, cut[: number + 1])) for number in range(len(cut))}
    assert ends <= {amount.of(len(devices)) for amount in parsed}


@given(DEVICES, st.randoms(use_true_random=False))
def test_the_order_is_of_names_and_model_alone(devices: set[str], rng: Any) -> None:
    shuffled = sorted(devices)
    rng.shuffle(shuffled)
    assert order(NEW, "stable", shuffled) == order(NEW, "stable", devices)
    # Another sensor more or less moves none past another.
    fewer = shuffled[::2]
    kept = [device for device in order(NEW, "stable", devices) if device in fewer]
    assert order(NEW, "stable", fewer) == kept


def test_canaries_differ_between_roll_outs() -> None:
    """Of 400 models no sensor of 20 is the first of more than twice its share (p < 1e-4)."""
    devices = [f"sensor-{number}" for number in range(20)]
    first = [
        order(Installed("m", "1.0.0", f"{number:064x}"), "stable", devices)[0]
        for number in range(400)
    ]
    counts = [first.count(device) for device in devices]
    assert max(counts) <= 42
    assert min(counts) >= 4


def test_one_line_for_each_that_is_left_out() -> None:
    fine = sensor("fine")
    sensors = {
        "fine": fine,
        "gone": replace(sensor("gone"), online=False),
        "silent": replace(sensor("silent"), state=None),
        "off": sensor("off", phase="off", channel=None),
        "canary": sensor("canary", channel="canary"),
        "pinned": sensor("pinned"),
        "deaf": with_health(sensor("deaf"), "failed", "unplugged"),
        "trying": sensor("trying", phase="probation", confirmed=False),
        "done": sensor("done", installed=NEW),
        "newer": sensor("newer", installed=Installed("mine", "2.0.0", "2" * 64)),
        "odd name": sensor("odd name"),
    }
    elsewhere = offer(Installed("loud", "1.0.0", "3" * 64), devices=("pinned",))
    offers = {one.path: one for one in (offer(OLD, channels=("stable",)), offer(), elsewhere)}
    known = set(sensors)
    made = plan_roll_out(
        offers,
        offers["mine-1.1.0.bundle"],
        "stable",
        {**sensors, "stranger": sensor("stranger")},
        known,
        RollOutSettings(),
        NOW,
    )
    assert [member.device for member in made.members] == ["fine"]
    told = dict(made.skipped)
    assert sorted([*told, "fine"]) == sorted([*sensors, "stranger"])
    later = "it takes the model from 'stable' at the end"
    assert told["gone"] == f"offline; {later}, once it is back"
    assert told["silent"].startswith("it tells nothing of its model")
    assert told["off"].startswith("its updates are off")
    assert told["canary"] == "it follows channel 'canary'"
    assert told["pinned"] == "pinned to loud 1.0.0"
    assert told["deaf"].startswith("mic0 does not hear (unplugged), so that it could not be")
    assert told["trying"] == f"on probation with mine 1.0.0; {later}"
    assert told["done"] == "is installed"
    assert told["newer"] == "no newer than the 2.0.0 installed" or told["newer"].startswith("older")
    assert told["stranger"].startswith("unknown to the repository (--new-devices")
    assert told["odd name"].startswith("its id is none that a repository can name")
    assert all("\n" not in line for line in told.values())


def test_a_model_for_another_front_end_is_for_nobody() -> None:
    """Judged as each device judges it: by computing the hash of what it would hear with."""
    strange = offer(front_end_hash="f" * 64)
    offers = {strange.path: strange}
    made = plan_roll_out(
        offers, strange, "stable", {"hall": sensor()}, {"hall"}, RollOutSettings(), NOW
    )
    assert made.members == ()
    assert made.skipped[0][1].startswith("was made for another front end")


@given(st.sampled_from(["0.9.0", "1.0.0", "1.1.0", "1.2.0-rc.1"]), st.booleans(), st.booleans())
def test_who_is_asked_would_take_it(version: str, older: bool, same_name: bool) -> None:
    """The oracle is the function by which a sensor chooses, given what it will then be offered."""
    name = "mine" if same_name else "other"
    one = sensor("hall", installed=Installed(name, version, f"{len(version):064x}"))
    new = offer(channels=("canary",))
    made = plan_roll_out(
        {new.path: new},
        new,
        "stable",
        {"hall": one},
        {"hall"},
        RollOutSettings(allow_older=older),
        NOW,
    )
    seen = replace(new, devices=("hall",), allow_older=older)
    assert one.state is not None
    takes = choose([seen], "hall", "stable", one.state.installed).offer is not None
    assert bool(made.members) is takes


def test_a_channel_that_has_it_already_or_a_newer_one() -> None:
    newer = offer(Installed("mine", "2.0.0", "2" * 64), channels=("stable",))
    for channel_has, told in (
        (offer(channels=("stable",)), "has mine 1.1.0 already"),
        (newer, "is older"),
    ):
        offers = {one.path: one for one in (channel_has, offer())}
        with pytest.raises(UsageError, match=told):
            plan_roll_out(
                {**{offer().path: offer()}, channel_has.path: channel_has},
                offers[offer().path],
                "stable",
                {},
                (),
                RollOutSettings(),
                NOW,
            )


def test_what_a_sensor_said_before_is_remembered() -> None:
    """So that it is not taken for what the roll-out has done."""
    before = sensor("hall", result="rolled_back", reason="x", result_time=NOW, drift=0.4)
    (member,) = plan({"hall": before}).members
    assert member.result_before is not None
    assert member.drifted_before


@pytest.mark.parametrize("name", ["mine-1.1.0", "mine-1.1.0.bundle"])
def test_a_model_by_its_name(name: str) -> None:
    offers = {offer().path: offer()}
    assert find_offer(offers, name) == offer()
    with pytest.raises(UsageError, match=r"there is mine-1\.1\.0"):
        find_offer(offers, "mine-1.1")
