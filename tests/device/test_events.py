from __future__ import annotations

import json
import math
import re
import threading
import time
import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client, topic_matches_sub
from paho.mqtt.enums import CallbackAPIVersion

from soundpost.device.errors import InputError, UsageError
from soundpost.device.events import ModelRef, SoundEvent, event_json_schema
from soundpost.device.health import Gap, Health, health_json_schema
from soundpost.device.identifiers import format_time, parse_time, uuid7
from soundpost.device.level_record import LevelRecord, level_json_schema
from soundpost.device.records import MAX_RECORD_BYTES
from soundpost.device.topics import (
    MAX_NAME_BYTES,
    RESERVED_SOURCES,
    Topics,
    check_base_topic,
    check_name,
    command_result_filter,
    event_filter,
    health_filter,
    model_state_filter,
    status_filter,
)

EXAMPLES = Path(__file__).parent / "examples"
ID = "01932f3a-7a00-7abc-8def-0123456789ab"
STREAM = "01932f3a-0000-7000-9000-00000000000f"

START = SoundEvent(
    id=ID,
    device="porch-pi",
    source="mic0",
    label="smoke_alarm",
    phase="start",
    score=0.97,
    threshold=0.62,
    onset=datetime(2026, 11, 20, 10, 0, 1, 250_000, timezone.utc),
    offset=None,
    time_synced=True,
    stream=STREAM,
    sample=20_000,
    rate_hz=16_000,
    model=ModelRef("starter", "1.0.0", "ab" * 32),
)
HEALTH = Health(
    device="porch-pi",
    source="mic0",
    time=datetime(2026, 11, 20, 10, 0, 0, 0, timezone.utc),
    state="degraded",
    reason="the microphone lost 0.1 s",
    uptime_s=3600.5,
    streams=2,
    gaps=1,
    overflows=2,
    lost_s=0.1,
    last_gap=Gap(STREAM, 48_000, 1_600),
    queue=3,
    dropped=0,
    clips={"written": 4, "gated": 2, "unjudged": 1, "failed": 0},
    temperature_c=51.5,
    cpu_percent=None,
)
LEVEL = LevelRecord(
    device="porch-pi",
    source="mic0",
    time=datetime(2026, 11, 20, 10, 0, 0, 0, timezone.utc),
    time_synced=True,
    stream=STREAM,
    sample=2_880_000,
    rate_hz=16_000,
    interval_s=60.0,
    measured_s=59.4,
    gaps=1,
    calibrated=True,
    upper_limit_hz=7_200.0,
    laeq_db=54.3,
    lceq_db=61.0,
    lafmax_db=71.9,
    lasmax_db=66.2,
    l10_db=57.1,
    l50_db=50.2,
    l90_db=None,
    rms_dbfs=-58.4,
    peak_dbfs=-31.0,
    bands_db={"20": 40.1, "31.5": 42.5},
)


# --- identifiers


def test_uuid7_is_what_rfc_9562_says() -> None:
    before_ms = time.time_ns() // 1_000_000
    text = uuid7()
    after_ms = time.time_ns() // 1_000_000
    read = uuid.UUID(text)
    assert str(read) == text
    assert read.version == 7
    assert read.variant == uuid.RFC_4122
    # Earlier tests may have run the clock ahead by the few milliseconds that an overflow adds.
    assert before_ms <= read.int >> 80 <= after_ms + 5


def test_uuid7_grows_in_each_thread_and_never_repeats() -> None:
    issued: list[list[str]] = [[] for _ in range(4)]

    def issue(into: list[str]) -> None:
        into.extend(uuid7() for _ in range(5_000))

    threads = [threading.Thread(target=issue, args=(into,)) for into in issued]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in issued:
        assert one == sorted(one)
    assert len(set().union(*issued)) == 20_000


def test_uuid7_grows_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = time.time_ns()
    earlier = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns - 3600 * 10**9)
    later = [uuid7() for _ in range(100)]
    assert [earlier, *later] == sorted([earlier, *later])


