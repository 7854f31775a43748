"""The record of an example: nothing is lost on the way, and what is out of order is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from soundpost.device.errors import InputError
from soundpost.device.events import ModelRef
from soundpost.device.feedback.example import Example

Make = Callable[..., tuple[Example, bytes]]

# As it was when this schema was made: what is on disks and on its way must stay readable.
FROZEN = (
    '{"schema":"soundpost.example/1","id":"01a1f9f6-5929-7765-ae3d-59a5c7d8821c","device":"porch-pi"'
    ',"source":"mic0","time":"2026-11-20T17:17:07.450686Z","time_synced":true,"stream":'
    '"01a1f9f6-2de9-74e2-8eed-7620a3053d98","sample":73400,"rate_hz":16000,"length_s":3.0,"label":'
    '"dog","reason":"disagreement","score":0.61,"threshold":0.5,"new_score":0.12,"top":["dog",'
    '"rooster"],"model":{"name":"starter","version":"1.0.0","sha256":'
    '"fd46f688716113793dda2093920c984715781c69a9936dde31f78e283e8f13df"},"what":"clips","n_bytes":'
    '61234,"sha256":"9f46f688716113793dda2093920c984715781c69a9936dde31f78e283e8f13df","seen":4,'
    '"collected":false}'
)


def test_the_frozen_example() -> None:
    example = Example.from_json(FROZEN)
    assert example.to_json() == FROZEN
    assert (example.label, example.new_score, example.top) == ("dog", 0.12, ("dog", "rooster"))
    assert example.model == ModelRef(
        "starter", "1.0.0", "fd46f688716113793dda2093920c984715781c69a9936dde31f78e283e8f13df"
    )
    assert (example.day, example.file) == ("2026-11-20", f"{example.id}.flac")
    assert replace(example, what="features").file == f"{example.id}.npz"


def test_fields_of_a_later_version_are_kept() -> None:
    later = FROZEN[:-1] + ',"mood":[1,{"a":null}]}'
    assert Example.from_json(later).to_json() == later


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "../../etc/passwd", "lower-case UUIDv7"),
        ("schema", "soundpost.example/2", "update the older"),
        ("label", "a/b", "contains '/'"),
        ("label", "a\nb", "control character"),
        ("device", "..\u202e/", "contains '/'"),
        ("source", "cmd", "reserved"),
        ("reason", "boredom", "one of uncertain"),
        ("what", "video", "one of clips"),
        ("score", 1.5, "0 to 1"),
        ("new_score", -0.1, "0 to 1"),
        ("top", ["x"] * 17, "few labels"),
        ("top", "dog", "list of labels"),
        ("sha256", "zz", "64 hex"),
        ("n_bytes", 4_000_001, "at most"),
        ("n_bytes", 0, "more than 0"),
        ("length_s", 0, "more than 0"),
        ("time", "yesterday", "RFC 3339"),
        ("collected", "no", "true or false"),
    ],
)
def test_what_is_not_in_order_is_refused(field: str, value: object, message: str) -> None:
    record = {**json.loads(FROZEN), field: value}
    with pytest.raises(InputError, match=message):
        Example.from_json(json.dumps(record))


@pytest.mark.parametrize("field", sorted(json.loads(FROZEN)))
def test_each_field_is_needed(field: str) -> None:
    record = json.loads(FROZEN)
    del record[field]
    with pytest.raises(InputError, match=field):
        Example.from_json(json.dumps(record))
