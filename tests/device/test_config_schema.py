"""The schema says what the reader says: the library jsonschema and load_settings as each other's
oracle.
"""

from __future__ import annotations

import inspect
import math
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from soundpost.device.config import load_settings, tomllib
from soundpost.device.config_schema import settings_schema
from soundpost.device.errors import ConfigError, InputError
from soundpost.device.file_source import open_file
from soundpost.device.kinds import Choice, Choices, Flag, Kind, Names, Number
from soundpost.device.microphone_source import open_microphone
from soundpost.device.settings import NAMED_TABLES, SOURCE_OPTIONS, TABLES, TOP

SCHEMA = settings_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ENVIRONMENT = {"STATE_DIRECTORY": "/nowhere"}
# What the schema cannot say: it compares no two values, and a regular expression has no bytes.
BEYOND = (
    *("above onset", "above retry_max_s", "bytes", "which is no character", "leaves no room"),
    *("an address in numbers", "other machines could read", "but a password is given"),
    # Kinds may come with other packages.
    "is no kind of source",
)


def read(content: dict[str, Any]) -> str | None:
    """None where the settings are accepted, else the line that refuses them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.toml"
        (Path(folder) / "secret").write_text("swordfish\n", encoding="utf-8")
        path.write_text(to_toml(content), encoding="utf-8")
        assert tomllib.loads(path.read_text(encoding="utf-8")) == content
        try:
            load_settings(path, environment=ENVIRONMENT)
        except ConfigError as error:
            return str(error)
        except InputError:
            # Of a file that is named and not there a schema knows nothing.
            reject()
    return None


def to_toml(value: Any, top: bool = True) -> str:
    if isinstance(value, dict):
        pairs = [f"{text(key)} = {to_toml(inner, False)}" for key, inner in value.items()]
        return "\n".join(pairs) if top else "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(to_toml(inner, False) for inner in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return text(value) if isinstance(value, str) else repr(value)


def text(value: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ANY = st.one_of(
    st.booleans(),
    st.integers(-10, 100_000),
    st.floats(-10, 1e6),
    TEXTS,
    st.lists(TEXTS, max_size=2),
    st.dictionaries(TEXTS, st.integers(), max_size=1),
)


def usual(key: str, kind: Kind) -> st.SearchStrategy[Any]:
    """Values of a kind, within its range, at its edges and just outside."""
    if key == "password_file":
        return st.just("secret")
    if isinstance(kind, Number):
        edges = [kind.low, kind.high, kind.low - 0.001, kind.high + 1, math.floor(kind.high), 2.5]
        return st.sampled_from([*edges, int(kind.low) + 1])
    if isinstance(kind, (Choice, Choices)):
        one = st.sampled_from(kind.choices)
        return st.lists(one, max_size=3) if isinstance(kind, Choices) else one
    if isinstance(kind, Names):
        return st.lists(st.sampled_from(["dog", "siren", ""]), max_size=3)
    if isinstance(kind, Flag):
        return st.booleans()
    if key == "url":
        # Also without a scheme, and what looks like a drive's letter.
        return st.sampled_from(
            ["mic:", "mic:USB", "file:a.wav", "a.wav", "c:a", ":", "rtp:x", "a:"]
        )
    if key == "channel":
        return st.sampled_from(["mix", 0, 255, 256, 1.0, 1.5, -1, "left"])
    if key == "host":
        return st.sampled_from(
            ["127.0.0.1", "::1", "0.0.0.0", "broker.local", "mqtt://b", "b:1883", "[::1]", "b\n"]
        )
    return st.sampled_from(
        ["a", "a/b", "a b", " a", "a\n", "$a", "a+", "é", "a/ b", "a//b", "x" * 200]
    )


def tables(kinds: dict[str, Kind]) -> st.SearchStrategy[dict[str, Any]]:
    usually = st.fixed_dictionaries(
        {}, optional={key: usual(key, kind) | usual(key, kind) | ANY for key, kind in kinds.items()}
    )
    stray = st.just({}) | st.just({}) | st.just({}) | st.dictionaries(TEXTS, ANY, max_size=1)
    return st.builds(lambda one, other: {**one, **other}, usually, stray)


NAMES = st.sampled_from(["mic0", "porch", "cmd", "a/b", "$a", "dog", "x" * 129, "", "a\n", "é"])
CLASSES = st.dictionaries(NAMES, tables(dict(NAMED_TABLES["class"].kinds)) | ANY, max_size=2)


def of_name(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """One of the tables that stand once for each name; a source's may hold some for its labels."""
    values = tables(dict(NAMED_TABLES[name].kinds))
    if name != "source":
        return values
    classes = st.just({}) | st.fixed_dictionaries({"class": CLASSES | ANY})
    return st.builds(lambda one, other: {**one, **other}, values, classes)


FILES = st.fixed_dictionaries(
    {},
    optional={
        **{key: usual(key, kind) for key, kind in TOP.kinds.items()},
        **{name: tables(dict(table.kinds)) for name, table in TABLES.items()},
        **{name: st.dictionaries(NAMES, of_name(name) | ANY, max_size=2) for name in NAMED_TABLES},
        "mqqt": ANY,
    },
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(FILES)
def test_schema_and_reader_agree(content: dict[str, Any]) -> None:
    refusal = read(content)
    if refusal is None:
        VALIDATOR.validate(content)
    elif VALIDATOR.is_valid(content):
        assert any(reason in refusal for reason in BEYOND), refusal


# One table at a time: with many at once nearly every example is refused for several reasons.
@pytest.mark.parametrize("name", [*TABLES, *NAMED_TABLES])
def test_each_table_agrees(name: str) -> None:
    table = TABLES.get(name) or NAMED_TABLES[name]

    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(tables(dict(table.kinds)))
    def agrees(values: dict[str, Any]) -> None:
        content = {name: {"porch": values} if name in NAMED_TABLES else values}
        refusal = read(content)
        if refusal is None:
            VALIDATOR.validate(content)
        elif VALIDATOR.is_valid(content):
            assert any(reason in refusal for reason in BEYOND), refusal

    agrees()


def test_it_is_a_schema_with_a_word_on_every_key() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for name in TABLES:
        for key, value in SCHEMA["properties"][name]["properties"].items():
            assert len(value["description"]) > 10, (name, key)
    onset = SCHEMA["properties"]["class"]["additionalProperties"]["properties"]["onset"]
    assert (onset["type"], onset["minimum"], onset["maximum"]) == ("number", 0.01, 1.0)
    assert SCHEMA["properties"]["levels"]["properties"]["interval_s"]["default"] == 60.0


def test_defaults_of_sources_are_those_of_their_openers() -> None:
    for scheme, opener in [("mic", open_microphone), ("file", open_file)]:
        signature = inspect.signature(opener).parameters
        table = SOURCE_OPTIONS[scheme]
        for key in table.kinds:
            assert table.default(key) == signature[key].default, (scheme, key)
