"""Discovery payloads against Home Assistant's own rules, frozen from its package.

data/home_assistant_rules.py froze them, and runs Home Assistant's code itself over what
SOUNDPOST_DISCOVERY_DUMP makes this test write.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.home_assistant import (
    AnnouncedSource,
    HomeAssistantSettings,
    component_filter,
    device_topic,
    discovery_messages,
    removals,
    safe_id,
)
from soundpost.device.remote import parse_request
from soundpost.device.topics import Topics
from soundpost.device.updates.model_state import PHASES, ModelState
from soundpost.device.updates.offers import Installed

RULES = json.loads(
    (Path(__file__).parent / "data" / "home_assistant_mqtt.json").read_text(encoding="utf-8")
)
TOPICS = Topics("soundpost", "porch-pi")
MANY = tuple(f"sound_{n}" for n in range(50))
SOURCES = [
    AnnouncedSource("mic0", ("smoke_alarm", "co_alarm", "dog", *MANY), interval_s=60.0),
    AnnouncedSource("Süd Ost", ("Hund bellt!", "Türe"), interval_s=5.0, calibrated=True),
]


def spelt_out(config: dict[str, Any], words: dict[str, str]) -> dict[str, Any]:
    return {words.get(key, key): value for key, value in config.items()}


def entities(messages: dict[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    """What Home Assistant makes of the messages: by platform and unique id, checked by its rules.

    Written after its discovery.py: abbreviations, the device's shared options, `~`.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for topic, text in messages.items():
        place = re.fullmatch(RULES["topic"], topic.partition("/")[2])
        assert place is not None, f"illegal discovery topic {topic}"
        payload = spelt_out(json.loads(text), RULES["abbreviations"])
        device = spelt_out(payload.pop("device"), RULES["device_abbreviations"])
        origin = spelt_out(payload.pop("origin"), RULES["origin_abbreviations"])
        assert set(device) <= set(RULES["device"])
        assert device["identifiers"]
        assert set(origin) <= set(RULES["origin_keys"])
        assert origin["name"]
        if place["component"] == "device":
            parts = [
                spelt_out(part, RULES["abbreviations"])
                for part in payload.pop("components").values()
            ]
            shared = {
                key: payload.pop(key) for key in list(payload) if key in RULES["shared_options"]
            }
            assert not payload, "nothing else stands beside the components"
            configs = [(part.pop("platform"), {**shared, **part}) for part in parts]
        else:
            configs = [(place["component"], payload)]
        for platform, config in configs:
            base = config.pop("~")
            for key, value in config.items():
                if key.endswith("topic"):
                    config[key] = value.replace("~", base, 1)
            for entry in config.get("availability", []):
                for short in list(entry):
                    entry[RULES["abbreviations"].get(short, short)] = entry.pop(short)
                entry["topic"] = entry["topic"].replace("~", base, 1)
            check(platform, config)
            key = (platform, config["unique_id"])
            assert key not in found, "a unique id stands once"
            found[key] = {**config, "device": device}
    return found


# What its update platform knows besides what all have: homeassistant/components/mqtt/update.py
# (Apache-2.0), until the rules are frozen anew.
UPDATE_KEYS = {
    "command_topic",
    "device_class",
    "display_precision",
    "latest_version_template",
    "latest_version_topic",
    "payload_install",
    "release_summary",
    "release_url",
    "retain",
    "state_topic",
    "title",
    "value_template",
}


def rules_of(platform: str) -> dict[str, bool]:
    if platform in RULES["platforms"] or platform != "update":
        return dict(RULES["platforms"][platform])
    shared = set(RULES["platforms"]["sensor"]) & set(RULES["platforms"]["binary_sensor"])
    return dict.fromkeys(shared | UPDATE_KEYS, False)


def check(platform: str, config: dict[str, Any]) -> None:
    known = rules_of(platform)
    assert set(config) <= set(known), set(config) - set(known)
    assert {key for key, needed in known.items() if needed} <= set(config)
    assert config["name"]
    kind = config.get("device_class")
    if platform == "binary_sensor":
        assert kind in RULES["binary_sensor_classes"]
        return
    assert config.get("state_class") in (None, *RULES["state_classes"])
    assert config.get("entity_category") in (None, *RULES["entity_categories"])
    if kind is not None:
        units = RULES["sensor_units"][kind]
        assert config.get("unit_of_measurement") in (units or [None])
    assert ("options" in config) == (kind == "enum")


def said(mode: str, topics: Topics = TOPICS, **changes: Any) -> dict[str, str]:
    return discovery_messages(HomeAssistantSettings(discovery=mode, **changes), topics, SOURCES)  # type: ignore[arg-type]


