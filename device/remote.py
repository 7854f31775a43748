"""Commands over MQTT: checked, bounded, obeyed one at a time, each answered once.

A message on `<base>/<device>/cmd/<name>` is a JSON object, or empty:

    {"id": "7", "source": "porch", "duration_s": 600}          pause
    {"source": "porch"}                                        resume
    {"label": "dog", "onset": 0.8, "release": 0.5}             threshold
    {"label": "dog", "reset": true}                            threshold
    {}                                                         reload
    {"install": true}                                          update
    {"action": "list"}                                         feedback (feedback_answers.py)

and is answered on `cmd/<name>/result`, `id` as it came; for a minute, a command that has the same
`id` is a repeat, answered and not obeyed again:

    {"schema": "soundpost.result/1", "id": "7", "command": "pause", "ok": true, "message": "..."}
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from soundpost.device.control import Control
from soundpost.device.errors import InputError, SoundpostError, UsageError
from soundpost.device.kinds import Flag, Kind, Number, Text
from soundpost.device.mqtt_inbox import Message
from soundpost.device.publisher import Publisher
from soundpost.device.rate_limit import TokenBucket
from soundpost.device.records import parse_object
from soundpost.device.settings import COMMANDS, CommandSettings, nearest
from soundpost.device.topics import MAX_NAME_BYTES

logger = logging.getLogger(__name__)

RESULT_SCHEMA: Final = "soundpost.result/1"
MAX_COMMAND_BYTES: Final = 4_096
MAX_ID_CHARACTERS: Final = 64
# Commands that wait while one is obeyed, and answers that are remembered for repeats.
_MAX_WAITING: Final = 16
_REMEMBERED: Final = 64
# A repeat by QoS 1 comes as soon as who sent it is connected again. Later the same id is a command
# of its own: an automation sends a fixed text, and must not be told of what was done an hour ago.
_REPEATED_S: Final = 60.0
# How long an answer waits for a connection that was lost meanwhile.
_ANSWER_S: Final = 30.0
_AGAIN_S: Final = 0.2

_SOURCE: dict[str, Kind] = {"source": Text("which source; without: all")}
_FIELDS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "pause": {**_SOURCE, "duration_s": Number("how long", 1, 31 * 86_400, "s")},
    "resume": _SOURCE,
    "threshold": {
        **_SOURCE,
        "label": Text("of which label"),
        "onset": Number("an event begins at this score", 0.01, 1.0),
        "release": Number("an event ends below this score", 0.001, 1.0),
        "reset": Flag("forget what commands have set"),
    },
    "reload": {},
    "update": {"install": Flag("take what is offered, or only look; without: take it")},
}


@dataclass(frozen=True)
class Request:
    """A command in order; what was not given is None."""

    name: str
    id: str | None = None
    source: str | None = None
    duration_s: float | None = None
    label: str | None = None
    onset: float | None = None
    release: float | None = None
    reset: bool = False
    install: bool = True


def parse_request(name: str, payload: bytes) -> Request:
    """A command by its name and payload.

    Raises
    ------
    UsageError
        No such command; a field unknown, missing, of another kind or out of range.
    InputError
        The payload is too large or no JSON object.
    """
    if name == "feedback":
        raise UsageError("feedback: is answered for itself; `soundpost collect` asks for it")
    if name not in COMMANDS:
        raise UsageError(f"{name[:40]!r}: no such command{nearest(name[:40], COMMANDS)}")
    values = dict(_object(payload)) if payload else {}
    identifier = _id_of(values)
    values.pop("id", None)
    kinds = _FIELDS[name]
    found: dict[str, Any] = {}
    for key, value in values.items():
        kind = kinds.get(key)
        if kind is None:
            raise UsageError(f"{key[:40]!r}: unknown field of {name}{nearest(key[:40], [*kinds])}")
        found[key] = kind.read(value)
        if found[key] is None:
            raise UsageError(f"{key}: found {_short(value)}, expected {kind.expected}")
    request = Request(name, identifier, **found)
    if name == "threshold":
        _check_threshold(request)
    return request


def _check_threshold(request: Request) -> None:
    if request.reset:
        if request.onset is not None or request.release is not None:
            raise UsageError("reset: stands alone, without onset and release")
        return
    if request.label is None:
        raise UsageError("label: is missing: of which label?")
    if request.onset is None:
        raise UsageError('onset: is missing; or give "reset": true')
    if request.release is not None and request.release > request.onset:
        raise UsageError(f"release: found {request.release:g}, above onset ({request.onset:g})")


def _object(payload: bytes) -> Mapping[str, Any]:
    if len(payload) > MAX_COMMAND_BYTES:
        raise InputError(f"command of {len(payload)} bytes: at most {MAX_COMMAND_BYTES}")
    return parse_object(payload, "command")


def _name(message: Message) -> str:
    return message.topic.rpartition("/")[2]


def _id_of(values: Mapping[str, Any]) -> str | None:
    identifier = values.get("id")
    if identifier is None:
        return None
    if not isinstance(identifier, str) or not 0 < len(identifier) <= MAX_ID_CHARACTERS:
        raise UsageError(f"id: expected a text of 1 to {MAX_ID_CHARACTERS} characters")
    return identifier


def _known_id(payload: bytes) -> str | None:
    """The id of a command that is not in order, where it can be told."""
    try:
        return _id_of(_object(payload)) if payload else None
    except SoundpostError:
        return None


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


class Remote:
    """Obeys commands of the broker, in a thread of its own.

    control : what obeys
    publisher : brings commands and takes answers
    settings : which are allowed; may be changed by `use`
    feedback : answers the command of that name: fields of its answer; None: there is no feedback

    Attributes
    ----------
    ignored : retained commands, which are never obeyed: they would be at each connection
    refused : commands beyond the rate, while too many wait, or with a name too long to be answered
    """

    def __init__(
        self,
        control: Control,
        publisher: Publisher,
        settings: CommandSettings,
        feedback: Callable[[bytes], Mapping[str, Any]] | None = None,
    ) -> None:
        self.ignored = 0
        self.refused = 0
        self._control = control
        self._publisher = publisher
        self._settings = settings
        self._feedback = feedback
        self._bucket = TokenBucket(settings.per_minute)
        self._subscribed = False
        # By id: which command it was of, its answer, and until when that is remembered.
        self._answered: OrderedDict[str, tuple[bytes, str, float]] = OrderedDict()
        self._waiting: queue.Queue[Message | None] = queue.Queue(_MAX_WAITING)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="commands", daemon=True)

    def start(self) -> Remote:
        """Begin to obey, if the settings allow any command."""
        self._thread.start()
        self.use(self._settings)
        return self

    def use(self, settings: CommandSettings) -> None:
        """Go by other settings from now on."""
        if settings.per_minute != self._settings.per_minute:
            self._bucket = TokenBucket(settings.per_minute)
        self._settings = settings
        if settings.enabled and not self._subscribed:
            self._subscribed = True
            self._publisher.subscribe(self._publisher.topics.cmd_filter, self.take)

    def close(self, timeout_s: float = 2.0) -> None:
        """End after the command that is being obeyed."""
        self._closing.set()
        with self._waiting.mutex:
            self._waiting.queue.clear()
        self._waiting.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def take(self, message: Message) -> None:
        """Hand a message to the thread that obeys; returns at once."""
        if not self._settings.enabled:
            return
        if message.retained:
            self.ignored += 1
            if self.ignored == 1:
                logger.warning(
                    "a retained command on %s is not obeyed (further ones are counted only): take "
                    "it away with an empty retained message, and send commands without retain",
                    message.topic,
                )
            return
        if len(_name(message).encode()) > MAX_NAME_BYTES:
            # With `/result` behind it, it might be no topic any more.
            self.refused += 1
            return
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            # In the thread that brings all messages: it must not wait for a broker.
            self._refuse(message, f"busy: {_MAX_WAITING} commands wait already", patience_s=0.0)

    def _refuse(self, message: Message, why: str, patience_s: float = _ANSWER_S) -> None:
        self.refused += 1
        self._send(message, _known_id(message.payload), False, why, patience_s)

    def _work(self) -> None:
        while (message := self._waiting.get()) is not None:
            try:
                self._handle(message)
            except Exception:  # A fault of ours must not make the sensor deaf to commands.
                logger.exception("a command on %s met a fault in soundpost", message.topic)

    def _handle(self, message: Message) -> None:
        name, identifier = _name(message), _known_id(message.payload)
        if name == "feedback":
            # It may be asked again and again: its answers are large and are not remembered.
            self._publish(message, self._answer_feedback(identifier, message.payload))
            return
        digest = hashlib.sha256(message.topic.encode() + b"\0" + message.payload).digest()
        known = None if identifier is None else self._answered.get(identifier)
        if known is not None and time.monotonic() < known[2]:
            before, answer, _ = known
            if before == digest:
                self._publish(message, answer)
            else:
                self._send(message, identifier, False, "id: was used for another command")
            return
        if not self._bucket.take():
            self._refuse(message, f"more than {self._settings.per_minute} commands a minute")
            return
        ok, line = self._obey(name, message.payload)
        logger.info("command %s: %s", name, line)
        answer = self._send(message, identifier, ok, line)
        if identifier is not None:
            self._answered.pop(identifier, None)
            self._answered[identifier] = (digest, answer, time.monotonic() + _REPEATED_S)
            if len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)

    def _answer_feedback(self, identifier: str | None, payload: bytes) -> str:
        if self._feedback is None:
            line = "feedback: is off; [feedback] enabled = true in the settings begins it"
            return result_json("feedback", identifier, False, line)
        if "feedback" not in self._settings.allow:
            return result_json("feedback", identifier, False, _not_allowed("feedback"))
        try:
            answer = dict(self._feedback(payload))
        except Exception as error:  # A fault of ours is answered too.
            logger.exception("command feedback met a fault in soundpost")
            answer = {"ok": False, "message": f"fault in soundpost: {error!r}"}
        ok, line = bool(answer.pop("ok")), str(answer.pop("message"))
        return result_json("feedback", identifier, ok, line, answer)

    def _obey(self, name: str, payload: bytes) -> tuple[bool, str]:
        try:
            request = parse_request(name, payload)
            if name not in self._settings.allow:
                raise UsageError(_not_allowed(name))
            return True, execute(self._control, request)
        except SoundpostError as error:
            return False, str(error)
        except Exception as error:  # A fault of ours is answered too.
            logger.exception("command %s met a fault in soundpost", name)
            return False, f"fault in soundpost: {error!r}"

    def _send(
        self,
        message: Message,
        identifier: str | None,
        ok: bool,
        line: str,
        patience_s: float = _ANSWER_S,
    ) -> str:
        answer = result_json(_name(message), identifier, ok, line)
        self._publish(message, answer, patience_s)
        return answer

    def _publish(self, message: Message, answer: str, patience_s: float = _ANSWER_S) -> None:
        deadline_s = time.monotonic() + patience_s
        while not self._publisher.publish_once(f"{message.topic}/result", answer):
            if time.monotonic() >= deadline_s or self._closing.wait(_AGAIN_S):
                logger.warning("an answer on %s found no broker", message.topic)
                return


def execute(control: Control, request: Request) -> str:
    """Obey a command; one line on what was done. Raises SoundpostError where that cannot be."""
    if request.name == "pause":
        return control.pause(request.source, request.duration_s)
    if request.name == "resume":
        return control.resume(request.source)
    if request.name == "reload":
        return control.reload()
    if request.name == "update":
        return control.update(request.install)
    if request.reset:
        return control.reset_threshold(request.source, request.label)
    if request.label is None or request.onset is None:
        raise UsageError("threshold: label and onset are missing")
    return control.set_threshold(request.source, request.label, request.onset, request.release)


def _not_allowed(name: str) -> str:
    return f"{name}: not among those that commands.allow of the settings has"


def result_json(
    command: str,
    identifier: str | None,
    ok: bool,
    message: str,
    more: Mapping[str, Any] | None = None,
) -> str:
    """Answer to a command; more : fields of this command's own."""
    answer = {
        "schema": RESULT_SCHEMA,
        "id": identifier,
        "command": command,
        "ok": ok,
        "message": message,
        **(more or {}),
    }
    # Escaped: an id may hold half a character, which is JSON but no UTF-8.
    return json.dumps(answer, separators=(",", ":"))
