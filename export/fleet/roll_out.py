"""A roll-out as it stands: model, waves, what became of each sensor; and its file.

`roll-out.json` (`soundpost.roll-out/1`) lies beside the repository's keys. It is written before
what it says is done, and what it says can be done twice: whoever finds it goes on from there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from soundpost.device.errors import InputError, SoundpostError, UsageError
from soundpost.device.files import write_atomically
from soundpost.device.identifiers import format_time
from soundpost.device.records import Fields, check_schema, parse_object
from soundpost.device.updates.offers import Installed
from soundpost.export.fleet.settings import RollOutSettings
from soundpost.export.repository.folder import alone

SCHEMA: Final = "soundpost.roll-out/1"
STATE_FILE: Final = "roll-out.json"
LOG_FILE: Final = "roll-out.log"
# 10,000 sensors with a reason of 300 characters each.
_MAX_BYTES: Final = 16_000_000
_LOCK: Final = ".roll-out.lock"

# `stopping`, `aborting`, `finishing`: the repository is being brought to what is to stay.
Stage = Literal[
    "running",
    "paused",
    "stopping",
    "stopped",
    "aborting",
    "aborted",
    "finishing",
    "done",
]
UNFINISHED: Final = ("running", "paused", "stopping", "stopped", "aborting", "finishing")

# `waiting`: not asked yet, or its wave has not begun. The last four settle a sensor's part.
Outcome = Literal[
    "waiting", "asked", "installing", "probation", "confirmed", "rolled-back", "refused", "late"
]
SETTLED: Final = ("confirmed", "rolled-back", "refused", "late")


@dataclass(frozen=True)
class Member:
    """One sensor that the roll-out is for.

    wave : from 1 on
    outcome, reason : what became of it so far, and one line on that
    has_model : whether it hears with the model
    result_before : how its try before this one ended, and when, so that it is not taken for ours
    drifted_before : whether its scores had drifted before
    accepted : an operator has seen how it ended; it counts for no condition any more
    """

    device: str
    wave: int
    outcome: Outcome = "waiting"
    reason: str | None = None
    has_model: bool = False
    result_before: str | None = None
    drifted_before: bool = False
    accepted: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing more is awaited of it."""
        return self.outcome in SETTLED