def test_both_ways_announce_the_same_entities_by_home_assistants_rules() -> None:
    device, component = said("device"), said("component")
    assert list(device) == ["homeassistant/device/porch-pi/config"]
    assert entities(device) == entities(component)
    assert said("off") == {}
    dump = os.environ.get("SOUNDPOST_DISCOVERY_DUMP")
    if dump:
        Path(dump).write_text(json.dumps({**device, **component}), encoding="utf-8")


def test_each_label_of_each_source_has_a_state_of_its_own() -> None:
    found = entities(said("device"))
    states = {
        config["state_topic"]
        for (platform, _), config in found.items()
        if platform == "binary_sensor"
    }
    assert states == {
        TOPICS.state(source.name, label) for source in SOURCES for label in source.labels
    }
    smoke = found["binary_sensor", "soundpost/porch-pi/mic0/class/smoke_alarm"]
    assert smoke["device_class"] == "smoke"
    assert smoke["name"] == "Mic0 smoke alarm"
    assert smoke["availability_mode"] == "all"
    assert smoke["availability"][0] == {
        "topic": TOPICS.status,
        "payload_available": "online",
        "payload_not_available": "offline",
    }
    # A source that does not listen says `failed`: its entities are not available then.
    assert smoke["availability"][1]["topic"] == TOPICS.health("mic0")


def test_of_many_labels_only_alarms_are_enabled_and_those_that_were_asked_for() -> None:
    def enabled(messages: dict[str, str]) -> set[str]:
        return {
            name.rpartition("/")[2]
            for (platform, name), config in entities(messages).items()
            if platform == "binary_sensor" and config.get("enabled_by_default", True)
        }

    few = {"Hund bellt!", "Türe"}
    assert enabled(said("device")) == {"smoke_alarm", "co_alarm", *few}
    assert enabled(said("device", labels=("dog", "Türe"))) == {"dog", "Türe"}


def test_levels_say_their_unit_and_grow_old() -> None:
    found = entities(said("device"))
    plain = found["sensor", "soundpost/porch-pi/mic0/laeq_db"]
    assert plain["unit_of_measurement"] == "dBFS"
    assert "device_class" not in plain
    assert plain["expire_after"] == 180
    calibrated = found["sensor", "soundpost/porch-pi/Süd Ost/laeq_db"]
    assert (calibrated["device_class"], calibrated["unit_of_measurement"]) == (
        "sound_pressure",
        "dBA",
    )
    without = discovery_messages(
        HomeAssistantSettings(discovery="device"), TOPICS, [AnnouncedSource("mic0", ("dog",))]
    )
    assert not any("laeq" in name for _, name in entities(without))


def with_model(can_update: bool) -> dict[str, Any]:
    """The one entity of the model, in full words."""
    messages = discovery_messages(
        HomeAssistantSettings(discovery="device"), TOPICS, SOURCES, can_update
    )
    (found,) = [
        {**config, "platform": platform}
        for (platform, name), config in entities(messages).items()
        if name == "soundpost/porch-pi/model"
    ]
    return found


def test_the_model_has_a_button_where_it_can_be_updated() -> None:
    shown = with_model(can_update=False)
    assert (shown["platform"], shown["entity_category"]) == ("sensor", "diagnostic")
    assert "command_topic" not in shown
    button = with_model(can_update=True)
    assert button["platform"] == "update"
    assert shown["state_topic"] == button["state_topic"] == TOPICS.model_state
    assert button["command_topic"] == TOPICS.cmd("update")
    assert parse_request("update", button["payload_install"].encode()).install is True
    # One is taken back where the other comes.
    wanted = HomeAssistantSettings(discovery="component")
    both = [discovery_messages(wanted, TOPICS, SOURCES, can) for can in (False, True)]
    assert len(removals(*both)) == 1


MODELS = st.builds(
    Installed,
    st.sampled_from(["tiny", "starter"]),
    st.sampled_from(["1.0.0", "1.2.0-rc.1", "2.10.3"]),
    st.sampled_from(["a" * 64, "b" * 64]),
)