# --- times


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_time_text_and_instant_are_one_to_one(moment: datetime) -> None:
    text = format_time(moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert parse_time(text) == moment


def test_time_in_another_zone_is_the_same_instant_in_utc() -> None:
    moment = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(moment) == "2025-12-31T23:30:00.000000Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T10:00:01Z",
        "2026-11-20T10:00:01.250000",
        "2026-11-20T10:00:01.250000+01:00",
        "2026-11-20 10:00:01.250000Z",
        "2026-13-20T10:00:01.250000Z",
        "２026-11-20T10:00:01.250000Z",
        "",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|month"):
        parse_time(text)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2026, 1, 1))
    with pytest.raises(InputError, match="onset: expected a time with a zone"):
        replace(START, onset=datetime(2026, 1, 1))


# --- names and topics


@given(st.text(max_size=20))
def test_an_accepted_name_is_exactly_one_level_that_clients_and_filters_agree_on(name: str) -> None:
    try:
        check_name(name)
    except UsageError:
        return
    topic = f"soundpost/{name}/mic0/event"
    # Oracle: paho refuses to publish to what is no topic, and matches filters by the standard.
    Client(CallbackAPIVersion.VERSION2).publish(topic, b"", qos=0)
    assert topic_matches_sub("soundpost/+/mic0/event", topic)
    assert not topic_matches_sub("soundpost/+/+/+/event", topic)


@given(
    st.text("abc é木_-. ", max_size=5),
    st.sampled_from(["/", "+", "#", "\0", "\n", "\x1b", "\x9b", "\ud800", "\uffff", "\u2028"]),
    st.text("abc", max_size=5),
)
def test_a_name_with_a_forbidden_character_is_refused(left: str, bad: str, right: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        check_name(left + bad + right)


@pytest.mark.parametrize("name", ["", "$SYS", " a", "a ", "é" * (MAX_NAME_BYTES // 2) + "a"])
def test_other_bad_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "smoke_alarm", "dog bark", "Küche", "é" * 64, "a$"])
def test_good_names_pass(name: str) -> None:
    assert check_name(name) == name


def test_topics_are_those_of_the_contract() -> None:
    topics = Topics("soundpost", "porch-pi")
    assert topics.status == "soundpost/porch-pi/status"
    assert topics.event("mic0") == "soundpost/porch-pi/mic0/event"
    assert topics.state("mic0", "dog bark") == "soundpost/porch-pi/mic0/class/dog bark"
    assert topics.level("mic0") == "soundpost/porch-pi/mic0/level"
    assert topics.health("mic0") == "soundpost/porch-pi/mic0/health"
    assert topics.model_state == "soundpost/porch-pi/model/state"
    assert topics.cmd("pause") == "soundpost/porch-pi/cmd/pause"
    assert topics.cmd_result("pause") == "soundpost/porch-pi/cmd/pause/result"


def test_reserved_words_are_no_sources() -> None:
    assert {"status", "model", "cmd"} == RESERVED_SOURCES
    topics = Topics("soundpost", "porch-pi")
    for name in RESERVED_SOURCES:
        for topic in (topics.event, topics.level, topics.health):
            with pytest.raises(UsageError, match="reserved"):
                topic(name)
        with pytest.raises(InputError, match="reserved"):
            replace(START, source=name)


def test_filters_match_the_topics_and_only_those() -> None:
    topics = Topics("home/sound", "porch-pi")
    assert topic_matches_sub(event_filter("home/sound"), topics.event("mic0"))
    assert topic_matches_sub(event_filter("home/sound", "porch-pi"), topics.event("mic0"))
    assert topic_matches_sub(status_filter("home/sound"), topics.status)
    others = (topics.status, topics.event("mic0"), topics.level("mic0"), topics.cmd("update"))
    for topic_filter, topic in (
        (model_state_filter, topics.model_state),
        (health_filter, topics.health("mic0")),
        (partial(command_result_filter, name="update"), topics.cmd_result("update")),
    ):
        for device in (None, "porch-pi"):
            assert topic_matches_sub(topic_filter("home/sound", device_id=device), topic)
            assert not any(
                topic_matches_sub(topic_filter("home/sound", device_id=device), other)
                for other in others
            )
        assert not topic_matches_sub(topic_filter("home/sound", device_id="attic"), topic)
    assert not topic_matches_sub(event_filter("home/sound", "attic"), topics.event("mic0"))
    assert not topic_matches_sub(event_filter("home/sound"), topics.state("mic0", "event"))
    assert not topic_matches_sub(event_filter("home/sound"), topics.cmd("reload"))
    assert not topic_matches_sub(event_filter("home/sound"), topics.cmd_result("reload"))


@pytest.mark.parametrize("name", ["event", "class", "level", "health", "a/b", ""])
def test_a_command_cannot_look_like_a_source(name: str) -> None:
    with pytest.raises(UsageError, match="command"):
        Topics("soundpost", "porch-pi").cmd(name)


@pytest.mark.parametrize("base", ["", "/a", "a/", "a//b", "a/+", "#", "$share/x", "a" * 600])
def test_bad_base_topics_are_refused(base: str) -> None:
    with pytest.raises(UsageError, match="base topic"):
        check_base_topic(base)


# --- records


names = st.text("abcdefghij_-é木 ", min_size=1, max_size=20).filter(
    lambda text: text == text.strip() and text not in RESERVED_SOURCES
)
units = st.floats(0, 1)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(timezone.utc))
unknown = st.dictionaries(
    st.text(min_size=1, max_size=8).map("x_".__add__),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=4,
    ),
    max_size=3,
)