@dataclass(frozen=True)
class RollOut:
    """A roll-out.

    model, path : what is rolled out, and its target in the repository
    channel : whose sensors it is for, and which is moved to the model at the end
    before : model of the channel at the beginning; None where it was empty
    members : in their order, wave by wave
    skipped : by device, why it is not among them
    wave, began : the last one that has begun, from 1 on, and when
    hold_until : once all of the wave are settled, when the next may begin
    kept : sensors that stay pinned to the model after a stop or an abort
    take_back : after an abort, sensors that have the model go back to the channel's
    blamed : after a stop, the sensors that its condition was about
    """

    model: Installed
    path: str
    channel: str
    before: Installed | None
    settings: RollOutSettings
    created: datetime
    members: tuple[Member, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    stage: Stage = "running"
    reason: str | None = None
    wave: int = 1
    began: datetime | None = None
    hold_until: datetime | None = None
    kept: tuple[str, ...] = ()
    take_back: bool = False
    blamed: tuple[str, ...] = ()

    @property
    def n_waves(self) -> int:
        """How many there are."""
        return max((member.wave for member in self.members), default=0)

    @property
    def begun(self) -> tuple[Member, ...]:
        """Sensors of this wave and of those before."""
        return tuple(member for member in self.members if member.wave <= self.wave)

    def with_members(self, changed: dict[str, Member]) -> RollOut:
        """The roll-out with other members of the same names."""
        return replace(
            self, members=tuple(changed.get(member.device, member) for member in self.members)
        )

    def to_json(self) -> bytes:
        """Content of the state file."""
        table = {
            "schema": SCHEMA,
            "model": vars(self.model),
            "path": self.path,
            "channel": self.channel,
            "before": None if self.before is None else vars(self.before),
            "settings": self.settings.to_dict(),
            "created": format_time(self.created),
            "stage": self.stage,
            "reason": self.reason,
            "wave": self.wave,
            "began": None if self.began is None else format_time(self.began),
            "hold_until": None if self.hold_until is None else format_time(self.hold_until),
            "kept": list(self.kept),
            "take_back": self.take_back,
            "blamed": list(self.blamed),
            "members": [vars(member) for member in self.members],
            "skipped": [{"device": device, "why": why} for device, why in self.skipped],
        }
        return f"{json.dumps(table, indent=1, ensure_ascii=False)}\n".encode()

    @classmethod
    def from_json(cls, content: bytes, where: str) -> RollOut:
        """Read what `to_json` writes; raises InputError."""
        fields = Fields(parse_object(content, where, _MAX_BYTES), where)
        check_schema(fields, SCHEMA)
        stage = fields.text("stage")
        if stage not in get_args(Stage):
            raise fields.fail("stage", f"one of {get_args(Stage)}", stage)
        model = _installed(fields.table("model"), where)
        before = fields.optional_table("before")
        settings = Fields(fields.table("settings"), f"{where}, settings")
        members = [_member(Fields(one, where)) for one in _tables(fields, "members")]
        skipped = [
            (one.text("device"), one.text("why"))
            for one in (Fields(table, where) for table in _tables(fields, "skipped"))
        ]
        return cls(
            model=model,
            path=fields.text("path"),
            channel=fields.text("channel"),
            before=None if before is None else _installed(before, where),
            settings=RollOutSettings.from_fields(settings),
            created=fields.moment("created"),
            stage=stage,  # type: ignore[arg-type]  # checked above
            reason=fields.optional_text("reason"),
            wave=fields.integer("wave"),
            began=fields.optional_moment("began"),
            hold_until=fields.optional_moment("hold_until"),
            kept=tuple(map(str, fields.take("kept"))),
            take_back=fields.truth("take_back"),
            blamed=tuple(map(str, fields.take("blamed"))),
            members=tuple(members),
            skipped=tuple(skipped),
        )


def _tables(fields: Fields, name: str) -> list[dict[str, Any]]:
    values = fields.take(name)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise fields.fail(name, "a list of objects", values)
    return values


def _installed(table: Any, where: str) -> Installed:
    fields = Fields(table, where)
    return Installed(fields.text("name"), fields.text("version"), fields.text("sha256"))


def _member(fields: Fields) -> Member:
    outcome = fields.text("outcome")
    if outcome not in get_args(Outcome):
        raise fields.fail("outcome", f"one of {get_args(Outcome)}", outcome)
    return Member(
        device=fields.text("device"),
        wave=fields.integer("wave"),
        outcome=outcome,  # type: ignore[arg-type]  # checked above
        reason=fields.optional_text("reason"),
        has_model=fields.truth("has_model"),
        result_before=fields.optional_text("result_before"),
        drifted_before=fields.truth("drifted_before"),
        accepted=fields.truth("accepted"),
    )


def read_roll_out(repository: Path) -> RollOut | None:
    """The last roll-out of a repository; None where there was none. Raises InputError."""
    path = repository / STATE_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return RollOut.from_json(content, str(path))
    except (SoundpostError, TypeError) as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise InputError(f"{where}{error}; restore it from a copy, or move it away") from error


def write_roll_out(repository: Path, roll_out: RollOut) -> None:
    """Keep it; raises InputError where the disk does not take it."""
    write_atomically(repository / STATE_FILE, roll_out.to_json())


@contextmanager
def roll_out_lock(repository: Path) -> Iterator[None]:
    """Be the only one who rolls out here; UsageError where another does.

    The lock goes with its process, however that ends.
    """
    with alone(repository, _LOCK) as other:
        if other is not None:
            raise UsageError(
                f"{repository}: a roll-out is at work here (process {other}); see `soundpost "
                f"fleet status --repo {repository}`, `fleet pause` and `fleet abort`; nothing was "
                "changed"
            )
        yield


def at_work(repository: Path) -> bool:
    """Whether a process rolls out here now."""
    try:
        handle = os.open(repository / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