@given(
    MODELS,
    st.none() | MODELS,
    st.sampled_from(PHASES),
    st.none() | st.floats(0, 1),
    st.none() | st.text(max_size=400),
)
def test_home_assistant_reads_any_model_state(
    installed: Installed,
    offered: Installed | None,
    phase: Any,
    progress: float | None,
    reason: str | None,
) -> None:
    """By its templates, Jinja's; the keys and kinds are those of MQTT_JSON_UPDATE_SCHEMA."""
    state = ModelState(
        "porch-pi",
        datetime(2026, 11, 20, tzinfo=timezone.utc),
        phase,
        installed,
        offered=offered,
        progress=progress,
        reason=reason,
    )
    values = {"value_json": json.loads(state.to_json())}

    def rendered(can_update: bool) -> str:
        text = with_model(can_update)["value_template"]
        return str(jinja2.Environment().from_string(text).render(values))

    assert rendered(False) == f"{installed.name} {installed.version}"
    found = json.loads(rendered(True))
    latest = offered or installed
    assert found["installed_version"].endswith(installed.version)
    assert found["latest_version"].endswith(latest.version)
    same = (installed.name, installed.version) == (latest.name, latest.version)
    assert (found["installed_version"] == found["latest_version"]) == same
    assert found["title"] == latest.name
    assert type(found["in_progress"]) is bool
    assert found["in_progress"] == (
        phase in ("download", "check", "self_test", "shadow", "swap", "roll_back")
    )
    percentage = found["update_percentage"]
    assert percentage is None or (type(percentage) is int and 0 <= percentage <= 100)
    assert (percentage is None) == (progress is None or not found["in_progress"])
    # Home Assistant refuses longer ones.
    assert found["release_summary"] == (reason or "")[:255]
    assert set(found) == {
        "installed_version",
        "latest_version",
        "title",
        "in_progress",
        "update_percentage",
        "release_summary",
    }


def test_a_message_too_large_for_brokers_becomes_many() -> None:
    sources = [AnnouncedSource(f"mic{n}", MANY) for n in range(12)]
    messages = discovery_messages(HomeAssistantSettings(discovery="device"), TOPICS, sources)
    assert len(messages) > 600
    assert len(entities(messages)) == len(messages)


def test_unless_told_it_announces_to_a_broker_that_was_named() -> None:
    default = HomeAssistantSettings()
    assert default.resolved(True).discovery == "device"
    assert default.resolved(False).discovery == "off"
    off = HomeAssistantSettings(discovery="off")
    assert off.resolved(True).discovery == "off"


NAME = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=20
).filter(
    lambda name: (
        not set(name) & set("/+#")
        and name == name.strip()
        and not name.startswith("$")
        and "\u2028" not in name
        and "\u2029" not in name
    )
)


@settings(max_examples=20, deadline=None)
@given(
    NAME,
    st.lists(NAME, min_size=1, max_size=5, unique=True),
    st.sampled_from(["device", "component"]),
)
def test_any_names_make_legal_topics_and_distinct_entities(
    device_id: str, labels: list[str], mode: str
) -> None:
    topics = Topics("a/b", device_id)
    sources = [
        AnnouncedSource(label, tuple(labels))
        for label in labels
        if label not in ("status", "model", "cmd")
    ]
    wanted = HomeAssistantSettings(discovery=mode)  # type: ignore[arg-type]
    found = entities(discovery_messages(wanted, topics, sources))
    n_labels = sum(platform == "binary_sensor" for platform, _ in found)
    assert n_labels == len(sources) * len(labels)
    for topic in discovery_messages(wanted, topics, sources):
        middle = topic.split("/")[2]
        assert middle == safe_id(device_id)
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", safe_id(device_id))
    assert component_filter(wanted, topics).count("+") == 2


@given(st.lists(NAME, min_size=2, max_size=2), st.lists(NAME, min_size=2, max_size=2))
def test_different_names_have_different_ids(one: list[str], other: list[str]) -> None:
    assert (safe_id(*one) == safe_id(*other)) == (one == other)


def test_what_is_gone_is_taken_back_as_home_assistant_wants_it() -> None:
    before, now = said("device"), said("device", labels=("dog",))
    topic = device_topic(HomeAssistantSettings(), TOPICS)
    marked = removals(before, now)
    assert list(marked) == [topic]
    components = json.loads(marked[topic])["cmps"]
    gone = {key for key, config in components.items() if config == {"p": "binary_sensor"}}
    kept = json.loads(now[topic])["cmps"]
    assert gone == set(json.loads(before[topic])["cmps"]) - set(kept)
    assert {key: components[key] for key in kept} == kept
    # Another way, or none: the old topics are emptied.
    assert removals(before, said("component")) == {topic: ""}
    assert removals(said("component"), {}) == dict.fromkeys(said("component"), "")
    assert removals(before, before) == {}
    assert removals({}, now) == {}


@settings(max_examples=20, deadline=None)
@given(
    st.text(max_size=50)
    | st.recursive(
        st.none() | st.text(max_size=5),
        lambda x: st.dictionaries(st.sampled_from(["cmps", "p", "a"]), x),
    ).map(json.dumps)
)
def test_any_retained_nonsense_is_replaced(payload: str) -> None:
    now = said("device")
    topic = device_topic(HomeAssistantSettings(), TOPICS)
    for payload_now in removals({topic: payload}, now).values():
        assert set(json.loads(now[topic])["cmps"]) <= set(json.loads(payload_now)["cmps"])