@st.composite
def events(draw: st.DrawFn) -> SoundEvent:
    phase = draw(st.sampled_from(["start", "update", "end"]))
    onset = draw(moments)
    lasting = timedelta(microseconds=draw(st.integers(0, 10**10)))
    return SoundEvent(
        id=uuid7(),
        device=draw(names),
        source=draw(names),
        label=draw(names),
        phase=phase,  # type: ignore[arg-type]
        score=draw(units),
        threshold=draw(units),
        onset=onset,
        offset=onset + lasting if phase == "end" else None,
        time_synced=draw(st.booleans()),
        stream=uuid7(),
        sample=draw(st.integers(0, 2**63 - 1)),
        rate_hz=draw(st.integers(1, 192_000)),
        queued_s=draw(st.floats(0, 1e9)),
        level_dba=draw(st.none() | st.floats(-50, 150)),
        model=ModelRef(draw(st.text()), draw(st.text()), "0f" * 32, draw(unknown)),
        clip=draw(st.none() | st.text()),
        report=draw(st.none() | st.integers(0, 10**6)),
        extra=draw(unknown),
    )


@given(events())
def test_an_event_is_the_same_after_writing_and_reading(event: SoundEvent) -> None:
    text = event.to_json()
    assert "\n" not in text
    assert SoundEvent.from_json(text) == event
    assert SoundEvent.from_json(text.encode("utf-8", "surrogatepass").decode("utf-8")) == event


def test_the_event_example_is_frozen_byte_for_byte() -> None:
    frozen = (EXAMPLES / "event-1.json").read_bytes()
    assert (START.to_json() + "\n").encode() == frozen
    assert SoundEvent.from_json(frozen) == START


def test_the_health_example_is_frozen_byte_for_byte() -> None:
    frozen = (EXAMPLES / "health-1.json").read_bytes()
    assert (HEALTH.to_json() + "\n").encode() == frozen
    assert Health.from_json(frozen) == HEALTH


def test_the_level_example_is_frozen_byte_for_byte() -> None:
    frozen = (EXAMPLES / "level-1.json").read_bytes()
    assert (LEVEL.to_json() + "\n").encode() == frozen
    assert LevelRecord.from_json(frozen) == LEVEL
    plain = replace(LEVEL, bands_db=None, upper_limit_hz=None, extra={"leq_z": [1]})
    assert LevelRecord.from_json(plain.to_json()) == plain


def test_unknown_fields_are_kept_where_they_were() -> None:
    data = json.loads(START.to_json())
    data["direction_deg"] = 12.5
    data["model"]["teacher"] = "T"
    event = SoundEvent.from_json(json.dumps(data))
    assert event.extra == {"direction_deg": 12.5}
    assert json.loads(event.to_json()) == data


