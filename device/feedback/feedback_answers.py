"""What a sensor answers to `cmd/feedback`: which examples wait, parts of them, and their end.

    {"id": "1", "action": "list", "after": "0192…"}                    after: an example's id
    {"id": "2", "action": "fetch", "example": "0192…", "offset": 0}    and "length", bytes
    {"id": "3", "action": "done", "example": "0192…", "delete": true}

Answers are those of every command (`soundpost.result/1`), and have more fields: `examples`, `more`
and `labels`; `offset`, `data` (base64) and `sha256` of the whole file; `busy` where it was asked
too often. Each may be asked again: what was done before is done.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from soundpost.device.errors import InputError, SoundpostError, UsageError
from soundpost.device.feedback.example import MAX_EXAMPLE_BYTES
from soundpost.device.feedback.example_store import ExampleStore
from soundpost.device.feedback.feedback import Feedback
from soundpost.device.identifiers import UUID7_PATTERN
from soundpost.device.kinds import Choice, Flag, Kind, Number, Text
from soundpost.device.rate_limit import TokenBucket
from soundpost.device.records import parse_object
from soundpost.device.settings import nearest

ACTIONS: Final = ("list", "fetch", "done")
MAX_PART_BYTES: Final = 131_072
PART_BYTES: Final = 49_152
# Four in a second: with the parts above, less than what a slow network carries.
PER_MINUTE: Final = 240
_PER_LIST: Final = 32
_MAX_REQUEST_BYTES: Final = 4_096

_ID: dict[str, Kind] = {"id": Text("repeated in the answer")}
_EXAMPLE: dict[str, Kind] = {"example": Text("id of an example")}
_FIELDS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "list": {"after": Text("id of an example: those that follow it")},
    "fetch": {
        **_EXAMPLE,
        "offset": Number("bytes", 0, MAX_EXAMPLE_BYTES, whole=True),
        "length": Number("bytes at most", 1, MAX_PART_BYTES, whole=True),
    },
    "done": {**_EXAMPLE, "delete": Flag("delete it on the sensor")},
}


@dataclass(frozen=True)
class FeedbackRequest:
    """A request in order; see the module's docstring."""

    action: str
    example: str = ""
    after: str = ""
    offset: int = 0
    length: int = PART_BYTES
    delete: bool = False


def parse_feedback_request(payload: bytes) -> FeedbackRequest:
    """Read a request; raises UsageError or InputError where it is not in order."""
    if len(payload) > _MAX_REQUEST_BYTES:
        raise InputError(f"command of {len(payload)} bytes: at most {_MAX_REQUEST_BYTES}")
    values = dict(parse_object(payload, "command"))
    action = Choice("what to do", ACTIONS).read(values.pop("action", None))
    if action is None:
        raise UsageError(f"action: expected one of {', '.join(ACTIONS)}")
    values.pop("id", None)
    found: dict[str, Any] = {}
    kinds = _FIELDS[action]
    for key, value in values.items():
        kind = kinds.get(key)
        if kind is None:
            raise UsageError(
                f"{key[:40]!r}: unknown field of {action}{nearest(key[:40], [*kinds])}"
            )
        found[key] = kind.read(value)
        if found[key] is None:
            raise UsageError(f"{key}: expected {kind.expected}")
    for key in ("example", "after"):
        if key in found and not UUID7_PATTERN.fullmatch(found[key]):
            raise UsageError(f"{key}: expected the id of an example")
    if action != "list" and "example" not in found:
        raise UsageError("example: is missing: the id of which one?")
    return FeedbackRequest(action, **found)


class FeedbackAnswers:
    """Answers requests, so many a minute; used by the thread of the commands."""

    def __init__(self, feedback: Feedback, per_minute: int = PER_MINUTE) -> None:
        self._feedback = feedback
        self._bucket = TokenBucket(per_minute)

    def answer(self, payload: bytes) -> Mapping[str, Any]:
        """Fields of the answer beside schema, id and command; `ok` and `message` among them."""
        if not self._bucket.take():
            line = f"more than {self._bucket.per_minute} requests a minute: wait some seconds"
            return {"ok": False, "message": line, "busy": True}
        try:
            return {"ok": True, **self._obey(parse_feedback_request(payload))}
        except SoundpostError as error:
            return {"ok": False, "message": str(error)}

    def _obey(self, request: FeedbackRequest) -> Mapping[str, Any]:
        store = self._feedback.store
        if store is None:
            raise InputError(self._feedback.fault or "feedback: its folder cannot be used")
        if request.action == "list":
            return _listed(store, request.after)
        example = next((one for one in store.examples if one.id == request.example), None)
        if request.action == "fetch":
            if example is None:
                raise UsageError(f"example {request.example}: is not there (any more)")
            part = store.read(request.example, request.offset, request.length)
            return {
                "message": f"{len(part)} of {example.n_bytes} bytes",
                "example": example.id,
                "offset": request.offset,
                "n_bytes": example.n_bytes,
                "sha256": example.sha256,
                "data": base64.b64encode(part).decode(),
            }
        if example is None:
            return {"message": "is not there any more"}
        if request.delete:
            store.take_away(example.id)
            self._feedback.taken_away(example)
            return {"message": "deleted"}
        store.collected(example.id)
        return {"message": "noted"}


def _listed(store: ExampleStore, after: str) -> Mapping[str, Any]:
    examples = [known for known in store.examples if known.id > after]
    shown = examples[:_PER_LIST]
    answer: dict[str, Any] = {
        "message": f"{len(examples)} examples",
        "examples": [known.to_dict() for known in shown],
        "more": len(examples) - len(shown),
        "n_bytes": sum(known.n_bytes for known in examples),
    }
    if not after:
        answer["labels"] = list(store.labels)
    return answer
