"""What an update has to remember through a restart: `update.json`, beside models.json.

models.json says which model is what; this file says how far the one that is tried has come. All of
it is told of a model by its sha256: what is said of another one than is tried now says nothing. A
file that is damaged or lost costs time, never a model: the step that it told of is done again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.device.identifiers import format_time, parse_time
from soundpost.device.updates.model_state import RESULTS

_LOGGER = logging.getLogger(__name__)

SCHEMA = "soundpost.update/1"
NAME = "update.json"
# Of a model with a thousand labels, several times over.
_MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class UpdateRecord:
    """How far an update has come.

    sha256 : of the model that the following fields tell of; empty: of none
    tested : it has passed the self-test
    shadowed : it has passed the shadow
    compared_s : of its shadow, sound that was heard before this start
    agreed : it was found to hear as the old one does
    suspected : something about it was odd, and no comparison has settled it
    heard_s : of its probation, sound that was heard before this start
    crashes : ends of the sensor with it, in the shadow or on probation, that nobody asked for
    power_cuts : ends of the machine with it, which are not counted as crashes
    crashed_at_s, cut_at_s : compared_s + heard_s at the last of each, after much more of which it
        is forgotten
    running : the sensor has been started with it, or beside it, and not ended in order
    boot_id : of the machine's run in which it was started
    usual : scores of the model before it, or of itself once it has proved itself, by label, as
        counts in equal parts of 0 to 1; `usual_sha256` says whose
    usual_events, usual_windows, usual_heard_s, usual_compute_s : what came with them
    gave_way : models that gave way unproved since one has proved itself, this one among them
    settings_sha256 : bundle that the settings named when a model was installed in its place
    result, reason, result_time : how the last try ended
    """

    sha256: str = ""
    tested: bool = False
    shadowed: bool = False
    compared_s: float = 0.0
    agreed: bool = False
    suspected: bool = False
    heard_s: float = 0.0
    crashes: int = 0
    power_cuts: int = 0
    crashed_at_s: float = 0.0
    cut_at_s: float = 0.0
    running: bool = False
    boot_id: str = ""
    usual_sha256: str = ""
    usual: dict[str, list[int]] | None = None
    usual_events: dict[str, int] | None = None
    usual_windows: int = 0
    usual_heard_s: float = 0.0
    usual_compute_s: float = 0.0
    gave_way: int = 0
    settings_sha256: str = ""
    result: str = ""
    reason: str = ""
    result_time: datetime | None = None

    def about(self, sha256: str) -> UpdateRecord:
        """The record of this model: as it is, or begun."""
        if self.sha256 == sha256:
            return self
        kept = (name for name in vars(self) if name.startswith(("result", "reason", "usual")))
        names = ("gave_way", "settings_sha256", *kept)
        return UpdateRecord(sha256=sha256, **{name: getattr(self, name) for name in names})

    def to_json(self) -> bytes:
        """Content of update.json."""
        table = asdict(self)
        time = self.result_time
        table["result_time"] = None if time is None else format_time(time)
        return f"{json.dumps({'schema': SCHEMA, **table})}\n".encode()

    @classmethod
    def from_json(cls, content: bytes) -> UpdateRecord:
        """Read update.json; raises ValueError where it is not what `to_json` writes."""
        table = json.loads(content)
        if not isinstance(table, dict) or table.pop("schema", None) != SCHEMA:
            raise ValueError(f"is not of schema '{SCHEMA}'")
        default = cls()
        values: dict[str, Any] = {}
        for field in fields(cls):
            # What an earlier soundpost did not write yet is as at the beginning.
            value = table.get(field.name, getattr(default, field.name))
            if field.name == "result_time":
                value = None if value is None else parse_time(value)
            elif field.name in ("usual", "usual_events"):
                value = None if value is None else _counts(field.name, value)
            else:
                kind = type(getattr(default, field.name))
                value = float(value) if kind is float and type(value) is int else value
                # Not a number fails the comparison.
                in_range = not isinstance(value, int | float) or 0 <= value < 1e12
                if type(value) is not kind or not in_range:
                    raise ValueError(f"{field.name} is {str(value)[:20]}: expected {kind.__name__}")
            values[field.name] = value
        if values["result"] not in ("", *RESULTS):
            raise ValueError("result is none of those that there are")
        return cls(**values)


def _counts(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no table")
    for counts in value.values():
        listed = counts if isinstance(counts, list) else [counts]
        if not all(type(count) is int and count >= 0 for count in listed):
            raise ValueError(f"{name} holds other things than counts")
        if (name == "usual") != isinstance(counts, list):
            raise ValueError(f"{name} is of another form")
    return value


class RecordFile:
    """`update.json` of a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        for left in folder.glob(f".{NAME}.*.part"):
            left.unlink(missing_ok=True)
        self.record = self._read()
        self._written = self.record

    def _read(self) -> UpdateRecord:
        try:
            with self._path.open("rb") as file:
                return UpdateRecord.from_json(file.read(_MAX_BYTES))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, RecursionError) as error:
            _LOGGER.warning("%s: %s; begun anew", self._path, str(error)[:80])
        return UpdateRecord()

    def save(self, record: UpdateRecord) -> None:
        """Write it, if it says anything new; raises InputError where the disk is full."""
        if record != self._written:
            write_atomically(self._path, record.to_json())
            self._written = record
        self.record = record

    def change(self, **values: Any) -> None:
        """Write it with some fields changed; raises InputError where the disk is full."""
        self.save(replace(self.record, **values))

    def try_change(self, **values: Any) -> None:
        """As `change`; where the disk is full it holds until the sensor ends."""
        try:
            self.change(**values)
        except InputError as error:
            _LOGGER.warning("%s", error)
            self.record = replace(self.record, **values)
