"""What a sensor answers: bounded, in order, the same when asked again; nothing else is obeyed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError, SoundpostError, UsageError
from soundpost.device.feedback.example import Example
from soundpost.device.feedback.feedback import Feedback
from soundpost.device.feedback.feedback_answers import (
    MAX_PART_BYTES,
    PART_BYTES,
    FeedbackAnswers,
    FeedbackRequest,
    parse_feedback_request,
)
from soundpost.device.feedback.feedback_settings import FeedbackSettings
from soundpost.device.identifiers import uuid7
from soundpost.device.mqtt_client import MAX_PACKET_BYTES
from soundpost.device.remote import result_json
from soundpost.device.speech import SpeechGate

Make = Callable[..., tuple[Example, bytes]]
ID = "01a1f9f6-5929-7765-ae3d-59a5c7d8821c"


@pytest.mark.parametrize(
    ("payload", "request_"),
    [
        ({"action": "list"}, FeedbackRequest("list")),
        ({"action": "list", "after": ID, "id": "7"}, FeedbackRequest("list", after=ID)),
        ({"action": "fetch", "example": ID}, FeedbackRequest("fetch", ID, length=PART_BYTES)),
        (
            {"action": "fetch", "example": ID, "offset": 5, "length": 10},
            FeedbackRequest("fetch", ID, offset=5, length=10),
        ),
        (
            {"action": "done", "example": ID, "delete": True},
            FeedbackRequest("done", ID, delete=True),
        ),
    ],
)
def test_requests(payload: Mapping[str, Any], request_: FeedbackRequest) -> None:
    assert parse_feedback_request(json.dumps(payload).encode()) == request_


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "not JSON"),
        (b"{}", "action: expected one of list, fetch, done"),
        (b'{"action": "lost"}', "action: expected one of"),
        (b'{"action": "list", "example": "x"}', "unknown field of list"),
        (b'{"action": "fetch"}', "example: is missing"),
        (b'{"action": "fetch", "example": "../../etc/passwd"}', "expected the id of an example"),
        (b'{"action": "done", "example": "x", "delete": 1}', "delete: expected true or false"),
        (
            b'{"action": "fetch", "example": "%s", "length": 131073}' % ID.encode(),
            "length: expected",
        ),
        (b'{"action": "fetch", "example": "%s", "offset": -1}' % ID.encode(), "offset: expected"),
        (b" " * 5_000, "at most 4096"),
    ],
)
def test_what_is_not_in_order(payload: bytes, message: str) -> None:
    with pytest.raises((UsageError, InputError), match=message):
        parse_feedback_request(payload)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.dictionaries(st.sampled_from(["action", "example", "id", "offset"]), inner)
            | st.lists(inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_is_read_or_refused_in_one_line(payload: bytes) -> None:
    line = ""
    try:
        parse_feedback_request(payload)
    except SoundpostError as error:
        line = str(error)
    assert "\n" not in line


@pytest.fixture
def feedback(tmp_path: Path) -> Iterator[Feedback]:
    # No sound comes here: the gate is never asked.
    gate = SpeechGate.__new__(SpeechGate)
    settings = FeedbackSettings(enabled=True, folder=tmp_path, min_free_mb=0, max_age_days=1e3)
    made = Feedback(settings, "porch-pi", gate=gate)
    yield made
    made.close()


def ask(answers: FeedbackAnswers, **fields: object) -> Mapping[str, Any]:
    return answers.answer(json.dumps(fields).encode())


def test_all_are_listed_page_by_page(feedback: Feedback, make_example: Make) -> None:
    assert feedback.store is not None
    for _ in range(70):
        feedback.store.write(*make_example())
    feedback.store.know(["clap", "rain"])
    answers = FeedbackAnswers(feedback)
    found: list[Mapping[str, Any]] = []
    more = 1
    while more:
        after = {"after": found[-1]["id"]} if found else {}
        answer = ask(answers, action="list", **after)
        assert answer["ok"] is True
        assert ("labels" in answer) == (not found)
        assert len(result_json("feedback", "x" * 64, True, "", answer)) < 65_536
        found += answer["examples"]
        more = answer["more"]
    assert found == [one.to_dict() for one in feedback.store.examples]
    assert len(found) == 70


@given(
    size=st.integers(1, 400_000), length=st.integers(1, MAX_PART_BYTES), offset=st.integers(0, 9)
)
def test_parts_make_the_whole(
    size: int,
    length: int,
    offset: int,
    make_example: Make,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    settings = FeedbackSettings(enabled=True, folder=folder, min_free_mb=0, max_age_days=1e3)
    feedback = Feedback(settings, "porch-pi", gate=SpeechGate.__new__(SpeechGate))
    length = max(length, size // 20 + 1)
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    example, _ = make_example(content=content)
    assert feedback.store is not None
    feedback.store.write(example, content)
    answers = FeedbackAnswers(feedback)
    whole, at = content[:offset], min(offset, size)
    while at < size:
        answer = ask(answers, action="fetch", example=example.id, offset=at, length=length)
        assert answer["sha256"] == example.sha256
        assert len(result_json("feedback", "x" * 64, True, "", answer)) < MAX_PACKET_BYTES - 1_000
        part = base64.b64decode(answer["data"])
        assert 0 < len(part) <= length
        whole += part
        at += len(part)
    assert whole == content
    feedback.close()


def test_done_is_done_once_and_for_all(feedback: Feedback, make_example: Make) -> None:
    store = feedback.store
    assert store is not None
    example, content = make_example()
    store.write(example, content)
    answers = FeedbackAnswers(feedback)
    for _ in range(2):
        assert ask(answers, action="done", example=example.id)["ok"] is True
        assert store.examples[0].collected
    for _ in range(2):
        assert ask(answers, action="done", example=example.id, delete=True)["ok"] is True
        assert store.examples == []
    assert store.taken(example.day) == {"clap": 1}
    gone = ask(answers, action="fetch", example=example.id)
    assert gone["ok"] is False
    assert "is not there" in gone["message"]
    assert ask(answers, action="fetch", example=uuid7())["ok"] is False


def test_more_than_so_many_are_refused_as_busy(feedback: Feedback) -> None:
    answers = FeedbackAnswers(feedback, per_minute=3)
    busy = [ask(answers, action="list").get("busy", False) for _ in range(5)]
    assert busy == [False, False, False, True, True]


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    settings = FeedbackSettings(enabled=True, folder=tmp_path / "kept")
    feedback = Feedback(settings, "porch-pi", gate=SpeechGate.__new__(SpeechGate))
    answer = ask(FeedbackAnswers(feedback), action="list")
    assert answer["ok"] is False
    assert "cannot hold feedback" in answer["message"]
    feedback.close()