def test_duration_is_offset_minus_onset() -> None:
    end = replace(START, phase="end", offset=START.onset + timedelta(seconds=4.25))
    assert START.duration_s is None
    assert end.duration_s == 4.25


WRONG: list[tuple[str, Any, str]] = [
    ("schema", "soundpost.event/2", "'schema': expected 'soundpost.event/1'"),
    ("id", "no-uuid", "id: expected a lower-case UUIDv7"),
    ("id", str(uuid.UUID(int=0, version=4)), "id: expected a lower-case UUIDv7"),
    ("device", "a/b", "device id 'a/b'"),
    ("source", 1, "'source': expected text, found 1"),
    ("label", "", "label ''"),
    ("phase", "middle", "'phase': expected start, update or end, found 'middle'"),
    ("score", 1.5, "score: expected 0 to 1, found '1.5'"),
    ("score", "0.5", "'score': expected a number"),
    ("score", True, "'score': expected a number"),
    ("score", 10**400, "'score': expected a number"),
    ("onset", "yesterday", "'onset': expected RFC 3339"),
    ("onset", None, "'onset': expected RFC 3339"),
    ("offset", "2026-11-20T10:00:02.000000Z", "offset: expected null in phase start"),
    ("time_synced", 1, "'time_synced': expected true or false"),
    ("stream", None, "'stream': expected text"),
    ("sample", -1, "sample: expected 0 or more"),
    ("sample", 1.0, "'sample': expected a whole number"),
    ("rate_hz", 0, "rate_hz: expected more than 0"),
    ("queued_s", -1, "queued_s: expected 0 or more"),
    ("level_dba", "loud", "'level_dba': expected a number"),
    ("model", None, "'model': expected an object"),
    ("model", {"name": "m", "version": "1", "sha256": "ab"}, "sha256: expected 64 hex digits"),
    ("clip", 7, "'clip': expected text or null"),
    ("sample", 2**63, "sample: expected at most 63 bits"),
    ("rate_hz", 10**30, "rate_hz: expected at most 63 bits"),
    ("report", 2**63, "report: expected at most 63 bits"),
    ("report", -1, "report: expected 0 or more"),
    ("report", None, "'report': expected a whole number"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any, message: str) -> None:
    data = json.loads(START.to_json())
    data[name] = value
    with pytest.raises(InputError) as caught:
        SoundEvent.from_json(json.dumps(data))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", list(json.loads(START.to_json())))
def test_each_field_is_required(name: str) -> None:
    data = json.loads(START.to_json())
    del data[name]
    with pytest.raises(InputError, match=f"field '{name}' is missing"):
        SoundEvent.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phase": "end"}, "offset: expected a time"),
        ({"phase": "end", "offset": START.onset - timedelta(seconds=1)}, "not before the onset"),
        ({"score": float("nan")}, "score: expected 0 to 1"),
        ({"level_dba": float("inf")}, "level_dba: expected finite"),
    ],
)
def test_an_event_that_makes_no_sense_cannot_be_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(START, **changes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('"onset":"0001-01-01T00:00:00.000000Z"', "onset: expected a year from 1900 to 9998"),
        ('"onset":"9999-12-31T23:59:59.000000Z"', "onset: expected a year from 1900 to 9998"),
        ('"clip":"\\ud800"', "cannot be passed on"),
        ('"model":{"name":"\\udfff","version":"1","sha256":"%s"}' % ("0" * 64), "cannot be passed"),
        ('"later":{"a":["\\ud800"]}', "cannot be passed on"),
        ('"\\ud800":1', "cannot be passed on"),
        ('"later":1e999', "cannot be passed on"),
    ],
)
def test_what_could_not_be_shown_or_written_again_is_refused(fields: str, message: str) -> None:
    # Of two fields of one name the last counts.
    text = f"{START.to_json()[:-1]},{fields}}}"
    with pytest.raises(InputError, match=message) as caught:
        SoundEvent.from_json(text)
    assert len(str(caught.value).encode().splitlines()) == 1


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore")))
def test_any_other_payload_is_refused_in_one_line(payload: bytes) -> None:
    with pytest.raises(InputError) as caught:
        SoundEvent.from_json(payload)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("payload", [b"[" * 60_000, b"{}" + b" " * MAX_RECORD_BYTES, b'{"a": NaN}'])
def test_hostile_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(InputError, match=r"not JSON|at most"):
        SoundEvent.from_json(payload)


@pytest.mark.parametrize(
    ("name", "value"),
    [("state", "fine"), ("gaps", -1), ("time", "now"), ("source", "cmd"), ("uptime_s", None)],
)
def test_a_wrong_health_is_refused_by_name(name: str, value: Any) -> None:
    data = json.loads(HEALTH.to_json())
    data[name] = value
    with pytest.raises(InputError, match=name):
        Health.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema", "soundpost.level/2"),
        ("source", "cmd"),
        ("time", "now"),
        ("stream", "mic0"),
        ("measured_s", -1),
        ("interval_s", 0),
        ("gaps", 1.5),
        ("calibrated", None),
        ("upper_limit_hz", 0),
        ("laeq_db", None),
        ("l90_db", "quiet"),
        ("bands_db", [1]),
        ("bands_db", {"20": "quiet"}),
    ],
)
def test_a_wrong_level_is_refused_by_name_and_by_the_schema(name: str, value: Any) -> None:
    data = json.loads(LEVEL.to_json())
    data[name] = value
    with pytest.raises(InputError, match=name):
        LevelRecord.from_json(json.dumps(data))
    assert name == "source" or not _agrees(data, level_json_schema())


def test_a_level_that_is_no_number_cannot_be_made() -> None:
    with pytest.raises(InputError, match="lafmax_db: expected finite"):
        replace(LEVEL, lafmax_db=-math.inf)
    with pytest.raises(InputError, match="bands_db 20: expected finite"):
        replace(LEVEL, bands_db={"20": math.nan})


# --- JSON schemas: they list each field that is written, and agree with the reader


def _agrees(value: Any, schema: dict[str, Any]) -> bool:
    """The part of JSON Schema that our documents use, for one value."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    is_kind = {
        "null": value is None,
        "boolean": isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, (int, float)) and not isinstance(value, bool),
        "string": isinstance(value, str),
        "object": isinstance(value, dict),
    }
    if kinds and not any(is_kind[kind] for kind in kinds):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    if is_kind["number"] and value <= schema.get("exclusiveMinimum", -math.inf):
        return False
    if is_kind["number"] and not schema.get("minimum", value) <= value <= schema.get(
        "maximum", value
    ):
        return False
    if is_kind["object"]:
        if any(name not in value for name in schema.get("required", [])):
            return False
        for name, inner in schema.get("properties", {}).items():
            if name in value and not _agrees(value[name], inner):
                return False
        others = schema.get("additionalProperties")
        if isinstance(others, dict) and not all(_agrees(item, others) for item in value.values()):
            return False
        if "if" in schema:
            return _agrees(value, schema["then" if _agrees(value, schema["if"]) else "else"])
    return True


@given(events())
def test_each_event_agrees_with_the_schema(event: SoundEvent) -> None:
    schema = event_json_schema()
    assert schema["required"] == list(json.loads(replace(event, extra={}, report=None).to_json()))
    assert _agrees(json.loads(event.to_json()), schema)


@pytest.mark.parametrize(("name", "value", "_message"), WRONG)
def test_the_schema_refuses_what_the_reader_refuses(name: str, value: Any, _message: str) -> None:
    data = json.loads(START.to_json())
    data[name] = value
    if (name, value) == ("score", 10**400):
        data[name] = 2
    assert not _agrees(data, event_json_schema()), (name, value)


def test_the_health_schema_lists_each_field() -> None:
    data = json.loads(HEALTH.to_json())
    assert health_json_schema()["required"] == list(data)
    assert _agrees(data, health_json_schema())
    assert not _agrees({**data, "state": "fine"}, health_json_schema())


def test_the_level_schema_lists_each_field() -> None:
    data = json.loads(LEVEL.to_json())
    assert level_json_schema()["required"] == list(data)
    assert _agrees(data, level_json_schema())
    assert _agrees({**data, "bands_db": None, "upper_limit_hz": None}, level_json_schema())
